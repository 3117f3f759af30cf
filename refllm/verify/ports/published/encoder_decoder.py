"""T5, BART and the published Switch Transformers."""

from collections.abc import Callable

from refllm.spec.array import Array, Tree, arange, like, part, sqrt, tap
from refllm.spec.embedding import embedding
from refllm.spec.heads import cut
from refllm.spec.linear import matmul
from refllm.spec.position import sinusoidal
from refllm.spec.relative import t5_bias_bidirectional, t5_bias_causal
from refllm.spec.switch_layer import switch_layer
from refllm.verify.ports.published.parts import (
    attended,
    by_places,
    feed_forward,
    gated_feed_forward,
    mapped,
    norm,
    put_out,
    visible,
)

Sublayer = Callable[[Array], Array]


def stack_embedding(token: Array, p: Tree, *, ids: Array, config: Tree) -> Array:
    """token[ids], its position where there is one, and a norm where p has one, as in BART."""
    x, _ = embedding(token, ids=ids)
    if config["scaled_embedding"]:
        x = x * sqrt(config["width"])
    positions = arange(ids.shape[-1])
    if config["positions"] == "sinusoidal":
        x = x + sinusoidal(like(positions, x), width=x.shape[-1])[0]
    if config["positions"] == "learned":
        x = x + p["position"][positions]
    if config["embedding_norm"]:
        x = norm(tap("embedding_sum", x), p["embedding_norm"], eps=config["eps"])
    return x


def encoder_layer(x: Array, p: Tree, relative: Array | None, *, attention_mask: Array | None, config: Tree) -> Array:
    """Self-attention in both directions, then feed-forward."""
    r = bias_of_encoder(x, relative, config=config)

    def attend(z: Array) -> Array:
        return self_attention(z, p["attention"], r, causal=False, attention_mask=attention_mask, config=config)

    h = residual(x, p, 1, "attention_out", attend, config=config)
    return residual(h, p, 2, "feed_forward", lambda z: fed(z, p["feed_forward"], config=config), config=config)


def decoder_layer(
    x: Array, p: Tree, memory: Array, relative: Array | None, *, attention_mask: Array | None, config: Tree
) -> Array:
    """Causal self-attention, attention to the memory, feed-forward; the mask is that of the source."""
    r = bias_of_decoder(x, relative, config=config)

    def attend(z: Array) -> Array:
        return self_attention(z, p["attention"], r, causal=True, attention_mask=None, config=config)

    def read(z: Array) -> Array:
        return cross_attention(z, p["cross_attention"], memory, attention_mask=attention_mask, config=config)

    h = residual(x, p, 1, "attention_out", attend, config=config)
    c = residual(h, p, 2, "cross_attention_out", read, config=config)
    return residual(c, p, 3, "feed_forward", lambda z: fed(z, p["feed_forward"], config=config), config=config)


def residual(x: Array, p: Tree, number: int, name: str, f: Sublayer, *, config: Tree) -> Array:
    """x + f(N(x)), or N(x + f(x)) where the norm is "post"."""
    if config["norm"] == "post":
        s = tap(f"residual{number}", x + tap(name, f(x)))
        return tap(f"norm{number}", norm(s, p[f"norm{number}"], eps=config["eps"]))
    n = tap(f"norm{number}", norm(x, p[f"norm{number}"], eps=config["eps"]))
    return tap(f"residual{number}", x + tap(name, f(n)))


def bias_of_encoder(x: Array, relative: Array | None, *, config: Tree) -> Array | None:
    """The bias of every pair of places by their distance, (H, S, S), in T5."""
    if relative is None:
        return None
    S = x.shape[-2]
    r, _ = t5_bias_bidirectional(relative, queries=S, keys=S, farthest=config["farthest"])
    return by_places(r, S)


def bias_of_decoder(x: Array, relative: Array | None, *, config: Tree) -> Array | None:
    """As that of the encoder, for keys that come before."""
    if relative is None:
        return None
    T = x.shape[-2]
    r, _ = t5_bias_causal(relative, queries=T, keys=T, farthest=config["farthest"])
    return by_places(r, T)


def self_attention(
    x: Array, p: Tree, r: Array | None, *, causal: bool, attention_mask: Array | None, config: Tree
) -> Array:
    """Attention with a bias by distance; T5 does not divide its scores."""
    qkv = mapped(x, p, "qkv")
    I = qkv.shape[-1] // 3
    q = tap("q", cut(qkv[..., :I], config["heads"]))
    k = tap("k", cut(qkv[..., I : 2 * I], config["heads"]))
    v = tap("v", cut(qkv[..., 2 * I :], config["heads"]))
    seen = visible(x, keys=x.shape[-2], causal=causal, window=0, attention_mask=attention_mask)
    a = attended(q, k, v, r, seen=seen, width=q.shape[-1] if config["scaled"] else 1, cap=0.0)
    return put_out(a, p)


def cross_attention(x: Array, p: Tree, memory: Array, *, attention_mask: Array | None, config: Tree) -> Array:
    """Queries of the decoder attend keys and values of the memory, without a bias."""
    kv = mapped(memory, p, "kv")
    I = kv.shape[-1] // 2
    q = tap("cross.q", cut(mapped(x, p, "q"), config["heads"]))
    k = tap("cross.k", cut(kv[..., :I], config["heads"]))
    v = tap("cross.v", cut(kv[..., I:], config["heads"]))
    seen = visible(x, keys=memory.shape[-2], causal=False, window=0, attention_mask=attention_mask)
    with part("cross"):
        a = attended(q, k, v, None, seen=seen, width=q.shape[-1] if config["scaled"] else 1, cap=0.0)
    return put_out(a, p)


def fed(x: Array, p: Tree, *, config: Tree) -> Array:
    """Feed-forward: of experts where p has a router, with a gate where it has one."""
    if "Wr" in p:
        places = max(1, min(config["capacity"], x.shape[-2]))
        with part("experts"):
            (y, _), _ = switch_layer(x, p, activation=config["activation"], capacity=places, token_mask=None)
        return y
    if "Wg" in p:
        return gated_feed_forward(x, p, activation=config["activation"])
    return feed_forward(x, p, activation=config["activation"])


def stack_norm(x: Array, p: Tree, *, config: Tree) -> Array:
    """The last norm of a half."""
    return norm(x, p["norm"], eps=config["eps"])


def sequence_logits(h: Array, p: Tree, *, config: Tree) -> Array:
    """h W, or h / √C W where the output is scaled;   W = tokenᵀ if tied."""
    if config["scaled_output"]:
        h = h / sqrt(config["width"])
    y, _ = matmul(h, p["token"].T if config["tied"] else p["head"])
    return y
