"""Mistakes of cross-entropy."""

from __future__ import annotations

from refllm.spec.cross_entropy import cross_entropy, soft_cross_entropy
from refllm.verify.mutants.bank import Edited, Edits, edit

COUNTED = "counted = everywhere(targets.shape) if ignore is None else targets != ignore"
INDEX, IN_RANGE = "index = where(counted, targets, 0)", "(targets >= 0) & (targets < logits.shape[-1])"
LOG_P, LOSSES = "log_p, _ = log_softmax(logits)", "losses = where(counted, -pick(log_p, index), 0)"
Y = "y, reduced_back = reduced(losses, reduction, int(counted.sum()))"
W = "w = where(counted, reduced_back(dy), 0)[..., None]"
BACK = "return where(counted[..., None], exp(log_p) * w - where(one_hot(index, logits.shape[-1]), w, 0), 0)"
SOFT_LOG_P, SOFT_LOSSES = (
    "log_p, log_softmax_back = log_softmax(logits)",
    "losses = -sum(targets * where(nothing, 0, log_p), keepdims=False)",
)
SOFT_Y, SOFT_BACK = (
    "y, reduced_back = reduced(losses, reduction, losses.size)",
    "return log_softmax_back(-w * targets), -w * log_p",
)


def counting(new: str) -> Edits:
    """Other places that count."""
    return edit(cross_entropy, COUNTED, f"counted = {new}", INDEX, f"index = where({IN_RANGE}, targets, 0)")


def log_p(new: str) -> Edits:
    return edit(cross_entropy, LOG_P, f"log_p = {new}")


def losses(new: str) -> Edits:
    return edit(cross_entropy, LOSSES, f"losses = where(counted, {new}, 0)")


def divided_by(new: str) -> Edits:
    return edit(cross_entropy, Y, f"y, reduced_back = reduced(losses, reduction, {new})")


def soft(old: str, new: str) -> Edits:
    return edit(soft_cross_entropy, old, new)


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Edited("CE/sum-for-mean", "cross-entropy summed where the mean is asked for", divided_by("1")),
    Edited("CE/mean-over-all", "cross-entropy averaged over all places, ignored ones too", divided_by("losses.size")),
    Edited("CE/mean-of-sentences", "cross-entropy averaged per sentence first, then over the sentences",
           edit(cross_entropy, Y, 'if reduction == "mean" and losses.ndim > 1:\n'
                "    losses = sum(losses, keepdims=False) / counted.sum(axis=-1).clip(1)\n"
                "    counted = everywhere(losses.shape)\n" + Y), G + "huggingface/transformers/issues/24725"),
    Edited("CE/mean-over-batch", "cross-entropy summed over the tokens and averaged over the sentences",
           divided_by("len(counted) if counted.ndim > 1 else 1")),
    Edited("CE/nan-if-nothing", "cross-entropy whose mean over no place is NaN",
           edit(cross_entropy, Y, f'{Y}\nif reduction == "mean":\n    y = total(losses) / counted.sum()')),
    Edited("CE/ignore-ignored", "cross-entropy that counts ignored places, as if their target were 0",
           counting("everywhere(targets.shape)")),
    Edited("CE/ignore-only-100", "cross-entropy that ignores -100 alone, whatever `ignore` says",
           counting("targets != -100")),
    Edited("CE/ignore-only-minus-one", "cross-entropy that ignores -1 alone, whatever `ignore` says",
           counting("targets != -1"), G + "chainer/chainer/issues/2715"),
    Edited("CE/ignored-from-the-end", "cross-entropy that reads an ignored target from the end of the classes",
           edit(cross_entropy, COUNTED, "counted = everywhere(targets.shape)",
                INDEX, "index = targets % logits.shape[-1]")),
    Edited("CE/zero-always-ignored", "cross-entropy that takes target 0 for padding and ignores it",
           counting("(targets != ignore) & (targets != 0)")),
    Edited("CE/back-ignored", "cross-entropy that ignores places in the value and not in the gradient",
           edit(cross_entropy, W, "w = reduced_back(dy)[..., None]", BACK,
                "told = one_hot(index, logits.shape[-1]) & counted[..., None]\n"
                "return exp(log_p) * w - where(told, w, 0)")),
    Edited("CE/softmax-twice", "cross-entropy of logits that went through a softmax already",
           log_p("log_softmax(softmax(logits)[0])[0]"), G + "Lightning-Universe/lightning-bolts/issues/654"),
    Edited("CE/log-of-softmax", "cross-entropy as log(softmax): a sure mistake costs infinity",
           log_p("log(softmax(logits)[0])")),
    Edited("CE/log-with-eps", "cross-entropy as log(p + 1e-9)", log_p("log(softmax(logits)[0] + 1e-9)")),
    Edited("CE/no-shift", "cross-entropy without the shift by the row maximum: exp overflows",
           log_p("logits - log(sum(exp(logits)))")),
    Edited("CE/base-two", "cross-entropy in bits, the logarithm to base 2", losses("-pick(log_p, index) / log(2)")),
    Edited("CE/positive", "cross-entropy with the sign turned", losses("pick(log_p, index)")),
    Edited("CE/all-classes", "cross-entropy that sums -log p over all classes (E2)",
           losses("-sum(log_p, keepdims=False)")),
    Edited("CE/probability", "cross-entropy without the logarithm: -p", losses("-pick(exp(log_p), index)")),
    Edited("CE/next-class", "cross-entropy with targets counted from 1",
           losses("-pick(log_p, (index - 1) % logits.shape[-1])")),
    Edited("CE/next-place", "cross-entropy against the target of the next place: shifted twice",
           edit(cross_entropy, INDEX, INDEX + "\nif index.ndim:\n"
                "    index = concatenate([index[..., 1:], index[..., :1]], axis=-1)"),
           G + "huggingface/transformers/pull/37830"),
    Edited("CE/smoothed", "cross-entropy with label smoothing of 0.1",
           losses("-(0.9 * pick(log_p, index) + 0.1 * mean(log_p)[..., 0])")),
    Edited("CE/back-sum-for-mean", "cross-entropy whose gradient is not divided by the number of places",
           edit(cross_entropy, W, "w = where(counted, dy, 0)[..., None]")),
    Edited("CE/back-cotangent-ignored", "cross-entropy whose gradient takes dy for 1",
           edit(cross_entropy, W, "w = where(counted, reduced_back(0 * dy + 1), 0)[..., None]")),
    Edited("CE/soft-mean-over-all", "soft cross-entropy averaged over all entries instead of rows",
           soft(SOFT_Y, "y, reduced_back = reduced(losses, reduction, logits.size)")),
    Edited("CE/soft-nan-at-zero", "soft cross-entropy whose term 0 log 0 is NaN",
           soft(SOFT_LOSSES, "losses = -sum(targets * log(softmax(logits)[0]), keepdims=False)")),
    Edited("CE/soft-all-classes", "soft cross-entropy that sums -log p wherever the target is (E2)",
           soft(SOFT_LOSSES, "losses = -sum(log_p, keepdims=False)")),
    Edited("CE/soft-sum-for-mean", "soft cross-entropy summed where the mean is asked for",
           soft(SOFT_Y, "y, reduced_back = reduced(losses, reduction, 1)")),
    Edited("CE/soft-divergence", "soft cross-entropy less the entropy of the targets",
           soft(SOFT_LOSSES, "surprise = where(targets == 0, 0, log(targets))\n"
                "losses = -sum(targets * (where(nothing, 0, log_p) - surprise), keepdims=False)")),
    Edited("CE/soft-targets-softmaxed", "soft cross-entropy with a softmax of the targets too",
           soft(SOFT_LOG_P, f"targets = softmax(targets)[0]\n{SOFT_LOG_P}")),
    Edited("CE/soft-back-targets-sum-to-one", "soft cross-entropy whose gradient is p - t, as if t summed to 1",
           soft(SOFT_BACK, "return w * (exp(log_p) - targets), -w * log_p")),
    Edited("CE/soft-back-targets-constant", "soft cross-entropy with no gradient for the targets",
           soft(SOFT_BACK, "return log_softmax_back(-w * targets), 0 * targets")),
]
