"""Mistakes of a classifier's loss: of its mean, of the weights of texts, and of label smoothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.objectives.classification import class_nll
from refllm.parameters import Tree
from refllm.verify.families import bert as family
from refllm.verify.mutants.autodiff import Node, differentiable
from refllm.verify.mutants.bank import Function, Mutant
from refllm.verify.mutants.bert import scaled
from refllm.verify.mutants.loss import pick
from refllm.verify.mutants.softmax import log_share

OfText = Callable[[Node, Node, float, Array], Node]
_classifier = family.classifier


def _right(told: Node, every: Node, eps: float, w: Array) -> Node:
    return w * ((1 - eps) * told + eps * every.mean(keepdims=False))


def _to_the_others(told: Node, every: Node, eps: float, w: Array) -> Node:
    others = every.sum(keepdims=False) - told
    return w * ((1 - eps) * told + eps / max(1, every.shape[-1] - 1) * others)


def nll(of_text: OfText = _right) -> Function:
    """The loss of the head as -Σ over texts of of_text(log p of the label, log p of every label, smoothing, weight)."""

    def changed(
        h: Array, p: Tree, *, model: Any, targets: Array, weights: Array | None, smoothing: float, dropout_mask: Any,
        config: Any,
    ) -> tuple[Array, Function]:  # fmt: skip
        logits, back_logits = model.class_logits(h, p, dropout_mask=dropout_mask, rate=config.dropout)
        w = numpy.ones(len(targets), logits.dtype) if weights is None else weights.astype(logits.dtype)

        @differentiable
        def loss(logits: Node) -> Node:
            log_p = log_share(logits)
            return -of_text(pick(log_p, targets), log_p, smoothing, w).sum(keepdims=False)

        y, back = loss(logits)
        return y, lambda dy: back_logits(back(dy))

    return changed


def _unweighted(p: Tree, *, weights: Array | None = None, **how: Any) -> Any:
    return _classifier(p, weights=None, **how)


def _over_texts(p: Tree, *, weights: Array | None = None, **how: Any) -> Any:
    factor = 1.0 if weights is None else float(weights.mean())
    return scaled(_classifier, lambda targets: factor)(p, weights=weights, **how)


# fmt: off
MUTANTS = [
    Mutant("CLS/sum", family.classifier, "the loss of a classifier summed over the texts",
           scaled(_classifier, lambda targets: float(len(targets)))),
    Mutant("CLS/weights-ignored", family.classifier, "the loss of a classifier without the weights of the texts",
           _unweighted),
    Mutant("CLS/weights-over-texts", family.classifier, "the weighted loss of a classifier divided by the number of "
           "texts, not by the sum of their weights", _over_texts),
    Mutant("CLS/smoothing-ignored", class_nll, "the loss of a classifier without label smoothing",
           nll(lambda told, every, eps, w: w * told)),
    Mutant("CLS/smoothing-to-others", class_nll, "the loss of a classifier whose smoothed share goes to the other "
           "labels alone, eps/(labels - 1) each", nll(_to_the_others)),
    Mutant("CLS/smoothing-unweighted", class_nll, "the loss of a classifier whose smoothed share is not weighted",
           nll(lambda told, every, eps, w: w * ((1 - eps) * told) + eps * every.mean(keepdims=False))),
]
