"""Laws of the masked language model. (MLM)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.blocks.lm_head import lm_loss
from refllm.errors import UserError
from refllm.models import bert
from refllm.objectives.masked import Masked, masked_loss, masked_nll
from refllm.objectives.pretraining import Pretraining
from refllm.ops.cross_entropy import cross_entropy
from refllm.parameters import Tree, map_leaves
from spec_tests.objectives.encoder_batch import CONFIG, B, M, P, T, added, assert_equal_trees, batch, draws, fixed


def loss(b: Tree, dropout_mask: Any = None) -> tuple[Any, Callable[[Any], Tree]]:
    return masked_loss(P, **{name: leaf for name, leaf in b.items() if name != "pair"}, **fixed(dropout_mask))


def test_the_loss_is_the_cross_entropy_of_all_logits_with_the_other_places_ignored() -> None:
    b = batch()
    y, back = loss(b)
    h, back_h = bert.encode(
        P, ids=b["ids"], segments=b["segments"], attention_mask=b["attention_mask"], config=CONFIG, dropout_mask=None
    )  # fmt: skip
    logits, back_logits = bert.masked_logits(h, P, config=CONFIG)
    words = numpy.full((B, T), -1)
    for row in range(B):
        for slot in range(M):
            if b["targets"][row, slot] >= 0:
                words[row, b["positions"][row, slot]] = b["targets"][row, slot]
    plain, back_plain = cross_entropy(logits, targets=words, ignore=-1, reduction="sum")
    assert y == pytest.approx(plain, rel=1e-13)
    dh, dhead = back_logits(back_plain(numpy.array(0.7)))
    assert_equal_trees(back(numpy.array(0.7)), bert.whole_gradient(P, back_h(dh), dhead))


def test_only_selected_places_are_ever_given_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []

    def watched(h: Any, W: Any, **keywords: Any) -> Any:
        rows.append(h.shape[:-1])
        return original(h, W, **keywords)

    original = lm_loss
    monkeypatch.setattr("refllm.objectives.masked.lm_loss", watched)
    loss(batch())
    assert rows == [(B, M)]


def test_states_at_other_places_get_no_gradient() -> None:
    b = batch()
    h = numpy.random.default_rng(0).standard_normal((B, T, 4))
    _, back = masked_nll(
        h, P, model=bert, positions=b["positions"], targets=b["targets"], ignore=-1, config=CONFIG
    )  # fmt: skip
    dh, _ = back(numpy.ones(()))
    selected = {(0, 1), (0, 4), (1, 0), (1, 3), (2, 2)}
    assert {(int(row), int(t)) for row, t in zip(*numpy.nonzero(dh.any(axis=-1)), strict=True)} == selected


def test_a_slot_that_is_not_used_adds_nothing_wherever_it_points() -> None:
    b = batch()
    elsewhere = {**b, "positions": b["positions"].copy()}
    elsewhere["positions"][2, 1] = 4
    (y, back), (z, back_elsewhere) = loss(b), loss(elsewhere)
    assert y == z
    assert_equal_trees(back(numpy.ones(())), back_elsewhere(numpy.ones(())))


@settings(max_examples=5)
@given(cut=st.integers(1, B - 1), objective=st.sampled_from([Masked(bert, CONFIG), Pretraining(bert, CONFIG)]))
def test_the_losses_of_the_shards_add_up_to_that_of_the_batch(cut: int, objective: Masked | Pretraining) -> None:
    b = batch()
    dropout_mask = draws(objective, b)
    totals: Any = objective.totals(b)

    def of(rows: slice) -> tuple[Any, Tree]:
        part = {name: leaf[rows] for name, leaf in b.items()}
        y, back = objective.loss(P, part, totals=totals, dropout_mask=map_leaves(lambda draw: draw[rows], dropout_mask))
        return y, back(numpy.ones(()))

    (full, whole), (first, one), (rest, other) = of(slice(None)), of(slice(cut)), of(slice(cut, None))
    assert first + rest == pytest.approx(full, rel=1e-13)
    assert_equal_trees(whole, added(one, other))


def test_a_batch_without_a_masked_position_is_refused_in_one_line() -> None:
    b = batch()
    none = {**b, "positions": b["positions"][:, :0], "targets": b["targets"][:, :0]}
    unused = {**b, "targets": numpy.full((B, M), -1)}
    calls: list[Callable[[], Any]] = [lambda: loss(none), *(
        lambda o=objective, c=case: o.totals(c)
        for objective in (Masked(bert, CONFIG), Pretraining(bert, CONFIG)) for case in (none, unused)
    )]  # fmt: skip
    for call in calls:
        with pytest.raises(UserError, match="the batch has no masked position; give") as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1


def test_a_position_outside_the_text_is_refused_instead_of_reading_the_next_one() -> None:
    b = batch()
    with pytest.raises(IndexError, match=r"masked: positions must be in \[0, 6\)"):
        loss({**b, "positions": b["positions"] + 3})
