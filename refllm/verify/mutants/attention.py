"""Mistakes of attention: the scale, the masks, the softmax, and the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.ops.attention import attention
from refllm.verify.mutants.autodiff import Node, constant, differentiable, exp, top, where
from refllm.verify.mutants.bank import Function, Mutant


def scores(q: Node, k: Node) -> Node:
    return q @ k.swap() * q.shape[-1] ** -0.5


def seen(q: Node, k: Node, causal: bool, attention_mask: Array | None) -> Array:
    """Which key a query may attend, (..., T, S)."""
    both = _up_to(q, k, k.shape[-2] - q.shape[-2]) if causal else numpy.ones((q.shape[-2], k.shape[-2]), bool)
    return both if attention_mask is None else both & attention_mask


def masked(s: Node, seen: Array) -> Node:
    return where(seen, s, -math.inf)


def weights(s: Node) -> Node:
    """softmax over the keys; zeros for a row of only -inf."""
    e = exp(s - top(s))
    total = e.sum()
    return e / (total + (total.value == 0))


def variant(
    *,
    scores: Callable[[Node, Node], Node] = scores,
    seen: Callable[..., Array] = seen,
    mask: Callable[[Node, Array], Node] = masked,
    weights: Callable[..., Node] = weights,
    apply: Callable[[Node, Node, Array, Node], Node] = lambda P, v, m, q: P @ v,
) -> Function:
    """Attention with a part of it exchanged, and the true gradient of what then is computed."""

    @differentiable
    def changed(q: Node, k: Node, v: Node, *, causal: bool, attention_mask: Array | None) -> Node:
        s = scores(q, k)
        m = numpy.broadcast_to(seen(q, k, causal, attention_mask), s.shape)
        return apply(weights(mask(s, m)), v, m, q)

    return changed


_right = variant()


def gradients(change: Callable[..., tuple[Array, Array, Array]]) -> Function:
    """Attention with the right value and changed gradients: change((dq, dk, dv), q, k)."""

    def changed(q: Array, k: Array, v: Array, **keywords: Any) -> tuple[Array, Function]:
        y, back = _right(q, k, v, **keywords)
        return y, lambda dy: change(back(dy), q, k)

    return changed


def _up_to(q: Node, k: Node, shift: int) -> Array:
    return numpy.arange(k.shape[-2]) <= numpy.arange(q.shape[-2])[:, None] + shift


def _causal(mask: Callable[[Node, Node], Array]) -> Callable[..., Array]:
    """Another causal mask; `allowed` stays."""

    def changed(q: Node, k: Node, causal: bool, attention_mask: Array | None) -> Array:
        return (mask(q, k) if causal else True) & seen(q, k, False, attention_mask)

    return changed


def _past(q: Node, k: Node) -> int:
    return k.shape[-2] - q.shape[-2]


def _heads(q: Node) -> int:
    return q.shape[-3] if len(q.shape) > 2 else 1


def _transposed_mask(q: Node, k: Node, causal: bool, attention_mask: Array | None) -> Array:
    square = q.shape[-2] == k.shape[-2] and attention_mask is not None
    return seen(
        q, k, causal, attention_mask.swapaxes(-1, -2) if square and attention_mask is not None else attention_mask
    )


def _either(q: Node, k: Node, causal: bool, attention_mask: Array | None) -> Array:
    both = causal and attention_mask is not None
    return seen(q, k, True, None) | seen(q, k, False, attention_mask) if both else seen(q, k, causal, attention_mask)


@differentiable
def _scaled_by_value_width(q: Node, k: Node, v: Node, *, causal: bool, attention_mask: Array | None) -> Node:
    s = q @ k.swap() * v.shape[-1] ** -0.5
    return weights(masked(s, seen(q, k, causal, attention_mask))) @ v


def _unshifted(s: Node) -> Node:
    e = exp(s)
    return e / e.sum()


def _nan_if_nothing(s: Node) -> Node:
    e = exp(s - s.value.max(axis=-1, keepdims=True))
    return e / e.sum()


def _constant_total(s: Node) -> Node:
    e = exp(s - top(s))
    return e / constant(e.sum() + (e.value.sum(axis=-1, keepdims=True) == 0))


def _sum_over_queries(s: Node) -> Node:
    """P whose pullback subtracts the sum of P dP over the queries instead of the keys."""
    P = weights(s).value
    return Node(P, (s, lambda d: P * (d - (P * d).sum(axis=-2, keepdims=True))))


def _transposed_weights(P: Node, v: Node, m: Array, q: Node) -> Node:
    return (P.swap() if P.shape[-1] == P.shape[-2] else P) @ v


def _values_gradient_untransposed(P: Node, v: Node, m: Array, q: Node) -> Node:
    """P v whose pullback gives dv = P dy, where P is square, instead of Pᵀ dy."""
    p = P.value if P.shape[-1] == P.shape[-2] else P.value.swapaxes(-1, -2)
    return Node(P.value @ v.value, (P, lambda d: d @ v.value.swapaxes(-1, -2)), (v, lambda d: p @ d))


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Mutant("ATT/no-scale", attention, "attention without the 1/√d_k scale",
           variant(scores=lambda q, k: q @ k.swap()), G + "mlc-ai/mlc-llm/pull/3426"),
    Mutant("ATT/scale-d-k", attention, "attention scaled by 1/d_k instead of 1/√d_k, or by 1/√d_k twice",
           variant(scores=lambda q, k: scores(q, k) * q.shape[-1] ** -0.5)),
    Mutant("ATT/scale-model-width", attention, "attention scaled by the width of all heads instead of one head's (E3)",
           variant(scores=lambda q, k: scores(q, k) * _heads(q) ** -0.5), G + "karpathy/ng-video-lecture/pull/6"),
    Mutant("ATT/scale-inverse", attention, "attention with the scores multiplied by √d_k instead of divided",
           variant(scores=lambda q, k: scores(q, k) * q.shape[-1]), G + "esceptico/perceiver-io/issues/9"),
    Mutant("ATT/scale-fourth-root", attention, "attention scaled by d_k^(-1/4), as if the keys were scaled as well",
           variant(scores=lambda q, k: q @ k.swap() * q.shape[-1] ** -0.25)),
    Mutant("ATT/scale-keys", attention, "attention scaled by the root of the number of keys instead of d_k",
           variant(scores=lambda q, k: q @ k.swap() * k.shape[-2] ** -0.5)),
    Mutant("ATT/scale-value-width", attention, "attention scaled by the root of d_v, the width of the values",
           _scaled_by_value_width),
    Mutant("ATT/scale-after-softmax", attention, "attention with the scale applied after the softmax",
           variant(scores=lambda q, k: q @ k.swap(), apply=lambda P, v, m, q: P @ v * q.shape[-1] ** -0.5),
           G + "FrancescoSaverioZuppichini/ViT/issues/2"),
    Mutant("ATT/negative-scores", attention, "attention with the sign of the scores turned",
           variant(scores=lambda q, k: -scores(q, k))),
    Mutant("ATT/softmax-over-queries", attention, "attention with the softmax over the queries instead of the keys",
           variant(weights=lambda s: weights(s.swap()).swap()),
           G + "labmlai/annotated_deep_learning_paper_implementations/issues/146"),
    Mutant("ATT/not-normalised", attention, "attention with weights that are not divided by their sum",
           variant(weights=lambda s: exp(s - top(s)))),
    Mutant("ATT/one-more-in-the-sum", attention, "attention with 1 added to the sum of the exponentials",
           variant(weights=lambda s: exp(s) / (exp(s).sum() + 1))),
    Mutant("ATT/one-more-after-the-shift", attention, "attention with 1 added to the sum of the shifted exponentials",
           variant(weights=lambda s: exp(s - top(s)) / (exp(s - top(s)).sum() + 1.0)),
           G + "kyegomez/AttentionIsOFFByOne/issues/5"),
    Mutant("ATT/no-shift", attention, "attention without the shift by the row maximum: exp overflows",
           variant(weights=_unshifted), dtype="float32"),
    Mutant("ATT/base-two", attention, "attention with powers of 2 instead of e",
           variant(weights=lambda s: weights(s * math.log(2)))),
    Mutant("ATT/weights-transposed", attention, "attention with the weights transposed (where they are square)",
           variant(apply=_transposed_weights)),
    Mutant("ATT-MASK/strict", attention, "attention with the causal mask one short: no query sees its own token",
           variant(seen=_causal(lambda q, k: _up_to(q, k, _past(q, k) - 1)))),
    Mutant("ATT-MASK/one-too-many", attention, "attention with the causal mask one too far: the next token is seen",
           variant(seen=_causal(lambda q, k: _up_to(q, k, _past(q, k) + 1))), G + "flashinfer-ai/flashinfer/pull/348"),
    Mutant("ATT-MASK/top-left", attention, "attention with the causal mask aligned top-left: cached keys are not seen",
           variant(seen=_causal(lambda q, k: _up_to(q, k, 0))), G + "onnx/onnx/pull/8068"),
    Mutant("ATT-MASK/only-the-future", attention, "attention with the causal mask turned over: a query sees the future",
           variant(seen=_causal(lambda q, k: ~_up_to(q, k, _past(q, k) - 1)))),
    Mutant("ATT-MASK/causal-ignored", attention, "attention without the causal mask",
           variant(seen=lambda q, k, causal, attention_mask: seen(q, k, False, attention_mask))),
    Mutant("ATT-MASK/causal-needs-allowed", attention, "attention that is causal only if `allowed` is given too",
           variant(seen=lambda q, k, causal, mask: seen(q, k, causal and mask is not None, mask)),
           G + "facebookresearch/xformers/issues/103"),
    Mutant("ATT-MASK/allowed-ignored", attention, "attention that ignores `allowed`: padding is attended",
           variant(seen=lambda q, k, causal, attention_mask: seen(q, k, causal, None))),
    Mutant("ATT-MASK/causal-replaces-allowed", attention, "attention that ignores `allowed` where it is causal",
           variant(seen=lambda q, k, causal, attention_mask: seen(q, k, causal, None if causal else attention_mask))),
    Mutant("ATT-MASK/either", attention, "attention with the masks joined by or: a key needs the leave of one",
           variant(seen=_either)),
    Mutant("ATT-MASK/allowed-inverted", attention, "attention with `allowed` inverted: true taken for forbidden",
           variant(seen=lambda q, k, causal, mask: seen(q, k, causal, None if mask is None else ~mask))),
    Mutant("ATT-MASK/allowed-transposed", attention, "attention with `allowed` over the queries instead of the keys",
           variant(seen=_transposed_mask), G + "lsdefine/attention-is-all-you-need-keras/issues/16"),
    Mutant("ATT-MASK/after-softmax", attention, "attention with the mask applied after the softmax",
           variant(mask=lambda s, m: s, apply=lambda P, v, m, q: (P * m) @ v),
           G + "huggingface/pytorch-image-models/pull/2236"),
    Mutant("ATT-MASK/zero-scores", attention, "attention with forbidden scores set to 0 instead of -infinity",
           variant(mask=lambda s, m: s * m)),
    Mutant("ATT-MASK/added", attention, "attention with the boolean mask added to the scores, as 0 and 1",
           variant(mask=lambda s, m: s if m.all() else s + m.astype(s.value.dtype)),
           G + "huggingface/transformers/issues/41443"),
    Mutant("ATT-MASK/minus-ten", attention, "attention with forbidden scores lowered by 10 instead of infinity",
           variant(mask=lambda s, m: s + numpy.where(m, 0.0, -10.0))),
    Mutant("ATT-MASK/minus-ten-thousand", attention, "attention with -10000 added to forbidden scores: a row with no "
           "key left attends all", variant(mask=lambda s, m: s + numpy.where(m, 0.0, -1e4))),
    Mutant("ATT-MASK/uniform-if-nothing", attention, "attention whose row with no key left is the mean of all values",
           variant(mask=lambda s, m: where(m, s, -1e30)), G + "microsoft/onnxruntime/pull/28958"),
    Mutant("ATT-MASK/nan-if-nothing", attention, "attention whose row with no key left is NaN",
           variant(weights=_nan_if_nothing), G + "robertknight/rten/pull/1321"),
    Mutant("ATT/back-normaliser-constant", attention, "attention with the gradient ds = P dP, without - P Σ P dP",
           variant(weights=_constant_total)),
    Mutant("ATT/back-sum-over-queries", attention, "attention with Σ P dP of the gradient taken over the queries",
           variant(weights=_sum_over_queries)),
    Mutant("ATT/back-query-unscaled", attention, "attention with dq not multiplied by 1/√d_k",
           gradients(lambda d, q, k: (d[0] * q.shape[-1] ** 0.5, d[1], d[2]))),
    Mutant("ATT/back-key-unscaled", attention, "attention with dk not multiplied by 1/√d_k",
           gradients(lambda d, q, k: (d[0], d[1] * q.shape[-1] ** 0.5, d[2]))),
    Mutant("ATT/back-scaled-twice", attention, "attention with dq and dk multiplied by 1/√d_k twice",
           gradients(lambda d, q, k: (d[0] * q.shape[-1] ** -0.5, d[1] * q.shape[-1] ** -0.5, d[2]))),
    Mutant("ATT/back-query-key-swapped", attention, "attention with dq and dk swapped (where they have one shape)",
           gradients(lambda d, q, k: (d[1], d[0], d[2]) if d[0].shape == d[1].shape else d)),
    Mutant("ATT/back-keys-detached", attention, "attention with no gradient to the keys",
           gradients(lambda d, q, k: (d[0], 0 * d[1], d[2]))),
    Mutant("ATT/back-scores-detached", attention, "attention with no gradient through the weights: only dv",
           gradients(lambda d, q, k: (0 * d[0], 0 * d[1], d[2]))),
    Mutant("ATT/back-values-untransposed", attention, "attention with dv = P dy instead of Pᵀ dy (where P is square)",
           variant(apply=_values_gradient_untransposed)),
]
