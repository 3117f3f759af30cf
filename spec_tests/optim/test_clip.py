"""Laws of clipping by the global norm."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.optim.clip import clip_factor

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
limits = st.floats(1e-3, 1e3)
lists = st.lists(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=5), min_size=1, max_size=4)


@DTYPES
@given(values=lists, limit=limits)
def test_the_norm_after_clipping_is_at_most_the_limit(dtype: str, values: list[list[float]], limit: float) -> None:
    gradients = [numpy.array(row, dtype) for row in values]
    norm, factor = clip_factor(gradients, limit=limit)
    exact = math.sqrt(math.fsum(float(x) ** 2 for g in gradients for x in g))
    assert float(norm) == pytest.approx(exact, rel=1e-6)
    assert float(factor) * exact <= limit * (1 + 1e-6)
    assert norm.dtype == factor.dtype == dtype
    assert norm.shape == factor.shape == ()


@DTYPES
@given(values=lists)
def test_a_norm_below_the_limit_leaves_the_gradients_as_they_are(dtype: str, values: list[list[float]]) -> None:
    assert clip_factor([numpy.array(row, dtype) for row in values], limit=1e6)[1] == 1


@DTYPES
def test_a_longer_gradient_gets_the_length_of_the_limit(dtype: str) -> None:
    norm, factor = clip_factor([numpy.array([[3.0]], dtype), numpy.array([4.0], dtype)], limit=0.5)
    assert norm == 5
    assert factor == numpy.dtype(dtype).type(0.1)


@DTYPES
@pytest.mark.parametrize("limit", [0.5, math.inf])
def test_a_gradient_of_zero_stays_zero(dtype: str, limit: float) -> None:
    norm, factor = clip_factor([numpy.zeros((2, 3), dtype)], limit=limit)
    assert norm == 0
    assert factor == 1


@DTYPES
def test_an_infinite_limit_switches_clipping_off(dtype: str) -> None:
    assert clip_factor([numpy.array([1e3, 1e4], dtype)], limit=math.inf)[1] == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_shows_in_the_norm(bad: float) -> None:
    assert not math.isfinite(clip_factor([numpy.array([1.0, bad])], limit=1.0)[0])


@pytest.mark.parametrize(("dtype", "size"), [("float32", 1e30), ("float64", 1e200), ("float32", 1e38)])
def test_a_gradient_whose_square_overflows_is_clipped_like_any_other(dtype: str, size: float) -> None:
    gradient = numpy.array([0.6 * size, 0.0, -0.8 * size], dtype)
    norm, factor = clip_factor([gradient, numpy.zeros(0, dtype)], limit=2.0)
    assert float(norm) == pytest.approx(size, rel=1e-6)
    assert float(factor) * size == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize(("arrays", "limit"), [(0, 1.0), (1, 0.0), (1, -1.0), (1, math.nan)])
def test_nothing_to_clip_and_a_limit_that_is_none_are_refused(arrays: int, limit: float) -> None:
    with pytest.raises(ValueError, match="clip_factor: needs an array or more and a limit above 0"):
        clip_factor([numpy.ones(2)] * arrays, limit=limit)


@pytest.mark.parametrize("dtype", ["complex128", "int64", "bool", "object"])
def test_gradients_that_are_no_real_numbers_are_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match="clip_factor: gradients must be floating-point numbers"):
        clip_factor([numpy.ones(3), numpy.ones(3, dtype)], limit=1.0)


@pytest.mark.parametrize("wrong", [numpy.ones(3), [[1.0]], [None], [numpy.ma.masked_array([1.0])], iter([])])
def test_gradients_that_are_no_list_of_arrays_are_refused(wrong: Any) -> None:
    with pytest.raises(UserError, match=r"^clip_factor: (gradients|a gradient) (must be|is a masked)[^\n]*$"):
        clip_factor(wrong, limit=1.0)
