"""Mistakes of label smoothing, of the contrastive loss and its vectors, and of the L2 penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.ops.contrastive import info_nce, mean_pool
from refllm.ops.cross_entropy import smoothed_cross_entropy
from refllm.ops.penalty import l2_penalty
from refllm.verify.mutants.autodiff import Node, constant, differentiable, exp, log, sqrt, where
from refllm.verify.mutants.bank import Function, Mutant
from refllm.verify.mutants.linear import gradients
from refllm.verify.mutants.loss import pick
from refllm.verify.mutants.softmax import average, log_share

Smooth = Callable[[Node, Node, float, int], Node]
Reduce = Callable[[Node, Array], Node]


def _shared(own: Node, all_: Node, eps: float, V: int) -> Node:
    """(1 - eps) log p_target + eps / V Σ log p"""
    return (1 - eps) * own + eps / V * all_


def _over_counted(loss: Node, counted: Array) -> Node:
    return loss.sum(None, keepdims=False) / max(1, int(counted.sum()))


def smoothed(*, smooth: Smooth = _shared, mean: Reduce = _over_counted, ignored_too: bool = False) -> Function:
    """Label smoothing as -smooth(log p of the target, Σ log p, eps, V)."""

    @differentiable
    def changed(logits: Node, *, targets: Array, ignore: int | None, smoothing: float, reduction: str) -> Node:
        counted = numpy.ones(targets.shape, bool) if ignore is None else targets != ignore
        log_p = log_share(logits)
        own = where(counted, pick(log_p, numpy.where(counted, targets, 0)), 0.0)
        all_ = log_p.sum(keepdims=False)
        if not ignored_too:
            all_ = where(counted, all_, 0.0)
        loss = -smooth(own, all_, smoothing, logits.shape[-1])
        if reduction == "none":
            return loss
        return mean(loss, counted) if reduction == "mean" else loss.sum(None, keepdims=False)

    return changed


def _without_uniform(logits: Array, **how: Any) -> tuple[Array, Function]:
    """The right value; the gradient is that of the target's part alone."""
    y, _ = smoothed_cross_entropy(logits, **how)
    return y, smoothed(smooth=lambda own, all_, eps, V: (1 - eps) * own)(logits, **how)[1]


# --- contrastive ------------------------------------------------------------------------------------------------------

Pair = tuple[Node, Node]


def _normalised(x: Node) -> Node:
    square = (x * x).sum()
    return x / sqrt(square + (square.value == 0))  # a row of zeros stays one


def _scaled(x: Node) -> Node:
    return x / constant(sqrt((x * x).sum()))


def _cosines(a: Node, b: Node) -> Node:
    return _normalised(a) @ _normalised(b).swap()


def _own(s: Node) -> Node:
    """The entries on the diagonal."""
    return pick(s, numpy.arange(s.shape[-1]))


def _first(s: Node) -> Node:
    return average(-_own(log_share(s)))


def contrast(
    *,
    similarity: Callable[[Node, Node], Node] = _cosines,
    heat: Callable[[Node, float], Node] = lambda s, t: s / t,
    loss: Callable[[Node], Node] = _first,
) -> Function:
    """InfoNCE with a part of it exchanged, and the true gradient of what then is computed."""

    @differentiable
    def changed(a: Node, b: Node, *, temperature: float) -> Node:
        return loss(heat(similarity(a, b), temperature))

    return changed


def _positive_excluded(s: Node) -> Node:
    """log Σ over the negatives alone, less the positive."""
    if s.shape[-1] == 1:
        return average(0.0 * s)
    off = where(numpy.eye(s.shape[-1], dtype=bool), 0.0, exp(s)).sum(keepdims=False)
    return average(log(off) - _own(s))


def _both_ways(s: Node) -> Node:
    return (_first(s) + _first(s.swap())) * 0.5


def _next_positive(s: Node) -> Node:
    n = s.shape[-1]
    return average(-pick(log_share(s), (numpy.arange(n) + 1) % n))


def _negative_distances(a: Node, b: Node) -> Node:
    squares = (a * a).sum() + (b * b).sum().swap()
    return 2.0 * (a @ b.swap()) - squares


def pooled(f: Callable[[Node, Array], Node]) -> Function:
    """A text's vector as f(h, counted (..., T, 1))."""

    @differentiable
    def changed(h: Node, *, token_mask: Array | None) -> Node:
        counted = numpy.ones(h.shape[:-1]) if token_mask is None else token_mask
        return f(h, counted[..., None].astype(h.value.dtype))

    return changed


# fmt: off
MUTANTS = [
    Mutant("CE/smoothed-others", smoothed_cross_entropy, "label smoothing by eps/(V - 1) to the other classes alone",
           smoothed(smooth=lambda own, all_, eps, V: (1 - eps) * own + eps / max(1, V - 1) * (all_ - own))),
    Mutant("CE/smoothed-too-much", smoothed_cross_entropy, "label smoothing with eps/(V - 1) for every class",
           smoothed(smooth=lambda own, all_, eps, V: (1 - eps) * own + eps / max(1, V - 1) * all_)),
    Mutant("CE/smoothed-not-shared", smoothed_cross_entropy, "label smoothing with eps, not eps/V, for every class",
           smoothed(smooth=lambda own, all_, eps, V: (1 - eps) * own + eps * all_)),
    Mutant("CE/smoothed-target-whole", smoothed_cross_entropy, "label smoothing that leaves the target its whole "
           "weight", smoothed(smooth=lambda own, all_, eps, V: own + eps / V * all_)),
    Mutant("CE/smoothed-swapped", smoothed_cross_entropy, "label smoothing with eps and 1 - eps exchanged",
           smoothed(smooth=lambda own, all_, eps, V: eps * own + (1 - eps) / V * all_)),
    Mutant("CE/smoothed-none", smoothed_cross_entropy, "label smoothing that does not smooth",
           smoothed(smooth=lambda own, all_, eps, V: own + 0.0 * all_)),
    Mutant("CE/smoothed-entropy", smoothed_cross_entropy, "label smoothing with the sign of its uniform part turned",
           smoothed(smooth=lambda own, all_, eps, V: (1 - eps) * own - eps / V * all_)),
    Mutant("CE/smoothed-ignored-too", smoothed_cross_entropy, "label smoothing whose uniform part counts ignored "
           "places", smoothed(ignored_too=True), "https://github.com/pytorch/pytorch/issues/73205"),
    Mutant("CE/smoothed-mean-over-all", smoothed_cross_entropy, "label smoothing averaged over all places, ignored "
           "ones too", smoothed(mean=lambda loss, counted: average(loss))),
    Mutant("CE/smoothed-sum-for-mean", smoothed_cross_entropy, "label smoothing summed where the mean is asked for",
           smoothed(mean=lambda loss, counted: loss.sum(None, keepdims=False))),
    Mutant("CE/back-smoothed-not-uniform", smoothed_cross_entropy, "label smoothing whose gradient leaves out the "
           "uniform part", _without_uniform),
    Mutant("CTR/shift-along-columns", info_nce, "InfoNCE shifted by the maximum of every column, not of the row",
           contrast(loss=lambda s: average(-_own(log_share(s - s.value.max(axis=0))))),
           "https://github.com/AdaptiveMotorControlLab/CEBRA/issues/48"),
    Mutant("CTR/no-temperature", info_nce, "InfoNCE without the temperature", contrast(heat=lambda s, t: s)),
    Mutant("CTR/temperature-multiplied", info_nce, "InfoNCE with the similarity multiplied by the temperature",
           contrast(heat=lambda s, t: s * t)),
    Mutant("CTR/temperature-root", info_nce, "InfoNCE divided by the root of the temperature",
           contrast(heat=lambda s, t: s * t**-0.5)),
    Mutant("CTR/not-normalised", info_nce, "InfoNCE of products, not of cosines",
           contrast(similarity=lambda a, b: a @ b.swap())),
    Mutant("CTR/one-normalised", info_nce, "InfoNCE with the rows of a normalised and those of b not",
           contrast(similarity=lambda a, b: _normalised(a) @ b.swap())),
    Mutant("CTR/squared-lengths", info_nce, "InfoNCE divided by the squares of the lengths",
           contrast(similarity=lambda a, b: a / (a * a).sum() @ (b / (b * b).sum()).swap())),
    Mutant("CTR/distances", info_nce, "InfoNCE of negative squared distances",
           contrast(similarity=_negative_distances)),
    Mutant("CTR/positive-excluded", info_nce, "InfoNCE whose denominator leaves out the positive",
           contrast(loss=_positive_excluded)),
    Mutant("CTR/other-way", info_nce, "InfoNCE with the rows of a as the negatives: the softmax over the wrong axis",
           contrast(loss=lambda s: _first(s.swap()))),
    Mutant("CTR/both-ways", info_nce, "InfoNCE averaged over both directions", contrast(loss=_both_ways)),
    Mutant("CTR/next-row", info_nce, "InfoNCE whose positive is the next row", contrast(loss=_next_positive)),
    Mutant("CTR/positive-alone", info_nce, "InfoNCE without its negatives: the similarity alone",
           contrast(loss=lambda s: average(-_own(s)))),
    Mutant("CTR/back-lengths-constant", info_nce, "InfoNCE whose gradient takes the lengths for constants",
           contrast(similarity=lambda a, b: _scaled(a) @ _scaled(b).swap())),
    Mutant("CTR/back-one-side", info_nce, "InfoNCE with no gradient for b",
           contrast(similarity=lambda a, b: _cosines(a, constant(b)))),
    Mutant("L2/not-halved", l2_penalty, "the L2 penalty without the factor 1/2",
           differentiable(lambda w, *, strength: (w * w).sum(None, keepdims=False) * strength)),
    Mutant("L2/mean", l2_penalty, "the L2 penalty with the mean of the squares instead of the sum",
           differentiable(lambda w, *, strength: average(w * w) * (strength / 2))),
    Mutant("L2/root", l2_penalty, "the L2 penalty as the norm instead of its square",
           differentiable(lambda w, *, strength: sqrt((w * w).sum(None, keepdims=False)) * strength)),
    Mutant("L2/absolute", l2_penalty, "the L1 penalty: absolute values instead of squares",
           differentiable(lambda w, *, strength: where(w.value > 0, w, -w).sum(None, keepdims=False) * strength)),
    Mutant("L2/strength-squared", l2_penalty, "the L2 penalty with its strength squared",
           differentiable(lambda w, *, strength: (w * w).sum(None, keepdims=False) * (strength**2 / 2))),
    Mutant("L2/back-doubled", l2_penalty, "the L2 penalty with the gradient 2 strength w",
           gradients(l2_penalty, lambda d, a, dy: 2 * d)),
    Mutant("L2/back-cotangent-ignored", l2_penalty, "the L2 penalty whose gradient takes dy for 1",
           gradients(l2_penalty, lambda d, a, dy: d / dy[0])),
    Mutant("CTR/pool-all", mean_pool, "a text's vector as the mean over all tokens, padding too",
           pooled(lambda h, c: h.mean(-2, keepdims=False))),
    Mutant("CTR/pool-padding-in-divisor", mean_pool, "a text's vector as the sum of its tokens, divided by the padded "
           "length", pooled(lambda h, c: (h * c).mean(-2, keepdims=False))),
    Mutant("CTR/pool-sum", mean_pool, "a text's vector as the sum over its tokens",
           pooled(lambda h, c: (h * c).sum(-2, keepdims=False))),
    Mutant("CTR/pool-first", mean_pool, "a text's vector as that of its first token",
           pooled(lambda h, c: h[..., 0, :])),
    Mutant("CTR/pool-nan-if-nothing", mean_pool, "a text's vector that is NaN without a valid token",
           pooled(lambda h, c: (h * c).sum(-2, keepdims=False) / c.sum(axis=-2))),
    Mutant("CTR/back-pool-sum", mean_pool, "a text's vector whose gradient is not divided by the number of tokens",
           pooled(lambda h, c: Node(((h.value * c).sum(axis=-2)) / numpy.maximum(c.sum(axis=-2), 1),
                                    (h, lambda d: d[..., None, :] * c)))),
]
