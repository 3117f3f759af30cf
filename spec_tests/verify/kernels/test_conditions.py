"""A condition tells all wrong cases from all right ones, and says a limit that people choose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.verify.kernels.conditions import Numbers, separating

NUMBERS = st.fixed_dictionaries(
    {"T": st.integers(1, 5000), "step": st.integers(1, 2000), "causal": st.booleans(), "name": st.sampled_from("ab")}
)


@pytest.mark.parametrize(
    ("wrong", "right", "words"),
    [
        ([{"K": 1025}, {"K": 4097}], [{"K": 31}, {"K": 1023}], "K > 1,024"),
        ([{"K": 31}], [{"K": 65}, {"K": 129}], "K ≤ 64"),
        ([{"T": 1, "S": 9}], [{"T": 9, "S": 9}, {"T": 5, "S": 7}], "T = 1"),
        ([{"step": 1000}], [{"step": 1}, {"step": 100}], "step > 512"),
        ([{"causal": True, "T": 5}], [{"causal": False, "T": 5}], "causal = True"),
        ([{"T": 3, "S": 9}, {"T": 9, "S": 11}], [{"T": 3, "S": 3}, {"T": 11, "S": 11}], "T < S"),
    ],
)
def test_the_condition_is_the_limit_between_right_and_wrong(
    wrong: list[Numbers], right: list[Numbers], words: str
) -> None:
    condition = separating(wrong, right)
    assert condition is not None
    assert condition.words == words


def test_there_is_none_where_cases_are_alike() -> None:
    assert separating([{"T": 5}], [{"T": 5}]) is None
    assert separating([{"T": 3}, {"T": 9}], [{"T": 5}]) is None


@given(st.lists(NUMBERS, min_size=1, max_size=4), st.lists(NUMBERS, min_size=1, max_size=6))
def test_a_condition_holds_for_every_wrong_case_and_for_no_right_one(
    wrong: list[Numbers], right: list[Numbers]
) -> None:
    condition = separating(wrong, right)
    if condition is not None:
        assert all(map(condition.holds, wrong))
        assert not any(map(condition.holds, right))
