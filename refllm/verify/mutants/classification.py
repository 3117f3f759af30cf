"""Mistakes of a classifier's loss: of its mean, of the weights of texts, and of label smoothing."""

from __future__ import annotations

from refllm.spec.bert import classifier_loss
from refllm.verify.mutants.bank import Edited, edit

W = "w = like(everywhere(losses.shape) if weights is None else weights, losses)"
LOSSES = (
    "losses, losses_back = smoothed_cross_entropy(\n"
    'logits, targets=targets, ignore=None, smoothing=smoothing, reduction="none"\n)'
)
MEAN = "return total(w * losses) / total(w), classifier_loss_back"

# fmt: off
MUTANTS = [
    Edited("CLS/sum", "the loss of a classifier summed over the texts",
           edit(classifier_loss, MEAN, "return total(w * losses), classifier_loss_back")),
    Edited("CLS/weights-ignored", "the loss of a classifier without the weights of the texts",
           edit(classifier_loss, W, "w = like(everywhere(losses.shape), losses)")),
    Edited("CLS/weights-over-texts", "the weighted loss of a classifier divided by the number of texts, not by the sum "
           "of their weights",
           edit(classifier_loss, MEAN, "return total(w * losses) / len(targets), classifier_loss_back")),
    Edited("CLS/smoothing-ignored", "the loss of a classifier without label smoothing",
           edit(classifier_loss, LOSSES, LOSSES.replace("smoothing=smoothing", "smoothing=0"))),
    Edited("CLS/smoothing-to-others", "the loss of a classifier whose smoothed share goes to the other labels alone, "
           "eps/(labels - 1) each",
           edit(classifier_loss, LOSSES, "log_p, _ = log_softmax(logits)\ntold = pick(log_p, targets)\n"
                "others = (sum(log_p, keepdims=False) - told) / max(1, log_p.shape[-1] - 1)\n"
                "losses = -((1 - smoothing) * told + smoothing * others)")),
    Edited("CLS/smoothing-unweighted", "the loss of a classifier whose smoothed share is not weighted",
           edit(classifier_loss, MEAN, "every = -mean(log_softmax(logits)[0])[..., 0]\n"
                "return total(w * losses + (1 - w) * smoothing * every) / total(w), classifier_loss_back")),
]
