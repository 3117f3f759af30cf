"""Laws of BERT's pre-training. (MLM, NSP, SOP)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.models import bert
from refllm.objectives.masked import Masked, masked_loss
from refllm.objectives.pretraining import Pretraining, pretraining_loss
from refllm.objectives.sentence_pair import pair_loss
from refllm.parameters import Tree
from spec_tests.gradients import assert_gradients_agree
from spec_tests.objectives.encoder_batch import CONFIG, P, added, assert_equal_trees, batch, draws, fixed


def test_every_parameters_gradient_agrees_with_differences() -> None:
    b = batch()
    dropout_mask = draws(Pretraining(bert, CONFIG), b)

    def both(p: Tree) -> tuple[Any, Callable[[Any], Tree]]:
        y, back = pretraining_loss(p, **b, **fixed(dropout_mask))
        return numpy.stack(y), lambda dy: back(dy[0], dy[1])

    assert_gradients_agree(both, P)


def test_the_pretraining_loss_is_the_masked_and_the_pair_loss_from_one_pass() -> None:
    b = batch()
    dropout_mask = draws(Pretraining(bert, CONFIG), b)
    (words, pairs), back = pretraining_loss(P, **b, **fixed(dropout_mask))
    inputs = {name: b[name] for name in ("ids", "segments", "attention_mask")}
    y, back_words = masked_loss(P, **inputs, positions=b["positions"], targets=b["targets"], **fixed(dropout_mask))
    z, back_pairs = pair_loss(P, **inputs, targets=b["pair"], **fixed(dropout_mask))
    assert (words, pairs) == (y, z)
    first, second = numpy.array(0.3), numpy.array(0.8)
    one, other = back_words(first), back_pairs(second)
    assert_equal_trees(back(first, second), added(one, other))


def test_the_mean_divides_by_the_places_and_the_pairs_that_count() -> None:
    b = batch()
    b["pair"][0] = -1
    assert Masked(bert, CONFIG).totals(b) == 5
    assert Pretraining(bert, CONFIG).totals(b) == (5, 2)
    (words, pairs), _ = pretraining_loss(P, **b, **fixed())
    y, _ = Pretraining(bert, CONFIG).loss(P, b, totals=(5, 2), dropout_mask=None)
    assert y == pytest.approx(words / 5 + pairs / 2, rel=1e-14)
