"""Laws of the contrastive objective. (CTR)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.models import bert
from refllm.objectives.contrastive import Contrastive, contrastive_loss, sentence_vectors
from refllm.ops.contrastive import info_nce
from refllm.parameters import Tree, map_leaves, named_leaves
from spec_tests.gradients import assert_gradients_agree, random_tree

CONFIG = bert.Config(vocabulary=7, context=6, layers=1, heads=2, width=4, hidden=5, eps=1e-5, dropout=0.4)
P = random_tree(bert.shapes(CONFIG), seed=0)
N, T = 3, 5
RANDOM = numpy.random.default_rng(0)
BATCH: dict[str, Any] = {
    "ids": RANDOM.integers(0, 7, (N, 2, T)),
    "token_mask": numpy.arange(T) < numpy.array([[5, 3], [2, 5], [4, 1]])[..., None],
}


def loss(p: Tree, *, dropout_mask: Any = None, **batch: Any) -> tuple[Any, Callable[[Any], Tree]]:
    given_ = {**BATCH, **batch}
    return contrastive_loss(p, model=bert, temperature=0.5, config=CONFIG, dropout_mask=dropout_mask, **given_)


def vectors(which: int) -> Any:
    return sentence_vectors(
        P,
        model=bert,
        ids=BATCH["ids"][:, which],
        token_mask=BATCH["token_mask"][:, which],
        config=CONFIG,
        dropout_mask=None,
    )[0]


def test_every_parameters_gradient_agrees_with_differences() -> None:
    """Of those that the encoder has; the heads that are not used get zeros."""
    objective = Contrastive(bert, CONFIG, temperature=0.5)
    dropout_mask = map_leaves(lambda shape: RANDOM.random(shape) < 0.7, objective.dropout_shapes(BATCH))
    assert_gradients_agree(lambda p: objective.loss(p, BATCH, totals=N, dropout_mask=dropout_mask), P)


def test_the_loss_is_info_nce_of_the_vectors_of_adjacent_sentences() -> None:
    """Each sentence encoded by itself."""
    mean, _ = info_nce(vectors(0), vectors(1), temperature=0.5)
    assert loss(P)[0] == pytest.approx(N * mean, rel=1e-12)


@given(pad=st.integers(0, 6))
def test_what_stands_in_the_padding_does_not_matter(pad: int) -> None:
    ids = numpy.where(BATCH["token_mask"], BATCH["ids"], pad)
    assert loss(P, ids=ids)[0] == pytest.approx(loss(P)[0], rel=1e-12)


def test_the_order_of_the_pairs_does_not_matter() -> None:
    order = [2, 0, 1]
    (y, back), (z, back_ordered) = loss(P), loss(P, **{name: x[order] for name, x in BATCH.items()})
    assert z == pytest.approx(y, rel=1e-12)
    for (_, one), (_, other) in zip(
        named_leaves(back(numpy.ones(()))), named_leaves(back_ordered(numpy.ones(()))), strict=True
    ):
        numpy.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12)


def test_draws_go_to_the_sentences_that_they_were_drawn_for() -> None:
    """The batch in another order with its draws in that order is the same batch."""
    objective, order = Contrastive(bert, CONFIG, temperature=0.5), [1, 2, 0]
    random, shapes = numpy.random.default_rng(1), objective.dropout_shapes(BATCH)
    dropout_mask = map_leaves(lambda shape: random.random(shape) < 0.6, shapes)
    y, _ = objective.loss(P, BATCH, totals=N, dropout_mask=dropout_mask)
    z, _ = objective.loss(
        P, {name: x[order] for name, x in BATCH.items()}, totals=N,
        dropout_mask=map_leaves(lambda draw: draw[order], dropout_mask),
    )  # fmt: skip
    assert z == pytest.approx(y, rel=1e-12)
    assert y != pytest.approx(objective.loss(P, BATCH, totals=N, dropout_mask=None)[0], rel=1e-3)


def test_learning_brings_adjacent_sentences_together() -> None:
    """Four pairs that have only their first tokens in common: at first little more than a guess, then known."""
    config = bert.Config(vocabulary=7, context=3, layers=1, heads=2, width=8, hidden=8, eps=1e-5)
    ids = numpy.random.default_rng(1).integers(0, 7, (4, 2, 3))
    ids[:, :, 0] = numpy.arange(4)[:, None]
    batch = {"ids": ids, "token_mask": numpy.ones(ids.shape, bool)}
    objective = Contrastive(bert, config, temperature=0.2)
    p = random_tree(bert.shapes(config), seed=0)
    first, _ = objective.loss(p, batch, totals=4, dropout_mask=None)
    assert first > 1
    for _ in range(80):
        y, back = objective.loss(p, batch, totals=4, dropout_mask=None)
        p = map_leaves(lambda leaf, d: leaf - 0.05 * d, p, back(numpy.ones(())))
    assert y < 0.1


@pytest.mark.parametrize("pairs", [0, 1])
def test_too_few_pairs_are_refused(pairs: int) -> None:
    with pytest.raises(UserError, match=f"contrastive: a batch needs at least two pairs of sentences, got {pairs}"):
        loss(P, **{name: x[:pairs] for name, x in BATCH.items()})
