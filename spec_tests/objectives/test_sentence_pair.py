"""Laws of the sentence pair. (NSP, SOP)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.models import bert
from refllm.objectives.sentence_pair import pair_loss
from refllm.parameters import Tree
from spec_tests.gradients import assert_gradients_agree
from spec_tests.objectives.encoder_batch import CONFIG, B, P, assert_equal_trees, batch, fixed


def loss(p: Tree, b: Tree, pair: Any) -> tuple[Any, Callable[[Any], Tree]]:
    inputs = {name: b[name] for name in ("ids", "segments", "attention_mask")}
    return pair_loss(p, **inputs, targets=pair, **fixed())


def test_every_parameters_gradient_agrees_with_differences() -> None:
    b = batch()
    assert_gradients_agree(lambda p: loss(p, b, b["pair"]), P)


@pytest.mark.parametrize("seed", [2, 3])
def test_a_pair_of_classes_by_hand(seed: int) -> None:
    """log(1 + e^(z' - z)) of the two logits of each pair."""
    b = batch(seed)
    h, _ = bert.encode(
        P, ids=b["ids"], segments=b["segments"], attention_mask=b["attention_mask"], config=CONFIG, dropout_mask=None
    )  # fmt: skip
    z = bert.pair_logits(h, P)[0]
    rows = numpy.arange(B)
    wanted = numpy.log1p(numpy.exp(z[rows, 1 - b["pair"]] - z[rows, b["pair"]])).sum()
    assert loss(P, b, b["pair"])[0] == pytest.approx(wanted, rel=1e-12)


def test_a_pair_without_a_label_adds_nothing() -> None:
    b = batch()
    labels = numpy.array([1, -1, 0])
    y, back = loss(P, b, labels)
    z, back_others = loss(P, {name: leaf[[0, 2]] for name, leaf in b.items()}, labels[[0, 2]])
    assert y == pytest.approx(z, rel=1e-13)
    assert_equal_trees(back(numpy.ones(())), back_others(numpy.ones(())))
