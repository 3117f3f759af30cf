"""What the layers of all published models are made of."""

from refllm.spec.affine import affine
from refllm.spec.array import Array, Tree, arange, everywhere, sqrt, swap, tap, where
from refllm.spec.feed_forward import activated
from refllm.spec.heads import joined
from refllm.spec.layer_norm import rms_norm
from refllm.spec.layers import normalised
from refllm.spec.soft_cap import soft_cap
from refllm.spec.softmax import softmax


def norm(x: Array, p: Tree, *, eps: float) -> Array:
    """Layer norm; RMS norm where p has no b, and with the gain 1 + offset where it has an offset, as Gemma does."""
    if "offset" in p:
        y, _ = rms_norm(x, 1 + p["offset"], eps=eps)
        return y
    y, _ = normalised(x, p, eps=eps)
    return y


def mapped(x: Array, p: Tree, name: str) -> Array:
    """x W + b, or x W where p has no such b."""
    y, _ = affine(x, p, name)
    return y


def visible(x: Array, *, keys: int, causal: bool, window: int, attention_mask: Array | None) -> Array:
    """Which keys (..., S) a query (T) sees: causal, none after it; with a window no more than so many, its own among
    them; and none that the mask (B, S) leaves out."""
    T = x.shape[-2]
    distance = arange(T)[:, None] - arange(keys)
    seen = everywhere(distance.shape)
    if causal:
        seen = seen & (distance >= 0)
    if window:
        seen = seen & (distance < window)
    if attention_mask is not None:
        seen = seen & attention_mask[:, None, None, :]
    return seen


def attended(q: Array, k: Array, v: Array, r: Array | None, *, seen: Array, width: float, cap: float) -> Array:
    """softmax(q kᵀ / √width + r) v over the keys that are seen, the scores held within a cap where there is one."""
    s = q @ swap(k) / sqrt(width)
    if r is not None:
        s = s + r
    if cap:
        s, _ = soft_cap(s, cap=cap)
    s = where(seen, tap("scores", s), float("-inf"))
    w, _ = softmax(s)
    return tap("attention", tap("weights", w) @ v)


def by_places(r: Array, T: int) -> Array:
    """Entry (h, t, s) of the result is that of r (H, 2T - 1) for the distance s - t."""
    return r[:, arange(T) - arange(T)[:, None] + T - 1]


def put_out(a: Array, p: Tree) -> Array:
    """The heads side by side, and their map."""
    return mapped(joined(a), p, "o")


def feed_forward(x: Array, p: Tree, *, activation: str) -> Array:
    """f(x W1 + b1) W2 + b2"""
    h = tap("up", mapped(x, p, "1"))
    a, _ = activated(h, activation=activation)
    return mapped(tap("activated", a), p, "2")


def gated_feed_forward(x: Array, p: Tree, *, activation: str) -> Array:
    """(f(x Wg) · (x W1)) W2"""
    g = tap("gate", mapped(x, p, "g"))
    h = tap("up", mapped(x, p, "1"))
    a, _ = activated(g, activation=activation)
    return mapped(tap("activated", a * h), p, "2")
