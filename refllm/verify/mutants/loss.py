"""Mistakes of cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.ops.cross_entropy import cross_entropy, soft_cross_entropy
from refllm.ops.softmax import softmax
from refllm.verify.mutants.autodiff import Node, constant, differentiable, exp, log, where
from refllm.verify.mutants.bank import Function, Mutant
from refllm.verify.mutants.softmax import LN2, average, log_share, share

Places = Callable[[Node, Array, Array], Node]
Reduce = Callable[[Node, Array], Node]


def _picked(logits: Node, index: Array, counted: Array) -> Node:
    """-log p of the targets."""
    return pick(-log_share(logits), index)


def pick(x: Node, index: Array) -> Node:
    return where(numpy.arange(x.shape[-1]) == index[..., None], x, 0.0).sum(keepdims=False)


def _mean(places: Node, counted: Array) -> Node:
    return places.sum(None, keepdims=False) / max(1, int(counted.sum()))


def nll(
    *, places: Places = _picked, mean: Reduce = _mean, ignored: Callable[[Array, int | None], Array] | None = None
) -> Function:
    """Cross-entropy with a part of it exchanged, and the true gradient of what then is computed."""

    @differentiable
    def changed(logits: Node, *, targets: Array, ignore: int | None, reduction: str) -> Node:
        counted = numpy.ones(targets.shape, bool) if ignore is None else targets != ignore
        index = numpy.where((targets >= 0) & (targets < logits.shape[-1]), targets, 0)
        used = counted if ignored is None else ignored(targets, ignore)
        loss = where(used, places(logits, index, used), 0.0)
        if reduction == "none":
            return loss
        return mean(loss, used) if reduction == "mean" else loss.sum(None, keepdims=False)

    return changed


@differentiable
def _from_the_end(logits: Node, *, targets: Array, ignore: int | None, reduction: str) -> Node:
    places = pick(-log_share(logits), targets % logits.shape[-1])
    if reduction == "none":
        return places
    return _mean(places, numpy.ones(targets.shape, bool)) if reduction == "mean" else places.sum(None, keepdims=False)


def _of_sentences(loss: Node, counted: Array) -> Node:
    """The mean over the sentences of each one's mean."""
    if loss.value.ndim < 2:
        return _mean(loss, counted)
    own = loss.sum(keepdims=False) * (1 / numpy.maximum(counted.sum(axis=-1), 1))
    return own.mean(None, keepdims=False)


def _over_sentences(loss: Node, counted: Array) -> Node:
    return loss.sum(None, keepdims=False) / (len(counted) if counted.ndim > 1 else 1)


def _ignored_in_value_alone(logits: Array, *, targets: Array, ignore: int | None, reduction: str) -> Any:
    """The gradient of an ignored place is p instead of 0."""
    y, back = cross_entropy(logits, targets=targets, ignore=ignore, reduction=reduction)
    ignored = numpy.zeros(targets.shape, bool) if ignore is None else targets == ignore
    forgotten = softmax(logits)[0] * ignored[..., None]
    count = max(1, _count(targets=targets, ignore=ignore)) if reduction == "mean" else 1
    return y, lambda dy: back(dy) + forgotten * (dy / count)[..., None]


def _count(*, targets: Array, ignore: int | None, **_: Any) -> int:
    return targets.size if ignore is None else int((targets != ignore).sum())


def _gradient_of_sum(logits: Array, **how: Any) -> tuple[Array, Function]:
    y, back = cross_entropy(logits, **how)
    factor = max(1, _count(**how)) if how["reduction"] == "mean" else 1
    return y, lambda dy: back(dy) * factor


def _cotangent_ignored(logits: Array, **how: Any) -> tuple[Array, Function]:
    y, back = cross_entropy(logits, **how)
    return y, lambda dy: back(numpy.ones_like(dy))


def soft(*, places: Callable[[Node, Node], Node], mean: Callable[[Node], Node]) -> Function:
    """Soft cross-entropy with other places, or with another mean."""

    @differentiable
    def changed(logits: Node, targets: Node, *, reduction: str) -> Node:
        loss = places(logits, targets)
        if reduction == "none":
            return loss
        return mean(loss) if reduction == "mean" else loss.sum(None, keepdims=False)

    return changed


def _soft(logits: Node, targets: Node) -> Node:
    """-Σ t log p, where a term with t = 0 vanishes even if p does too."""
    log_p, t = log_share(logits), targets.value
    value = -(t * numpy.where(t == 0, 0, log_p.value)).sum(axis=-1)
    return Node(value, (log_p, lambda d: -d[..., None] * t), (targets, lambda d: -d[..., None] * log_p.value))


def _divergence(logits: Node, targets: Node) -> Node:
    entropy = targets * where(targets.value == 0, 0.0, log(targets))
    return _soft(logits, targets) + entropy.sum(keepdims=False)


@differentiable
def _averaged_over_entries(logits: Node, targets: Node, *, reduction: str) -> Node:
    loss = _soft(logits, targets)
    if reduction == "none":
        return loss
    return loss.sum(None, keepdims=False) / (logits.value.size if reduction == "mean" else 1)


def _assuming_one(logits: Node, targets: Node) -> Node:
    """dlogits = p - t for every row: right if t sums to 1."""
    t, log_p = targets.value, log_share(logits).value
    value = -(t * numpy.where(t == 0, 0, log_p)).sum(axis=-1)
    to_logits = lambda d: d[..., None] * (numpy.exp(log_p) - t)
    return Node(value, (logits, to_logits), (targets, lambda d: -d[..., None] * log_p))


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Mutant("CE/sum-for-mean", cross_entropy, "cross-entropy summed where the mean is asked for",
           nll(mean=lambda loss, counted: loss.sum(None, keepdims=False))),
    Mutant("CE/mean-over-all", cross_entropy, "cross-entropy averaged over all places, ignored ones too",
           nll(mean=lambda loss, counted: average(loss))),
    Mutant("CE/mean-of-sentences", cross_entropy, "cross-entropy averaged per sentence first, then over the sentences",
           nll(mean=_of_sentences), G + "huggingface/transformers/issues/24725"),
    Mutant("CE/mean-over-batch", cross_entropy, "cross-entropy summed over the tokens and averaged over the sentences",
           nll(mean=_over_sentences)),
    Mutant("CE/nan-if-nothing", cross_entropy, "cross-entropy whose mean over no place is NaN",
           nll(mean=lambda loss, counted: loss.sum(None, keepdims=False) / int(counted.sum()))),
    Mutant("CE/ignore-ignored", cross_entropy, "cross-entropy that counts ignored places, as if their target were 0",
           nll(ignored=lambda targets, ignore: numpy.ones(targets.shape, bool))),
    Mutant("CE/ignore-only-100", cross_entropy, "cross-entropy that ignores -100 alone, whatever `ignore` says",
           nll(ignored=lambda targets, ignore: targets != -100)),
    Mutant("CE/ignore-only-minus-one", cross_entropy, "cross-entropy that ignores -1 alone, whatever `ignore` says",
           nll(ignored=lambda targets, ignore: targets != -1), G + "chainer/chainer/issues/2715"),
    Mutant("CE/ignored-from-the-end", cross_entropy, "cross-entropy that reads an ignored target from the end of the "
           "classes", _from_the_end),
    Mutant("CE/zero-always-ignored", cross_entropy, "cross-entropy that takes target 0 for padding and ignores it",
           nll(ignored=lambda targets, ignore: (targets != ignore) & (targets != 0))),
    Mutant("CE/back-ignored", cross_entropy, "cross-entropy that ignores places in the value and not in the gradient",
           _ignored_in_value_alone),
    Mutant("CE/softmax-twice", cross_entropy, "cross-entropy of logits that went through a softmax already",
           nll(places=lambda z, i, c: pick(-log_share(share(z)), i)),
           G + "Lightning-Universe/lightning-bolts/issues/654"),
    Mutant("CE/log-of-softmax", cross_entropy, "cross-entropy as log(softmax): a sure mistake costs infinity",
           nll(places=lambda z, i, c: pick(-log(share(z)), i))),
    Mutant("CE/log-with-eps", cross_entropy, "cross-entropy as log(p + 1e-9)",
           nll(places=lambda z, i, c: pick(-log(share(z) + 1e-9), i))),
    Mutant("CE/no-shift", cross_entropy, "cross-entropy without the shift by the row maximum: exp overflows",
           nll(places=lambda z, i, c: pick(log(exp(z).sum()) - z, i))),
    Mutant("CE/base-two", cross_entropy, "cross-entropy in bits, the logarithm to base 2",
           nll(places=lambda z, i, c: pick(log_share(z) / -LN2, i))),
    Mutant("CE/positive", cross_entropy, "cross-entropy with the sign turned",
           nll(places=lambda z, i, c: pick(log_share(z), i))),
    Mutant("CE/all-classes", cross_entropy, "cross-entropy that sums -log p over all classes (E2)",
           nll(places=lambda z, i, c: -log_share(z).sum(keepdims=False))),
    Mutant("CE/probability", cross_entropy, "cross-entropy without the logarithm: -p",
           nll(places=lambda z, i, c: -pick(share(z), i))),
    Mutant("CE/next-class", cross_entropy, "cross-entropy with targets counted from 1",
           nll(places=lambda z, i, c: pick(-log_share(z), (i - 1) % z.shape[-1]))),
    Mutant("CE/next-place", cross_entropy, "cross-entropy against the target of the next place: shifted twice",
           nll(places=lambda z, i, c: pick(-log_share(z), numpy.roll(i, -1, axis=-1) if i.ndim else i)),
           G + "huggingface/transformers/pull/37830"),
    Mutant("CE/smoothed", cross_entropy, "cross-entropy with label smoothing of 0.1",
           nll(places=lambda z, i, c: 0.9 * pick(-log_share(z), i) - 0.1 * log_share(z).mean(keepdims=False))),
    Mutant("CE/back-sum-for-mean", cross_entropy, "cross-entropy whose gradient is not divided by the number of places",
           _gradient_of_sum),
    Mutant("CE/back-cotangent-ignored", cross_entropy, "cross-entropy whose gradient takes dy for 1",
           _cotangent_ignored),
    Mutant("CE/soft-mean-over-all", soft_cross_entropy, "soft cross-entropy averaged over all entries instead of rows",
           _averaged_over_entries),
    Mutant("CE/soft-nan-at-zero", soft_cross_entropy, "soft cross-entropy whose term 0 log 0 is NaN",
           soft(places=lambda z, t: -(t * log(share(z))).sum(keepdims=False), mean=average)),
    Mutant("CE/soft-all-classes", soft_cross_entropy, "soft cross-entropy that sums -log p wherever the target is (E2)",
           soft(places=lambda z, t: -log_share(z).sum(keepdims=False), mean=average)),
    Mutant("CE/soft-sum-for-mean", soft_cross_entropy, "soft cross-entropy summed where the mean is asked for",
           soft(places=_soft, mean=lambda loss: loss.sum(None, keepdims=False))),
    Mutant("CE/soft-divergence", soft_cross_entropy, "soft cross-entropy less the entropy of the targets",
           soft(places=_divergence, mean=average)),
    Mutant("CE/soft-targets-softmaxed", soft_cross_entropy, "soft cross-entropy with a softmax of the targets too",
           soft(places=lambda z, t: _soft(z, share(t)), mean=average)),
    Mutant("CE/soft-back-targets-sum-to-one", soft_cross_entropy, "soft cross-entropy whose gradient is p - t, as if t "
           "summed to 1", soft(places=_assuming_one, mean=average)),
    Mutant("CE/soft-back-targets-constant", soft_cross_entropy, "soft cross-entropy with no gradient for the targets",
           soft(places=lambda z, t: _soft(z, constant(t)), mean=average)),
]
