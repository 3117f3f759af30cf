"""The size of the tile after which all is wrong is what fits every case, and is said only where few sizes do."""

from __future__ import annotations

import numpy
from hypothesis import given
from hypothesis import strategies as st

from refllm.verify.kernels.tails import SIZES, starts, words


@given(st.sampled_from(SIZES), st.lists(st.integers(2, 9000), min_size=2, max_size=9, unique=True))
def test_the_size_of_the_tiles_is_among_those_that_are_said(size: int, lengths: list[int]) -> None:
    of_cases = [{"row": (7, 0), "column": (n, n // size * size)} for n in lengths if n % size]
    said = words(of_cases)
    if said:
        assert said.startswith("the columns after the last whole tile of ")
        assert f"{size:,}" in said.removeprefix("the columns after the last whole tile of ").split(" or ")


def test_one_size_is_said_where_the_cases_leave_one() -> None:
    of_cases = [{"column": (33, 32)}, {"column": (31, 24)}, {"column": (7, 0)}, {"column": (41, 40)}]
    assert words(of_cases) == "the columns after the last whole tile of 8"
    assert (
        words([*of_cases, {"column": (63, 57)}]) == "the columns after the last whole tile of 8"
    )  # one right by chance
    assert words(of_cases[:1]) == ""
    assert words([*of_cases, {"column": (64, 63)}]) == ""
    assert words([*of_cases, {}]) == ""


def test_a_tail_begins_where_all_from_there_on_have_wrong_elements() -> None:
    wrong = numpy.zeros((3, 33), bool)
    wrong[1, 24:] = True
    assert starts(wrong, ("row", "column")) == {"column": (33, 24)}
    wrong[1, 3] = True
    assert starts(wrong, ("row", "column")) == {}
