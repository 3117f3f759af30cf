"""Laws of the charts: every point is inside the picture, the order of numbers is that of places."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.chart import Curve, bar_chart, line_chart, short
from spec_tests.test_page import Read

NUMBERS = st.floats() | st.integers(-(10**6), 10**6).map(float)


def points(markup: str) -> list[list[tuple[float, float]]]:
    return [
        [(float(a), float(b)) for a, b in (pair.split(",") for pair in line.split())]
        for line in re.findall(r'points="([^"]*)"', markup)
    ]


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=600))
def test_every_finite_point_is_inside_the_picture(given_points: list[tuple[float, float]]) -> None:
    markup = line_chart("loss <b>", [Curve("a & b", given_points)], x="steps")
    Read(markup)
    assert bool(markup) == any(abs(x) < 1e300 and abs(y) < 1e300 for x, y in given_points)
    assert "nan" not in markup.replace("finance", "")
    for curve in points(markup):
        assert len(curve) <= 400
        assert all(0 <= a <= 420 and 0 <= b <= 230 for a, b in curve)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_a_larger_number_is_drawn_higher(numbers: list[float]) -> None:
    [drawn] = points(line_chart("t", [Curve("c", list(enumerate(numbers)))], x="steps"))
    assert [a for a, _ in drawn] == sorted(a for a, _ in drawn)
    for (y0, (_, b0)), (y1, (_, b1)) in zip(
        zip(numbers, drawn, strict=True), zip(numbers[1:], drawn[1:], strict=True), strict=False
    ):
        assert (b0 - b1) * (y1 - y0) >= -1e-9


def test_the_last_point_of_a_long_curve_is_drawn() -> None:
    long = [(float(n), float(n)) for n in range(12345)]
    assert Curve("c", long).drawn()[-1] == long[-1]


@given(st.lists(st.tuples(st.text(), st.floats()), max_size=8))
def test_bars_are_as_long_as_their_numbers(bars: list[tuple[str, float]]) -> None:
    markup = bar_chart("bits", bars)
    Read(markup)
    widths = [float(width) for width in re.findall(r'class="bar"[^>]* width="([\d.]+)"', markup)]
    kept = [value for _, value in bars if 0 <= value < 1e300]
    assert len(widths) == len(kept)
    assert all(width <= 420 for width in widths)


@pytest.mark.parametrize(
    ("number", "says"),
    [(0, "0"), (2000, "2,000"), (0.0013, "0.0013"), (1.5e-9, "1.5e-09"), (2.5, "2.5"), (-3, "-3"), (4.2081, "4.208"),
     (1e12, "1e+12"), (123456.789, "123,500")],
)  # fmt: skip
def test_numbers_are_said_in_a_few_digits(number: float, says: str) -> None:
    assert short(number) == says


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_said_is_near_the_number(number: float) -> None:
    assert math.isclose(float(short(number).replace(",", "")), number, rel_tol=5.1e-3, abs_tol=1e-300)
