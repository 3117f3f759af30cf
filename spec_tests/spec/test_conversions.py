"""The conversions of the text are those of NumPy for float16 and of ml_dtypes for the others, at every pattern."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.backend import Array
from refllm.spec.conversions import TYPES, narrowed, widened

PATTERNS = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50)


def float32(bits: Array) -> Array:
    return bits.astype(numpy.uint32).view(numpy.float32)


def every(to: str) -> Array:
    """All patterns of a type."""
    return numpy.arange(2 * TYPES[to][-1])


def ties(to: str) -> Array:
    """The patterns of what lies halfway between neighbours, and those beside."""
    with numpy.errstate(all="ignore"):
        values = float32(widened(every(to), of=to)).astype(float)
        middle = ((values[:-1] + values[1:]) / 2).astype(numpy.float32)
    bits = middle[numpy.isfinite(middle)].view(numpy.uint32).astype(int)
    return numpy.concatenate([bits - 1, bits, bits + 1]) % 2**32


def oracle(to: str) -> Any:
    if to == "float16":
        return numpy.float16
    return getattr(pytest.importorskip("ml_dtypes"), to.replace("e4m3", "e4m3fn"))


@pytest.mark.parametrize("to", TYPES)
def test_what_is_widened_and_narrowed_again_is_the_same(to: str) -> None:
    bits = every(to)
    wide = widened(bits, of=to)
    number = wide != 0x7FC00000
    numpy.testing.assert_array_equal(narrowed(wide, to=to, saturate=False)[number], bits[number])


@pytest.mark.parametrize("to", TYPES)
@given(patterns=PATTERNS)
def test_no_number_of_the_type_is_nearer(to: str, patterns: list[int]) -> None:
    bits = numpy.array(patterns)
    x = float32(bits).astype(float)
    values = float32(widened(every(to), of=to)).astype(float)
    values = numpy.unique(values[numpy.isfinite(values)])
    inside = numpy.isfinite(x) & (abs(x) <= values[-1])
    y = float32(widened(narrowed(bits, to=to, saturate=True), of=to)).astype(float)
    assert numpy.isnan(y[numpy.isnan(x)]).all()
    at = numpy.clip(numpy.searchsorted(values, x[inside]), 1, len(values) - 1)
    nearest = numpy.minimum(abs(values[at] - x[inside]), abs(values[at - 1] - x[inside]))
    numpy.testing.assert_array_equal(abs(y[inside] - x[inside]), nearest)
    beyond = ~inside & ~numpy.isnan(x)
    numpy.testing.assert_array_equal(y[beyond], numpy.sign(x[beyond]) * values[-1])


@pytest.mark.parametrize("to", TYPES)
def test_the_conversions_are_those_of_others(to: str) -> None:
    kind = oracle(to)
    draws = numpy.random.default_rng(0).integers(0, 2**32, 50_000)
    bits = numpy.concatenate([draws, ties(to), widened(every(to), of=to)])
    with numpy.errstate(all="ignore"):
        expected = float32(bits).astype(kind)
        known = every(to).astype(f"u{expected.dtype.itemsize}").view(kind).astype(numpy.float32)
    nan = numpy.isnan(expected.astype(numpy.float32))
    y = narrowed(bits, to=to, saturate=False)
    numpy.testing.assert_array_equal(y[~nan], expected.view(f"u{expected.dtype.itemsize}").astype(int)[~nan])
    assert set(y[nan]) <= {TYPES[to][4]}
    numpy.testing.assert_array_equal(float32(widened(every(to), of=to)), known)
