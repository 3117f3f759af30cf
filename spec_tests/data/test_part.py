"""Laws of the part of much data that a run by minutes reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.data import part as part_module
from refllm.data.corpus import Split
from refllm.data.part import ALL, Part, part_of_text, pieces_of, read_part, share_of, some, some_pieces

PARAGRAPHS = "\n\n".join(f"Paragraph {i} says that {i} and {i} are {2 * i}.\nIt has a second line." for i in range(900))


class Clock:
    """A clock that stands, but for the work that is done."""

    def __init__(self, each: float) -> None:
        self.now, self.each, self.tried = 0.0, each, 0

    def perf_counter(self) -> float:
        return self.now

    def work(self, items: Any) -> None:
        self.tried += len(items)
        self.now += self.each * len(items)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_module, "PIECE", 500)
    monkeypatch.setattr(part_module, "TRIED", 3000)


@given(st.text("ab \n", max_size=300), st.integers(1, 40))
def test_the_pieces_of_a_text_are_all_of_it(text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_module, "PIECE", size)
        pieces = pieces_of(text)
        assert "".join(text[start:end] for start, end in pieces) == text
        assert all(start < end for start, end in pieces)
        assert some_pieces(text, None) == some_pieces(text, len(pieces) + 1) == text


@pytest.mark.usefixtures("small")
def test_pieces_end_at_a_blank_line_where_one_is_near() -> None:
    pieces = pieces_of(PARAGRAPHS)
    assert all(PARAGRAPHS[:end].endswith("\n\n") for _, end in pieces[:-1])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seconds", [0.0, 5.0, 20.0])
def test_no_more_is_read_than_the_time_permits_and_both_sides_lose_the_same_share(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    clock = Clock(each=0.001)
    monkeypatch.setattr(part_module, "time", clock)
    parts = Split(PARAGRAPHS, PARAGRAPHS[: len(PARAGRAPHS) // 4], 0)
    part = part_of_text(parts, clock.work, seconds=seconds)
    assert clock.tried < 1.5 * part_module.TRIED
    read = read_part(parts, part)
    reading = clock.each * (len(read.train) + len(read.validation))
    one = clock.each * 2 * 1.25 * part_module.PIECE  # a piece of each side is read however little time there is
    assert seconds / 2 - one < reading < seconds + one
    if seconds:
        assert len(read.train) / len(parts.train) == pytest.approx(
            len(read.validation) / len(parts.validation), rel=0.2
        )


@pytest.mark.usefixtures("small")
def test_all_is_read_where_there_is_time_or_little_text_or_no_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(each=0.001)
    monkeypatch.setattr(part_module, "time", clock)
    parts = Split(PARAGRAPHS, PARAGRAPHS, 0)
    assert part_of_text(parts, clock.work, seconds=None) == part_of_text(parts, clock.work, seconds=1e4) == ALL
    few = Split(PARAGRAPHS[:1000], PARAGRAPHS[:1000], 0)
    assert part_of_text(few, clock.work, seconds=0.0) == ALL
    assert share_of(None) is None
    assert share_of(2.0) == pytest.approx(12.0)
    assert read_part(parts, ALL) is parts


def test_what_is_read_is_evenly_spread() -> None:
    chosen = np.array(some(range(1000), 10))
    assert np.ptp(np.diff(chosen)) <= 1
    assert 0 < chosen[0] < 100
    assert 900 < chosen[-1] < 1000


@pytest.mark.parametrize("number", [0, -1])
def test_a_part_of_nothing_is_refused(number: int) -> None:
    with pytest.raises(TypeError, match="part"):
        Part(train=number)
