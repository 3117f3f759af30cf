"""Laws of the classification of texts. (CLS)"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.models import bert
from refllm.objectives.classification import Classification, classification_loss
from refllm.ops.cross_entropy import cross_entropy
from refllm.parameters import Tree, map_leaves, named_leaves
from spec_tests.gradients import assert_gradients_agree, random_tree

CONFIG = bert.Config(
    vocabulary=5, context=4, layers=1, heads=2, width=4, hidden=5, eps=1e-5, dropout=0.4, outputs=("classes",), labels=3
)
P = random_tree(bert.shapes(CONFIG), seed=0)
B, T = 3, 4
RANDOM = numpy.random.default_rng(0)
BATCH = {
    "ids": RANDOM.integers(0, 5, (B, T)),
    "segments": numpy.zeros((B, T), int),
    "attention_mask": (numpy.arange(T) < numpy.array([4, 2, 3])[:, None])[:, None, None, :],
    "targets": numpy.array([2, 0, 1]),
}
OBJECTIVE = Classification(bert, CONFIG)


def loss(
    p: Tree, b: Tree, *, weights: Any = None, smoothing: float = 0.0, dropout_mask: Any = None
) -> tuple[Any, Callable[[Any], Tree]]:
    return classification_loss(
        p, **b, model=bert, weights=weights, smoothing=smoothing, config=CONFIG, dropout_mask=dropout_mask
    )


def log_probabilities(p: Tree) -> list[list[float]]:
    """By hand from the logits, a row a text of the batch."""
    h, _ = bert.encode(p, **{k: v for k, v in BATCH.items() if k != "targets"}, config=CONFIG, dropout_mask=None)
    logits, _ = bert.class_logits(h, p, dropout_mask=None, rate=0.0)
    return [[x - math.log(sum(math.exp(z) for z in row)) for x in row] for row in logits.tolist()]


@pytest.mark.one_in(8)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, numpy.array([0.5, 2.0, 1.0])])
@pytest.mark.parametrize("dropout", [False, True])
def test_every_parameters_gradient_agrees_with_differences(weights: Any, dropout: bool, smoothing: float) -> None:
    draw = numpy.random.default_rng(1)
    shapes = OBJECTIVE.dropout_shapes(BATCH)
    dropout_mask = map_leaves(lambda shape: draw.random(shape) < 0.6, shapes) if dropout else None
    assert_gradients_agree(lambda p: loss(p, BATCH, weights=weights, smoothing=smoothing, dropout_mask=dropout_mask), P)


@pytest.mark.parametrize("weights", [None, numpy.array([0.5, 2.0, 1.0])])
def test_a_smoothed_label_asks_for_a_share_of_every_label(weights: Any) -> None:
    """Szegedy et al. 2016 sec. 7, written out: E / labels for each, and 1 - E more for the label."""
    wanted = 0.0
    for row, label, w in zip(
        log_probabilities(P), BATCH["targets"], [1.0] * B if weights is None else weights, strict=True
    ):
        wanted -= w * sum((0.8 * (v == label) + 0.2 / 3) * x for v, x in enumerate(row))
    assert loss(P, BATCH, weights=weights, smoothing=0.2)[0] == pytest.approx(wanted, rel=1e-12)
    batch = BATCH if weights is None else {**BATCH, "weights": weights}
    objective = Classification(bert, CONFIG, 0.2)
    totals = objective.totals(batch)
    assert objective.loss(P, batch, totals=totals, dropout_mask=None)[0] == pytest.approx(wanted / totals, rel=1e-12)


@pytest.mark.parametrize("weights", [None, numpy.array([0.5, 2.0, 1.0])])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_smoothing_is_cross_entropy_to_the_bit(weights: Any, dtype: str) -> None:
    p = map_leaves(lambda leaf: leaf.astype(dtype), P)
    h, back_h = bert.encode(p, **{k: v for k, v in BATCH.items() if k != "targets"}, config=CONFIG, dropout_mask=None)
    logits, back_logits = bert.class_logits(h, p, dropout_mask=None, rate=0.0)
    reduction = "sum" if weights is None else "none"
    nll, back_nll = cross_entropy(logits, targets=BATCH["targets"], ignore=None, reduction=reduction)
    w = numpy.ones((), dtype) if weights is None else weights.astype(dtype)
    y, back = loss(p, BATCH, weights=weights)
    dy = numpy.asarray(0.7, dtype)
    dh, dhead = back_logits(back_nll(dy * w))
    assert y == (nll * w).sum()
    for (path, a), (_, b) in zip(
        named_leaves(back(dy)), named_leaves(bert.whole_gradient(p, back_h(dh), dhead)), strict=True
    ):
        assert a.tobytes() == b.tobytes(), path


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_a_smoothing_that_is_no_share_is_refused(smoothing: float) -> None:
    with pytest.raises(UserError, match="smoothing of the labels must be at least 0 and below 1, got"):
        Classification(bert, CONFIG, smoothing)


def test_a_weight_of_two_is_the_text_given_twice_and_of_zero_the_text_left_out() -> None:
    weights, rows = numpy.array([2.0, 0.0, 1.0]), [0, 0, 2]
    y, back = loss(P, BATCH, weights=weights)
    z, back_repeated = loss(P, map_leaves(lambda leaf: leaf[rows], BATCH))
    assert y == pytest.approx(z, rel=1e-13)
    for (path, a), (_, b) in zip(
        named_leaves(back(numpy.ones(()))), named_leaves(back_repeated(numpy.ones(()))), strict=True
    ):
        numpy.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13, err_msg=path)


def test_the_loss_of_a_text_is_minus_the_logarithm_of_its_labels_probability() -> None:
    """By hand from the logits: one prediction a text, as wide as the label set (erratum E13)."""
    rows = log_probabilities(P)
    assert {len(row) for row in rows} == {3}
    wanted = -sum(row[label] for row, label in zip(rows, BATCH["targets"].tolist(), strict=True))
    assert loss(P, BATCH)[0] == pytest.approx(wanted, rel=1e-12)


def test_the_draw_for_the_pooled_state_is_the_last_and_drops_all_but_the_bias() -> None:
    dropout_mask = map_leaves(lambda shape: numpy.ones(shape, bool), OBJECTIVE.dropout_shapes(BATCH))
    assert named_leaves(dropout_mask)[-1] == ("classes", dropout_mask["classes"])
    assert dropout_mask["classes"].shape == (B, 4)
    dropout_mask["classes"][...] = False
    y, _ = loss(P, BATCH, dropout_mask=dropout_mask)
    bias = P["classes"]["b"]
    wanted = sum(math.log(sum(math.exp(z) for z in bias)) - bias[label] for label in BATCH["targets"])
    assert y == pytest.approx(wanted, rel=1e-12)


def test_weights_keep_the_precision_of_the_model() -> None:
    p = map_leaves(lambda leaf: leaf.astype("float32"), P)
    y, back = loss(p, BATCH, weights=numpy.array([1.0, 2.0, 3.0]))
    assert y.dtype == "float32"
    assert {leaf.dtype.name for _, leaf in named_leaves(back(numpy.ones((), "float32")))} == {"float32"}


def test_the_mean_divides_by_the_weights() -> None:
    weighted = {**BATCH, "weights": numpy.array([0.5, 2.0, 1.0])}
    assert OBJECTIVE.totals(BATCH) == 3
    assert OBJECTIVE.totals(weighted) == 3.5
    y, _ = OBJECTIVE.loss(P, weighted, totals=3.5, dropout_mask=None)
    assert y == pytest.approx(loss(P, BATCH, weights=weighted["weights"])[0] / 3.5, rel=1e-14)


def test_texts_without_any_weight_are_refused() -> None:
    with pytest.raises(UserError, match="no weight at all; give at least one class a positive weight"):
        OBJECTIVE.totals({**BATCH, "weights": numpy.zeros(3)})


def test_a_label_that_does_not_exist_is_refused() -> None:
    with pytest.raises(IndexError, match=r"targets must be in \[0, 3\)"):
        loss(P, {**BATCH, "targets": numpy.array([0, 1, 3])})
