"""The angles of scaled positions keep what each form promises for its fastest and its slowest pairs."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from refllm.models.rotary_scaling import dynamic_frequencies, trained_frequencies, yarn_frequencies, yarn_scale

WIDTHS = st.integers(2, 40).map(lambda half: 2 * half)
BASES, FACTORS, LENGTHS = st.floats(2.0, 1e6), st.floats(1.0, 100.0), st.integers(8, 100_000)


@given(width=WIDTHS, base=BASES, factor=FACTORS, original=LENGTHS, rounded=st.booleans())
def test_yarn_keeps_fast_pairs_and_divides_slow_ones(
    width: int, base: float, factor: float, original: int, rounded: bool
) -> None:
    # where even the farthest pair that the code counts, width - 1, turns fast, it divides all of them
    assume(original * base ** (-2 * (width - 1) / width) < 2 * math.pi)
    trained = trained_frequencies(width, base)
    found = yarn_frequencies(
        width=width, base=base, factor=factor, original=original, beta_fast=32.0, beta_slow=1.0, rounded=rounded
    )
    turns = [original * f / (2 * math.pi) for f in trained]
    for f, was, n in zip(found, trained, turns, strict=True):
        assert was / factor * (1 - 1e-9) <= f <= was * (1 + 1e-9)
        if n >= 32 * (1 + 1e-9):
            assert f == pytest.approx(was, rel=1e-9)
        if n <= 1 / base ** (2 / width):  # rounded up to the next pair, it still turns less than once
            assert f == pytest.approx(was / factor, rel=1e-9)
    assert list(found) == sorted(found, reverse=True)


@given(factor=FACTORS)
def test_the_scale_of_yarn_is_one_where_nothing_is_stretched(factor: float) -> None:
    assert yarn_scale(1.0) == yarn_scale(1 / factor) == 1
    assert yarn_scale(factor) == pytest.approx(1 + math.log(factor) / 10)


@given(width=WIDTHS, base=BASES, factor=FACTORS, original=LENGTHS, more=st.integers(1, 9))
def test_dynamic_scaling_begins_beyond_the_trained_length(
    width: int, base: float, factor: float, original: int, more: int
) -> None:
    trained = trained_frequencies(width, base)

    def at(length: int) -> tuple[float, ...]:
        return dynamic_frequencies(width=width, base=base, factor=factor, original=original, length=length)

    assert at(1) == at(original) == trained
    far = at(more * original)
    assert far[0] == 1
    assert far[-1] == pytest.approx(trained[-1] / (1 + factor * (more - 1)), rel=1e-9)
