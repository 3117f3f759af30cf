"""Changes that look like mistakes and are none: no case can tell them from the original, and here is why."""

from __future__ import annotations

import math
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.feed_forward import feed_forward
from refllm.blocks.self_attention import self_attention
from refllm.generation.generate import generate
from refllm.generation.sampling import choose
from refllm.ops.activation import gelu_tanh
from refllm.ops.attention import attention
from refllm.ops.cross_entropy import cross_entropy
from refllm.ops.layer_norm import layer_norm
from refllm.ops.linear import heads
from refllm.ops.softmax import log_softmax, softmax
from refllm.optim.schedule import warmup_cosine
from refllm.optim.update import _step
from refllm.parameters import Tree
from refllm.verify.mutants import attention as parts
from refllm.verify.mutants.autodiff import Node, differentiable, exp, sigmoid, top, where
from refllm.verify.mutants.bank import Equivalent, Function
from refllm.verify.mutants.optimiser import step
from refllm.verify.mutants.sampling import sampled
from refllm.verify.mutants.schedule import schedule
from refllm.verify.mutants.softmax import log_share, share


def _no_key_bias(x: Array, W: Array, b: Array, **how: Any) -> tuple[Any, Function]:
    key = slice(len(b) // 3, 2 * len(b) // 3)
    without = b.copy()
    without[key] = 0
    y, back = heads(x, W, without, **how)

    def no_gradient(*dy: Array) -> tuple[Array, Array, Array]:
        dx, dW, db = back(*dy)
        db[key] = 0
        return dx, dW, db

    return y, no_gradient


def _reordered(q: Array, k: Array, v: Array, *, causal: bool, attention_mask: Array | None) -> tuple[Array, Function]:
    """Keys and values, and their masks, from the last to the first."""
    seen = numpy.broadcast_to(parts.seen(Node(q), Node(k), causal, attention_mask), (*q.shape[:-1], k.shape[-2]))
    y, back = parts.variant()(q, k[..., ::-1, :], v[..., ::-1, :], causal=False, attention_mask=seen[..., ::-1])

    def turned(dy: Array) -> tuple[Array, Array, Array]:
        dq, dk, dv = back(dy)
        return dq, dk[..., ::-1, :], dv[..., ::-1, :]

    return y, turned


def _masked_again(
    q: Array, k: Array, v: Array, *, causal: bool, attention_mask: Array | None
) -> tuple[Array, Function]:
    def weights(s: Node) -> Node:
        P = parts.weights(s)
        return Node(P.value, (P, lambda d: numpy.where(P.value == 0, 0, d)))

    return parts.variant(weights=weights)(q, k, v, causal=causal, attention_mask=attention_mask)


def _heads_permuted(x: Array, p: Tree, *, heads: int, **how: Any) -> tuple[Array, Function]:
    """The heads in reverse, with the rows of Wo in reverse too."""
    C = x.shape[-1]
    D = C // heads
    order = numpy.arange(C).reshape(heads, D)[::-1].reshape(-1)
    columns = numpy.concatenate([order, C + order, 2 * C + order])
    q = {"Wqkv": p["Wqkv"][:, columns], "bqkv": p["bqkv"][columns], "Wo": p["Wo"][order], "bo": p["bo"]}
    y, back = self_attention(x, q, heads=heads, **how)

    def unpermuted(dy: Array) -> tuple[Array, Tree]:
        dx, d = back(dy)
        Wqkv, bqkv, Wo = (numpy.empty_like(d[name]) for name in ("Wqkv", "bqkv", "Wo"))
        Wqkv[:, columns], bqkv[columns], Wo[order] = d["Wqkv"], d["bqkv"], d["Wo"]
        return dx, {"Wqkv": Wqkv, "bqkv": bqkv, "Wo": Wo, "bo": d["bo"]}

    return y, unpermuted


def _hidden_reversed(x: Array, p: Tree, **how: Any) -> tuple[Array, Function]:
    y, back = feed_forward(x, _reversed(p), **how)

    def unreversed(dy: Array) -> tuple[Array, Tree]:
        dx, d = back(dy)
        return dx, _reversed(d)

    return y, unreversed


def _reversed(p: Tree) -> Tree:
    return {"W1": p["W1"][:, ::-1], "b1": p["b1"][::-1], "W2": p["W2"][::-1], "b2": p["b2"]}


def _shift_differentiated(x: Node) -> Node:
    """The maximum as a part of the graph, which an autodiff without a stop makes it."""
    at = x.value == top(x)
    highest = where(at, x, 0.0).sum() / numpy.maximum(at.sum(axis=-1, keepdims=True), 1)
    e = exp(x - highest)
    total = e.sum()
    return e / (total + (total.value == 0))


def _logits_centred(logits: Array, **how: Any) -> tuple[Array, Function]:
    return cross_entropy(logits - logits.max(axis=-1, keepdims=True), **how)


def _without_cache(p: Tree, *, cache: bool, **how: Any) -> Any:
    return generate(p, cache=not cache, **how)


def _unnormalised(p: Array, u: Array) -> Array:
    sums = numpy.cumsum(p, axis=-1)
    return (sums > u[:, None] * sums[:, -1:]).argmax(axis=-1)


def _centred_first(x: Array, g: Array, b: Array, *, eps: float) -> tuple[Array, Function]:
    return layer_norm(x - x.mean(axis=-1, keepdims=True), g, b, eps=eps)


# fmt: off
EQUIVALENT = [
    Equivalent("MHA/no-key-bias", heads, "self-attention without the bias of the keys", _no_key_bias,
               "The key bias adds q_t · b to every score of query t, and a softmax does not change when all its "
               "arguments shift by one number; so value and gradients stay, and the bias's own gradient is 0.",
               within="refllm.blocks.self_attention"),
    Equivalent("MHA/heads-permuted", self_attention, "self-attention with its heads in another order",
               _heads_permuted,
               "Heads do not touch each other; y = Σ_h a_h Wo_h is a sum over heads, in any order."),
    Equivalent("ATT/keys-permuted", attention, "attention over the keys in another order", _reordered,
               "Σ_s P_s v_s is a sum over the keys; with keys, values and masks permuted alike its terms stay."),
    Equivalent("ATT/scale-on-keys", attention, "attention with its scale on the keys, or its root on both",
               parts.variant(scores=lambda q, k: (q * q.shape[-1] ** -0.25) @ (k * q.shape[-1] ** -0.25).swap()),
               "(a q) · (b k) = a b (q · k), and a b = 1/√d_k. The same holds for a scale folded into Wq or Wk."),
    Equivalent("ATT/back-masked-again", attention, "attention whose pullback masks the gradient of the scores",
               _masked_again, "ds = P (dP - Σ P dP), and P = 0 at every forbidden key already."),
    Equivalent("SMX/other-shift", softmax, "softmax shifted by the maximum plus 1",
               differentiable(lambda x: share(x + -1.0)), "exp(x - c) / Σ exp(x - c) = exp(x) / Σ exp(x) for every c."),
    Equivalent("SMX/shift-differentiated", softmax, "softmax with a gradient through the maximum that it subtracts",
               differentiable(_shift_differentiated),
               "y does not depend on the shift, so the gradient by way of the shift is dy · ∂y/∂c = 0."),
    Equivalent("SMX/log-twice", log_softmax, "log-softmax applied twice",
               differentiable(lambda x: log_share(log_share(x))),
               "Σ exp(log p) = 1, so the second subtracts log 1 = 0."),
    Equivalent("CE/logits-shifted", cross_entropy, "cross-entropy of logits shifted by a number per row",
               _logits_centred,
               "log Σ exp(z + c) - (z_t + c) = log Σ exp z - z_t; the rows of dz sum to 0, so dc = 0 too."),
    Equivalent("LN/centred-first", layer_norm, "layer norm of rows that were centred before", _centred_first,
               "Mean and deviation of x - c with one c per row are mean(x) - c and the same; dx sums to 0 in a row."),
    Equivalent("FFN/hidden-permuted", feed_forward, "feed-forward with its hidden units in another order",
               _hidden_reversed, "y = Σ_j f(x · W1_j + b1_j) W2_j is a sum over the hidden units."),
    Equivalent("FFN/gelu-tanh-by-sigmoid", gelu_tanh, "GELU's tanh form as x sigmoid(2u)",
               differentiable(lambda x: x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + x * x * x * 0.044715))),
               "(1 + tanh u) / 2 = 1 / (1 + exp(-2u))."),
    Equivalent("ADAM/as-printed", _step, "Adam by its printed lines, the corrections not folded into the rate", step(),
               "lr m̂ / (√v̂ + eps) = (lr b / a) m' / (√v' + b eps) with a = 1 - beta1^t and b = √(1 - beta2^t)."),
    Equivalent("ADAMW/half-angle", warmup_cosine, "a schedule by the sine of half the angle",
               schedule(down=lambda t: 1 - math.sin(math.pi * t / 2) ** 2), "(1 + cos a) / 2 = 1 - sin²(a / 2)."),
    Equivalent("GEN/drawn-unnormalised", choose, "sampling against u times the sum, not divided by it",
               sampled(normalise=lambda p: p, draw=_unnormalised),
               "Σ p > u S if and only if Σ p / S > u, since S > 0."),
    Equivalent("GEN/other-cache", generate, "generation with a cache if none is asked for, without if one is",
               _without_cache, "Under the causal mask a key and a value depend on no later token, so those stored are "
               "those that would be computed again."),
]
