"""Laws of how scores are printed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.explain.explanation import LabelScores
from refllm.explain.figures import signed, told_change, told_missing

FLOATS = st.floats(-1e6, 1e6, allow_nan=False)


def scores(value: float, baseline: float, missing: float = 1e-9) -> LabelScores:
    return LabelScores("gradient", "a", "log-probability", "mask", None, [value - baseline], value, baseline, missing)


@given(st.lists(FLOATS, min_size=1), st.integers(0, 5))
def test_the_largest_score_is_shown_with_three_digits_and_all_are_rounded_alike(xs: list[float], fewest: int) -> None:
    shown = signed(xs, fewest=fewest)
    largest = max(map(abs, xs))
    assert all(text[0] in "+-" for text in shown)
    for x, text in zip(xs, shown, strict=True):
        assert float(text) == pytest.approx(x, abs=largest / 199)
    if largest and "e" not in shown[0]:
        assert len({len(text.partition(".")[2]) for text in shown}) == 1
        assert len(shown[0].partition(".")[2]) >= fewest


@given(st.floats(1e-300, 1e-4))
def test_no_explanation_of_small_scores_is_all_zeros(x: float) -> None:
    assert float(signed([x, 0.0], fewest=3)[0]) == pytest.approx(x, rel=0.005)


def test_scores_of_usual_size_have_the_usual_decimals() -> None:
    assert signed([0.5, -0.0001], fewest=3) == ["+0.500", "-0.000"]
    assert signed([12.5], fewest=4) == ["+12.5000"]
    assert signed([0.0], fewest=3) == ["+0.000"]
    assert signed([3e-6, 1e-7], fewest=3) == ["+0.00000300", "+0.00000010"]
    assert signed([1e-6], fewest=3, like=[0.25]) == ["+0.000"]


@given(FLOATS, st.floats(1e-12, 10))
def test_two_answers_that_differ_are_shown_apart(value: float, change: float) -> None:
    found = scores(value + change, value)
    if found.value == found.baseline_value or abs(value) > 1e3:
        return
    before, _, after = told_change(found).removeprefix("log-probability of a: ").partition(" for the baseline, ")
    assert before != after.removesuffix(" for the text")


def test_where_nothing_changes_it_is_said_and_no_share_of_nothing_is() -> None:
    assert told_change(scores(-0.5, -0.5)).endswith("for the baseline and for the text: there is nothing to explain")
    assert told_missing(scores(-0.5, -0.5, missing=-1e-9)) == "the sum misses -1e-09 of the change"
    assert told_missing(scores(-0.5, -1.5, missing=0.01)) == "the sum misses +0.01 of the change (1 % of it)"
    assert told_missing(scores(-0.5, -1.5, missing=0.0)) == "the sum is the change"
    assert "inf" not in told_missing(scores(0.0, 0.0, missing=math.ulp(0.0)))
