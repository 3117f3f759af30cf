"""Two edits are proposed together whose changes add up to what is wrong."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.verify import additive, corpus, plain
from refllm.verify.additive import Effects
from refllm.verify.case import Response
from refllm.verify.edits import Edit

CASE = corpus.load(corpus.folder(None)).cases["LN/rows"]
TEXT = Response({"y": CASE.outputs["y"].value}, None)


def named(n: int) -> tuple[Edit, ...]:
    return (Edit(plain.text()["layer_norm"], ((n, n, "# "),), 1.0, False),)


def moved(change: Any) -> Response:
    return Response({"y": TEXT.outputs["y"] + change}, None)


def effects(changes: list[Any], wrong: Any) -> Effects:
    found = Effects(CASE, moved(wrong), TEXT)
    for n, change in enumerate(changes):
        found.add(named(n), moved(change))
    return found


@pytest.fixture
def changes() -> list[Any]:
    draw = numpy.random.default_rng(3)
    return [0.1 * draw.normal(size=TEXT.outputs["y"].shape) for _ in range(60)]


def test_the_two_that_add_up_come_first(changes: list[Any]) -> None:
    first = next(effects(changes, changes[7] + changes[41]).pairs())
    assert first == (named(7), named(41))


def test_a_part_that_is_a_millionth_of_the_other_counts(changes: list[Any]) -> None:
    changes = [1e-6 * x if n > 30 else x for n, x in enumerate(changes)]
    first = next(effects(changes, changes[7] + changes[41]).pairs())
    assert first == (named(7), named(41))


def test_no_pair_is_proposed_twice(changes: list[Any]) -> None:
    found = effects(changes, changes[0] + changes[1])
    pairs = [*found.pairs(), *found.pairs()]
    assert len(pairs) == len(set(pairs)) >= additive.PAIRS


def test_known_mistakes_are_paired_among_themselves(changes: list[Any]) -> None:
    found = effects(changes[:50], changes[52] + changes[55])
    for n in range(50, 60):
        found.add(named(n), moved(changes[n]), listed=True)
    pairs = list(found.pairs_of_listed())
    assert pairs[0] == (named(52), named(55))
    assert len(pairs) == 45


@pytest.mark.parametrize("change", [0.0, numpy.nan, 1e6])
def test_what_changes_nothing_or_too_much_is_in_no_pair(change: float, changes: list[Any]) -> None:
    found = effects([change, *changes[:2]], changes[0] + changes[1])
    assert [named(0)] not in [list(pair) for pair in found.pairs()]
    assert len(found.edits) == 2


def test_nothing_is_proposed_where_nothing_is_wrong(changes: list[Any]) -> None:
    assert list(effects(changes, 0.0).pairs()) == []
