"""Laws of the nonlinearities."""

import math
from typing import Any

import mpmath
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_tests.subject import Implementation, Subject

real = st.floats(-40, 40, allow_subnormal=False)


@pytest.fixture(scope="session")
def relu(subject: Subject) -> Implementation:
    return subject.operation("relu")


@pytest.fixture(scope="session")
def gelu_tanh(subject: Subject) -> Implementation:
    return subject.operation("gelu_tanh")


@pytest.fixture(scope="session")
def gelu_erf(subject: Subject) -> Implementation:
    return subject.operation("gelu_erf")


@pytest.fixture(scope="session")
def silu(subject: Subject) -> Implementation:
    return subject.operation("silu")


def _silu(x: float) -> Any:
    x = mpmath.mpf(x)
    return x / (1 + mpmath.exp(-x))


def _gelu_erf(x: float) -> Any:
    x = mpmath.mpf(x)
    return x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def _gelu_tanh(x: float) -> Any:
    x = mpmath.mpf(x)
    return x * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3))) / 2


@given(x=st.lists(st.floats(allow_nan=False), max_size=8))
def test_relu_keeps_what_is_positive_and_nothing_else(relu: Implementation, x: list[float]) -> None:
    y, back = relu(numpy.array(x, dtype=float))
    assert y.tolist() == [max(0.0, v) for v in x]
    assert back(numpy.full(len(x), 3.0)).tolist() == [3 if v > 0 else 0 for v in x]


@given(x=real)
def test_gelu_erf_agrees_with_mpmath_to_a_few_ulp_also_in_the_tail(gelu_erf: Implementation, x: float) -> None:
    with mpmath.workdps(60):
        exact = float(_gelu_erf(x))
        slope = float(mpmath.diff(_gelu_erf, x))
    y, back = gelu_erf(numpy.array([x]))
    # Φ amplifies the rounding of its argument by x² where it is small
    assert abs(y[0] - exact) <= 2.3e-16 * abs(exact) * (16 + x * x) + 1e-307
    assert abs(back(numpy.ones(1))[0] - slope) <= 2.3e-16 * (16 + x * x) * max(abs(slope), abs(exact)) + 1e-307


@given(x=real)
def test_gelu_tanh_agrees_with_mpmath_to_a_few_ulp_of_its_largest_term(gelu_tanh: Implementation, x: float) -> None:
    with mpmath.workdps(60):
        exact = float(_gelu_tanh(x))
        slope = float(mpmath.diff(_gelu_tanh, x))
    y, back = gelu_tanh(numpy.array([x]))
    assert abs(y[0] - exact) <= 2.3e-16 * 4 * abs(x)  # 1 + tanh is known to an ulp of 1
    assert abs(back(numpy.ones(1))[0] - slope) <= 2.3e-16 * 16 * (1 + abs(x))


@given(x=real | st.floats(-700, 700))
def test_silu_agrees_with_mpmath_to_a_few_ulp_also_in_the_tail(silu: Implementation, x: float) -> None:
    with mpmath.workdps(60):
        exact = float(_silu(x))
        s = 1 / (1 + mpmath.exp(-mpmath.mpf(x)))
        slope, terms = float(s + x * s * (1 - s)), float(s + abs(x) * s * (1 - s))
    y, back = silu(numpy.array([x]))
    assert abs(y[0] - exact) <= 2.3e-16 * 4 * abs(exact) + 1e-307
    assert abs(back(numpy.ones(1))[0] - slope) <= 2.3e-16 * 6 * terms + 1e-307


@pytest.mark.parametrize("name", ["gelu_tanh", "gelu_erf", "silu"])
def test_float32_is_right_to_its_own_rounding(subject: Subject, name: str) -> None:
    x = numpy.linspace(-12, 12, 997).astype("float32")
    formula = {"gelu_tanh": _gelu_tanh, "gelu_erf": _gelu_erf, "silu": _silu}[name]
    with mpmath.workdps(40):
        exact = [float(formula(float(v))) for v in x]
    numpy.testing.assert_allclose(subject.operation(name)(x)[0], exact, rtol=3e-7, atol=1.2e-6)


@pytest.mark.parametrize("name", ["gelu_tanh", "gelu_erf", "silu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gelu_and_silu_tend_to_the_identity_and_to_zero(subject: Subject, name: str, dtype: str) -> None:
    x = numpy.array([1e30, -1e30, 800, -800, 0], dtype)
    y, back = subject.operation(name)(x)
    assert (y == numpy.array([1e30, 0, 800, 0, 0], dtype)).all()
    slope = back(numpy.ones(5, dtype))
    assert slope[:4].tolist() == [1, 0, 1, 0]
    assert abs(slope[4] - 0.5) <= numpy.finfo(dtype).eps


def test_the_two_forms_of_gelu_differ_by_at_most_5e_4_and_not_by_nothing(
    gelu_tanh: Implementation, gelu_erf: Implementation
) -> None:
    x = numpy.linspace(-6, 6, 2001)
    difference = abs(gelu_tanh(x)[0] - gelu_erf(x)[0]).max()
    assert 4e-4 < difference < 5e-4


@pytest.mark.parametrize("name", ["gelu_tanh", "gelu_erf", "silu"])
def test_gelu_and_silu_of_x_and_of_minus_x_differ_by_x(subject: Subject, name: str) -> None:
    x = numpy.linspace(0, 8, 99)
    y, z = (subject.operation(name)(v)[0] for v in (x, -x))
    numpy.testing.assert_allclose(y - z, x, rtol=0, atol=4e-15)


def test_many_numbers_are_treated_as_few(
    gelu_tanh: Implementation, gelu_erf: Implementation, silu: Implementation
) -> None:
    """More than are worked on at once."""
    x = numpy.random.default_rng(0).normal(size=(3, 50_001))
    for activation in (gelu_tanh, gelu_erf, silu):
        y, back = activation(x)
        z, back_few = activation(x[1, 1000:1100])
        assert (y[1, 1000:1100] == z).all()
        assert (back(x)[1, 1000:1100] == back_few(x[1, 1000:1100])).all()


@pytest.mark.parametrize("name", ["relu", "gelu_tanh", "gelu_erf", "silu"])
@pytest.mark.own
def test_integers_are_refused(subject: Subject, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: x must be floating-point, got int64; convert it with .astype"):
        subject.operation(name)(numpy.array([1, 2]))


def test_the_slope_of_relu_at_zero_is_zero(relu: Implementation) -> None:
    assert relu(numpy.array([0.0, -0.0, math.ulp(0)]))[1](numpy.ones(3)).tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["gelu_tanh", "gelu_erf"])
@given(
    dtype=st.sampled_from(["float32", "float64"]), scale=st.sampled_from([1.0, 9.0, 60.0, 1e3]), seed=st.integers(0, 99)
)
def test_a_number_gives_the_same_bits_whatever_stands_beside_it(
    subject: Subject, name: str, dtype: str, scale: float, seed: int
) -> None:
    """Where a large number stands beside it, powers are cut off before they overflow, and else not."""
    x = (numpy.random.default_rng(seed).standard_normal(7) * scale).astype(dtype)
    dy = numpy.random.default_rng(seed + 100).standard_normal(8).astype(dtype)
    y, back = subject.operation(name)(x)
    beside, back_beside = subject.operation(name)(numpy.append(x, numpy.array(1e9, dtype)))
    assert numpy.array_equal(y, beside[:7])
    assert numpy.array_equal(back(dy[:7]), back_beside(dy)[:7])
