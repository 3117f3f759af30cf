"""BERT, its heads and its objectives on a device."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.models import bert
from refllm.objectives.classification import Classification
from refllm.objectives.masked import Masked
from refllm.objectives.pretraining import Pretraining
from refllm.objectives.span import Span, best_spans
from refllm.parameters import map_leaves
from spec_tests.devices import Device, assert_agrees, every_device
from spec_tests.gradients import random_tree

RANDOM = numpy.random.default_rng(11)
B, T, M, V = 3, 6, 2, 11
LENGTHS = numpy.array([6, 4, 1])
CONFIG = bert.Config(
    vocabulary=V, context=8, layers=2, heads=2, width=8, hidden=12, dropout=0.25, outputs=bert.OUTPUTS, labels=3
)
INSIDE = numpy.arange(T) < LENGTHS[:, None]
TEXTS = {
    "ids": RANDOM.integers(0, V, (B, T)),
    "segments": RANDOM.integers(0, 2, (B, T)),
    "attention_mask": INSIDE[:, None, None, :],
}
MASKED = {"positions": RANDOM.integers(0, LENGTHS[:, None], (B, M)), "targets": RANDOM.integers(-1, V, (B, M))}
BATCHES: dict[str, tuple[Any, Any]] = {
    "masked": (Masked(bert, CONFIG), {**TEXTS, **MASKED}),
    "pretraining": (Pretraining(bert, CONFIG), {**TEXTS, **MASKED, "pair": numpy.array([1, 0, 1])}),
    "classification": (Classification(bert, CONFIG), {**TEXTS, "targets": numpy.array([2, 0, 1])}),
    "weighted classification": (
        Classification(bert, CONFIG),
        {**TEXTS, "targets": numpy.array([2, 0, 1]), "weights": numpy.array([1.0, 0.5, 2.0])},
    ),
    "span": (Span(bert, CONFIG), {**TEXTS, "answer_mask": INSIDE, "targets": numpy.array([[1, 5], [2, 2], [-1, -1]])}),
}


def _parameters(dtype: str) -> Any:
    return map_leaves(lambda leaf: leaf.astype(dtype), random_tree(bert.shapes(CONFIG), seed=2))


@pytest.mark.one_in(4)
@every_device
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("name", BATCHES)
def test_an_objective_computes_what_it_does_on_the_host(device: Device, name: str, dropout: bool, dtype: str) -> None:
    objective, batch = BATCHES[name]
    shapes = objective.dropout_shapes(batch)
    dropout_mask = map_leaves(lambda shape: RANDOM.random(shape) < 0.75, shapes) if dropout else None
    totals = objective.totals(batch)  # counted on the host

    def compute(p: Any, batch: Any, dropout_mask: Any, dy: Any) -> Any:
        y, back = objective.loss(p, batch, totals=totals, dropout_mask=dropout_mask)
        return y, back(dy)

    assert_agrees(device, compute, _parameters(dtype), batch, dropout_mask, numpy.asarray(0.5, dtype))


@every_device
def test_every_head_computes_what_it_does_on_the_host(device: Device) -> None:
    def compute(p: Any, h: Any, dropout_mask: Any) -> Any:
        heads = (
            bert.masked_logits(h, p, config=CONFIG),
            bert.pair_logits(h, p),
            bert.class_logits(h, p, dropout_mask=dropout_mask, rate=0.25),
            bert.span_logits(h, p),
        )
        return [(y, back(2 * y)) for y, back in heads]

    h = RANDOM.standard_normal((B, T, CONFIG.width)).astype("float32")
    assert_agrees(device, compute, _parameters("float32"), h, RANDOM.random((B, CONFIG.width)) < 0.75)


@every_device
@pytest.mark.parametrize("answer_mask", [None, INSIDE], ids=["all places", "some places"])
def test_the_best_span_is_found_on_the_device(device: Device, answer_mask: Any) -> None:
    logits = RANDOM.standard_normal((B, T, 2)).astype("float32")
    assert_agrees(device, lambda z, where: best_spans(z, answer_mask=where, longest=3), logits, answer_mask)
