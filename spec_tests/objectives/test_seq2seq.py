"""Laws of the objectives from text to text, and of denoising."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.models import encoder_decoder
from refllm.objectives.denoising import Denoising, denoising_loss
from refllm.objectives.seq2seq import Seq2Seq, seq2seq_loss, shifted_right
from refllm.ops.cross_entropy import cross_entropy, smoothed_cross_entropy
from refllm.parameters import Tree, map_leaves, named_leaves
from spec_tests.gradients import random_tree

V, START = 7, 2
CONFIG = encoder_decoder.Config(
    vocabulary=V, context=8, encoder_layers=1, decoder_layers=2, heads=2, head_width=2, width=4, hidden=6,
    scaled_embedding=True, activation="gelu_erf",
)  # fmt: skip
P = random_tree(encoder_decoder.shapes(CONFIG), seed=0)
RANDOM = numpy.random.default_rng(1)
SOURCE, TARGETS = RANDOM.integers(0, V, (4, 5)), RANDOM.integers(0, V, (4, 6))
ALLOWED = numpy.arange(5) < numpy.array([5, 3, 1, 4])[:, None]
TARGETS[1, 4:] = TARGETS[3, 1:] = -1
BATCH = {"source": SOURCE, "attention_mask": ALLOWED, "targets": TARGETS}


def test_the_decoder_reads_the_start_token_and_all_targets_but_the_last() -> None:
    targets = numpy.array([[3, 4, 5], [6, -1, -1]])
    assert shifted_right(targets, start=2, ignore=-1).tolist() == [[2, 3, 4], [2, 6, 2]]
    assert targets.tolist() == [[3, 4, 5], [6, -1, -1]]
    assert shifted_right(targets[:, :1], start=0, ignore=-1).tolist() == [[0], [0]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_losss_gradient_is_the_logits_pulled_back(smoothing: float) -> None:
    inputs = shifted_right(TARGETS, start=START, ignore=-1)
    same: dict[str, Any] = {"source": SOURCE, "attention_mask": ALLOWED, "config": CONFIG, "dropout_mask": None}
    y, back = seq2seq_loss(
        P, model=encoder_decoder, inputs=inputs, targets=TARGETS, ignore=-1, smoothing=smoothing, **same
    )
    z, back_logits = encoder_decoder.forward(P, ids=inputs, **same)
    plain, back_plain = smoothed_cross_entropy(z, targets=TARGETS, ignore=-1, smoothing=smoothing, reduction="sum")
    numpy.testing.assert_allclose(y, plain, rtol=1e-13)
    dy = numpy.ones(())
    for (_, one), (_, other) in zip(named_leaves(back(dy)), named_leaves(back_logits(back_plain(dy))), strict=True):
        numpy.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_the_length_of_the_padding_changes_neither_loss_nor_gradient() -> None:
    longer = {
        "source": numpy.pad(SOURCE, ((0, 0), (0, 2)), constant_values=6),
        "attention_mask": numpy.pad(ALLOWED, ((0, 0), (0, 2))),
        "targets": numpy.pad(TARGETS, ((0, 0), (0, 2)), constant_values=-1),
    }
    assert_same(of(BATCH), of(longer))


def of(batch: Tree, *, rows: slice = slice(None), totals: int | None = None, drop: bool = False) -> tuple[Any, Tree]:
    objective = Seq2Seq(encoder_decoder, dataclasses.replace(CONFIG, dropout=0.4), start=START, smoothing=0.1)
    dropout_mask = None
    if drop:
        random: Any = numpy.random.default_rng(5)
        dropout_mask = map_leaves(lambda shape: random.random(shape)[rows] < 0.6, objective.dropout_shapes(batch))
    part = map_leaves(lambda a: a[rows], batch)
    y, back = objective.loss(P, part, totals=totals or objective.totals(batch), dropout_mask=dropout_mask)
    return y, back(numpy.ones(()))


def assert_same(one: tuple[Any, Tree], other: tuple[Any, Tree]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-12)
    for (_, a), (_, b) in zip(named_leaves(one[1]), named_leaves(other[1]), strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("drop", [False, True], ids=["whole", "dropout"])
def test_shards_of_a_batch_add_up_to_the_batch(drop: bool) -> None:
    totals = int((TARGETS != -1).sum())
    parts = [of(BATCH, rows=rows, totals=totals, drop=drop) for rows in (slice(0, 1), slice(1, 4))]
    summed = map_leaves(lambda a, b: a + b, parts[0][1], parts[1][1])
    assert_same(of(BATCH, drop=drop), (parts[0][0] + parts[1][0], summed))


def test_a_batch_without_a_target_is_refused() -> None:
    with pytest.raises(UserError, match="the batch has no target"):
        Seq2Seq(encoder_decoder, CONFIG, start=0).totals({**BATCH, "targets": numpy.full((2, 3), -1)})


def test_denoising_counts_the_masked_places_alone_and_reads_the_whole_corrupted_text() -> None:
    """Erratum E16: Σ m_t log P(x_t | corrupted text, x_1 ... x_{t-1}) with m_t an indicator."""
    ids, counted = TARGETS % V, RANDOM.random((4, 6)) < 0.5
    y, _ = denoising_loss(
        P, model=encoder_decoder, source=SOURCE, attention_mask=ALLOWED, ids=ids, counted=counted, start=START,
        config=CONFIG, dropout_mask=None,
    )  # fmt: skip
    before = numpy.concatenate([numpy.full((4, 1), START), ids[:, :-1]], axis=1)  # every word, masked or not
    z, _ = encoder_decoder.forward(
        P, source=SOURCE, attention_mask=ALLOWED, ids=before, config=CONFIG, dropout_mask=None
    )
    nll, _ = cross_entropy(z, targets=ids, ignore=None, reduction="none")
    assert y == pytest.approx((nll * counted).sum(), rel=1e-12)


def test_denoising_that_counts_every_place_is_sequence_to_sequence() -> None:
    counted = TARGETS != -1
    batch = {"source": SOURCE, "attention_mask": ALLOWED, "ids": numpy.where(counted, TARGETS, 0), "counted": counted}
    objective = Denoising(encoder_decoder, CONFIG, start=START)
    plain = Seq2Seq(encoder_decoder, CONFIG, start=START)
    y, back = objective.loss(P, batch, totals=objective.totals(batch), dropout_mask=None)
    z, back_plain = plain.loss(P, BATCH, totals=plain.totals(BATCH), dropout_mask=None)
    assert objective.dropout_shapes(batch) == plain.dropout_shapes(BATCH)
    assert_same((y, back(numpy.ones(()))), (z, back_plain(numpy.ones(()))))


def test_a_batch_without_a_masked_place_is_refused() -> None:
    with pytest.raises(UserError, match="the batch has no masked position"):
        Denoising(encoder_decoder, CONFIG, start=0).totals({"counted": numpy.zeros((2, 3), bool)})
