"""The tolerance is the formula that the golden files publish, and nothing slips through it."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.verify.case import CARRIERS, Truth
from refllm.verify.tolerance import LARGEST, SHARE, TINY, UNIT, ratios, tolerance, worst


def test_the_tolerance_is_that_of_the_golden_readme() -> None:
    truth = Truth(numpy.array([[1.0, -3.0], [0.0, 0.0]]), numpy.array([[2.0, 0.5], [0.0, 4.0]]))
    allowed = tolerance(truth, "float32", 8)
    u = 2.0**-24
    expected = [[8 * u * (2 + 1 + 3), 8 * u * (0.5 + 3 + 3)], [0, 8 * u * 4]]
    numpy.testing.assert_allclose(allowed, numpy.array(expected) + 2.0**-126, rtol=1e-15)


def test_bfloat16_has_a_quarter_of_the_factor() -> None:
    truth = Truth(numpy.array([1.0, 2.0]), numpy.array([0.0, 0.5]))
    u = 2.0**-8
    numpy.testing.assert_allclose(tolerance(truth, "bfloat16", 8), [2 * u * 3, 2 * u * 4.5], rtol=1e-15)
    assert (ratios(numpy.array([1.03, 2.04]), truth, "bfloat16", 8) > 1).tolist() == [True, True]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_the_constants_of_a_dtype_are_those_of_numpy(dtype: str) -> None:
    info = numpy.finfo(dtype)
    assert UNIT[dtype] == float(info.eps) / 2
    assert TINY[dtype] == float(info.smallest_normal)
    assert LARGEST[dtype] == float(info.max)
    assert UNIT.keys() == SHARE.keys() == TINY.keys() == LARGEST.keys() == CARRIERS.keys()


def test_an_infinite_truth_must_be_met_exactly() -> None:
    truth = Truth(numpy.array([-math.inf, 1.0, math.inf]), numpy.array([1.0, 1.0, 1.0]))
    assert not ratios(numpy.array([-math.inf, 1.0, math.inf]), truth, "float64", 8).any()
    assert numpy.isinf(ratios(numpy.array([-1e308, 1.0, -math.inf]), truth, "float64", 8)[[0, 2]]).all()
    assert tolerance(truth, "float64", 8)[1] > 0


def test_integers_must_be_met_exactly() -> None:
    truth = Truth(numpy.array([3, 4]), None)
    assert list(ratios(numpy.array([3, 5]), truth, "bfloat16", 8)) == [0, math.inf]


@given(st.lists(st.sampled_from([0.0, 1.0, -2.5, math.nan, math.inf, -math.inf]), min_size=1, max_size=5))
def test_nan_is_never_within_the_tolerance(values: list[float]) -> None:
    t = numpy.nan_to_num(numpy.array(values))
    y = numpy.array(values)
    ratio = ratios(y, Truth(t, numpy.ones_like(t)), "float64", 8)
    assert (numpy.isinf(ratio) == ~numpy.isfinite(y)).all()


@given(st.floats(-1e6, 1e6), st.floats(0, 1e3), st.floats(0.01, 100))
def test_the_ratio_is_the_error_over_the_tolerance(t: float, s: float, ratio: float) -> None:
    truth = Truth(numpy.array([t]), numpy.array([s + 1]))
    y = numpy.array([t]) + ratio * tolerance(truth, "float32", 8)
    found = worst(y, truth, "float32", 8)
    assert found is not None
    assert found.ratio == pytest.approx(ratio, rel=1e-6)
    assert found.index == (0,)


def test_the_worst_element_is_named_with_its_error_in_ulp() -> None:
    t = numpy.array([[1.0, 4.0], [5.0, 100.0]])
    y = t.copy()
    y[1, 0] += 3 * 2.0**-21  # numbers between 4 and 8 are 2^-21 apart in float32
    found = worst(y, Truth(t, numpy.zeros_like(t)), "float32", 1e-3)
    assert found is not None
    assert (found.index, found.ulp) == ((1, 0), 3)
    assert worst(numpy.zeros((0, 2)), Truth(numpy.zeros((0, 2)), numpy.zeros((0, 2))), "float32", 8) is None
