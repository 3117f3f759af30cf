"""Laws of the softmax and its logarithm."""

import math
from typing import Any

import mpmath
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_tests.subject import Implementation, Subject

INF = math.inf
logits = st.lists(st.floats(-700, 700) | st.sampled_from([0.0, -INF, 1e30, -1e30]), min_size=1, max_size=6).filter(
    lambda row: max(row) > -INF
)


@pytest.fixture(scope="session")
def softmax(subject: Subject) -> Implementation:
    return subject.operation("softmax")


@pytest.fixture(scope="session")
def log_softmax(subject: Subject) -> Implementation:
    return subject.operation("log_softmax")


def _log_softmax(row: list[float]) -> Any:
    with mpmath.workdps(60):
        top = max(row)
        total = mpmath.fsum(mpmath.exp(mpmath.mpf(z) - top) for z in row if z > -INF)
        return [mpmath.mpf(z) - top - mpmath.log(total) if z > -INF else mpmath.mpf("-inf") for z in row]


@given(row=logits)
def test_softmax_agrees_with_mpmath(softmax: Implementation, row: list[float]) -> None:
    expected = [float(mpmath.exp(z)) for z in _log_softmax(row)]
    y = softmax(numpy.array(row))[0]
    # exp of a rounded difference: its relative error is that difference's absolute one, at most 1400 half ulps
    numpy.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-300)


@given(row=logits)
def test_log_softmax_agrees_with_mpmath(log_softmax: Implementation, row: list[float]) -> None:
    expected = [float(z) for z in _log_softmax(row)]
    y = log_softmax(numpy.array(row))[0]
    numpy.testing.assert_allclose(y, expected, rtol=1e-14, atol=1e-14 + 2e-16 * max(1, min(abs(max(row)), 700)))


@given(row=logits, seed=st.integers(0, 99))
def test_probabilities_sum_to_one_and_their_gradients_to_zero(
    softmax: Implementation, log_softmax: Implementation, row: list[float], seed: int
) -> None:
    dy = numpy.random.default_rng(seed).normal(size=len(row))
    y, back = softmax(numpy.array(row))
    assert y.min() >= 0
    assert abs(y.sum() - 1) <= 1e-15 * len(row)
    assert abs(back(dy).sum()) <= 1e-15 * len(row) * abs(dy).max()
    assert abs(log_softmax(numpy.array(row))[1](dy).sum()) <= 4e-15 * len(row) * abs(dy).max()


@given(row=st.lists(st.integers(-50, 50), min_size=1, max_size=6), shift=st.integers(-(2**40), 2**40))
def test_a_shift_of_the_row_changes_nothing(
    softmax: Implementation, log_softmax: Implementation, row: list[float], shift: int
) -> None:
    x = numpy.array(row, dtype=float)  # whole numbers: the shift is exact
    assert (softmax(x + shift)[0] == softmax(x)[0]).all()
    assert (log_softmax(x + shift)[0] == log_softmax(x)[0]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_minus_infinity_has_no_probability_and_no_gradient(
    softmax: Implementation, log_softmax: Implementation, dtype: str
) -> None:
    x, dy = numpy.array([[1.0, -INF, 1]], dtype), numpy.array([[1.0, 5, 3]], dtype)
    y, back = softmax(x)
    assert y.tolist() == [[0.5, 0, 0.5]]
    assert back(dy).tolist() == [[-0.5, 0, 0.5]]
    y, back = log_softmax(x)
    assert y[0, 1] == -INF
    assert (abs(y[0, ::2] + math.log(2)) < 1e-7).all()
    numpy.testing.assert_allclose(back(dy), [[1 - 4.5, 5, 3 - 4.5]], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_of_minus_infinity_gives_zeros_and_no_gradient(softmax: Implementation, dtype: str) -> None:
    x = numpy.array([[-INF, -INF], [0, 0]], dtype)
    y, back = softmax(x)
    assert y.tolist() == [[0, 0], [0.5, 0.5]]
    assert back(numpy.array([[3.0, 4], [3, 4]], dtype)).tolist() == [[0, 0], [-0.25, 0.25]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_logits_of_any_size_share_the_probability(
    softmax: Implementation, log_softmax: Implementation, dtype: str
) -> None:
    for z in (0, 1e30, -1e30):
        assert (softmax(numpy.full((2, 4), z, dtype))[0] == 0.25).all()
        numpy.testing.assert_allclose(log_softmax(numpy.full((2, 4), z, dtype))[0], -math.log(4), rtol=1e-7)


def test_a_single_entry_is_certain_and_has_no_gradient(softmax: Implementation, log_softmax: Implementation) -> None:
    for z in (0.0, 1e30, -1e30):
        y, back = softmax(numpy.array([z]))
        assert (y.item(), back(numpy.array([3.0])).item()) == (1, 0)
        y, back = log_softmax(numpy.array([z]))
        assert (y.item(), back(numpy.array([3.0])).item()) == (0, 0)


@pytest.mark.own
def test_an_empty_axis_is_refused(softmax: Implementation, log_softmax: Implementation) -> None:
    with pytest.raises(ValueError, match=r"^softmax: x .* needs at least one entry in its last axis"):
        softmax(numpy.zeros((2, 0)))
    with pytest.raises(ValueError, match=r"^log_softmax: x must be \(..., V\); got \(\)"):
        log_softmax(numpy.array(1.0))


@pytest.mark.own
def test_integers_are_refused(softmax: Implementation) -> None:
    with pytest.raises(ValueError, match="softmax: x must be floating-point, got int64"):
        softmax(numpy.array([1, 2]))
