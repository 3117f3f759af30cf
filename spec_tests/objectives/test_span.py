"""Laws of extractive question answering. (TASKS)"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.models import bert
from refllm.objectives.span import Span, best_spans, span_loss, span_nll
from refllm.parameters import Tree
from spec_tests.gradients import assert_gradients_agree, random_tree

CONFIG = bert.Config(
    vocabulary=5, context=6, layers=1, heads=2, width=4, hidden=5, eps=1e-5, outputs=("span",)
)  # fmt: skip
P = random_tree(bert.shapes(CONFIG), seed=0)
B, T = 3, 6
RANDOM = numpy.random.default_rng(0)
LENGTHS = numpy.array([6, 4, 5])
INPUTS = {
    "ids": RANDOM.integers(0, 5, (B, T)),
    "segments": RANDOM.integers(0, 2, (B, T)),
    "attention_mask": (numpy.arange(T) < LENGTHS[:, None])[:, None, None, :],
}
POSSIBLE: Any = (numpy.arange(T) >= 2) & (numpy.arange(T) < LENGTHS[:, None])
TARGETS = numpy.array([[2, 5], [3, 3], [-1, -1]])


def loss(p: Tree, *, answer_mask: Any, targets: Any = TARGETS) -> tuple[Any, Callable[[Any], Tree]]:
    return span_loss(
        p, **INPUTS, model=bert, answer_mask=answer_mask, targets=targets, ignore=-1, config=CONFIG, dropout_mask=None
    )  # fmt: skip


@pytest.mark.parametrize("answer_mask", [None, POSSIBLE], ids=["all places", "some places"])
def test_every_parameters_gradient_agrees_with_differences(answer_mask: Any) -> None:
    assert_gradients_agree(lambda p: loss(p, answer_mask=answer_mask), P)


def test_the_loss_is_that_of_two_softmaxes_over_the_possible_places() -> None:
    h, _ = bert.encode(P, **INPUTS, config=CONFIG, dropout_mask=None)
    logits, _ = bert.span_logits(h, P)
    wanted = 0.0
    for row, answer_mask, targets in zip(logits[:2], POSSIBLE, TARGETS, strict=False):
        for end, target in enumerate(targets):
            total = sum(math.exp(row[t, end]) for t in range(T) if answer_mask[t])
            wanted += math.log(total) - row[target, end]
    assert loss(P, answer_mask=POSSIBLE)[0] == pytest.approx(wanted, rel=1e-12)


def test_places_that_are_not_possible_and_texts_that_do_not_count_get_no_gradient() -> None:
    h = numpy.random.default_rng(1).standard_normal((B, T, 4))
    _, back = span_nll(h, P, model=bert, answer_mask=POSSIBLE, targets=TARGETS, ignore=-1)
    dh, _ = back(numpy.ones(()))
    counts = POSSIBLE & numpy.all(TARGETS >= 0, axis=1, keepdims=True)
    assert (dh.any(axis=-1) == counts).all()


def test_a_text_with_no_possible_place_that_does_not_count_gives_zero_not_nan() -> None:
    nowhere = POSSIBLE.copy()
    nowhere[2] = False
    (y, back), (z, _) = loss(P, answer_mask=nowhere), loss(P, answer_mask=POSSIBLE)
    assert y == z
    assert numpy.isfinite(back(numpy.ones(()))["span"]["W"]).all()


def test_an_answer_where_none_may_lie_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="an answer starts or ends where none may lie; move it") as caught:
        loss(P, answer_mask=POSSIBLE, targets=numpy.array([[1, 5], [3, 3], [-1, -1]]))
    assert len(str(caught.value).splitlines()) == 1


def test_the_mean_divides_by_the_starts_and_ends_that_count() -> None:
    objective, b = Span(bert, CONFIG), {**INPUTS, "answer_mask": POSSIBLE, "targets": TARGETS}
    assert objective.totals(b) == 4
    y, _ = objective.loss(P, b, totals=4, dropout_mask=None)
    assert y == pytest.approx(loss(P, answer_mask=POSSIBLE)[0] / 4, rel=1e-14)
    with pytest.raises(UserError, match="the batch has no answer"):
        objective.totals({**b, "targets": numpy.full((B, 2), -1)})


@given(seed=st.integers(0, 999), longest=st.integers(1, 7), masked=st.booleans())
def test_the_best_span_is_the_best_of_all_that_may_be(seed: int, longest: int, masked: bool) -> None:
    random = numpy.random.default_rng(seed)
    logits = random.standard_normal((B, T, 2))
    answer_mask = random.random((B, T)) < 0.6
    answer_mask[:, random.integers(T)] = True
    for row, found in enumerate(
        best_spans(logits, answer_mask=answer_mask if masked else None, longest=longest).tolist()
    ):
        spans = [
            (logits[row, s, 0] + logits[row, e, 1], [s, e])
            for s in range(T)
            for e in range(s, min(T, s + longest))
            if not masked or (answer_mask[row, s] and answer_mask[row, e])
        ]
        assert found == max(spans)[1]
