"""The words for rounding that edited text uses: each is the rounding that it says."""

from __future__ import annotations

import math

import numpy
from hypothesis import given
from hypothesis import strategies as st

from refllm.verify import whole
from refllm.verify.whole import passing

NUMBERS = st.floats(-1e6, 1e6) | st.integers(-999, 999).map(lambda n: n / 2)


@given(NUMBERS)
def test_every_rounding_is_what_it_says(x: float) -> None:
    assert whole.rounded_down(x) == math.floor(x)
    assert whole.rounded_up(x) == math.ceil(x)
    assert whole.to_zero(x) == int(x)
    up, away = int(whole.halves_up(x)), int(whole.halves_away(x))
    assert max(abs(up - x), abs(away - x)) <= 0.5
    if x % 1 == 0.5:
        assert up == math.ceil(x)
        assert abs(away) > abs(x)


@given(st.integers(2, 40), st.floats(1.1, 50), st.floats(0.2, 5))
def test_the_place_where_falling_numbers_pass_a_limit_rounds_to_their_count(n: int, first: float, fall: float) -> None:
    x = first * numpy.exp(-fall * numpy.arange(n) / n)
    limit = first * math.exp(-fall * 0.37 * (n - 1) / n)
    place = passing(x, limit)
    if abs(place - round(place)) > 1e-6:
        assert math.floor(place) + 1 == math.ceil(place) == (x >= limit).sum()
    assert passing(x, 2 * first) == -1
    assert passing(x, float(x[-1]) / 1e9) == n
