"""Laws of the positions."""

from typing import Any

import mpmath
import numpy
import pytest

from spec_tests.subject import Implementation, Subject


@pytest.fixture(scope="session")
def sinusoidal(subject: Subject) -> Implementation:
    return subject.operation("sinusoidal")


@pytest.fixture(scope="session")
def add_positions(subject: Subject) -> Implementation:
    return subject.operation("add_positions")


def _exact(position: float, width: int) -> Any:
    with mpmath.workdps(40):
        angles = [mpmath.mpf(position) / mpmath.mpf(10000) ** (mpmath.mpf(i - i % 2) / width) for i in range(width)]
        return [float(mpmath.cos(a) if i % 2 else mpmath.sin(a)) for i, a in enumerate(angles)]


@pytest.mark.parametrize("width", [1, 2, 7, 64])
def test_sinusoidal_agrees_with_mpmath(sinusoidal: Implementation, width: int) -> None:
    positions = [0.0, 1, 2, 17, 1000, 100000]
    expected = [_exact(p, width) for p in positions]
    y = sinusoidal(numpy.array(positions), width=width)[0]
    # An angle is known to half an ulp of it, and so is its sine in absolute terms.
    allowed = 2.0**-51 * numpy.maximum(1, positions)[:, None]
    assert (abs(y - expected) <= allowed).all()


def test_float32_keeps_its_digits_far_from_the_start(sinusoidal: Implementation) -> None:
    positions = numpy.array([9999, 65535], "float32")
    y = sinusoidal(positions, width=32)[0]
    assert y.dtype == numpy.float32
    numpy.testing.assert_allclose(y, [_exact(p, 32) for p in (9999, 65535)], rtol=0, atol=1e-7)


def test_a_shift_of_the_position_is_a_rotation_that_the_position_does_not_enter(sinusoidal: Implementation) -> None:
    """PE(p + k) = R(k) PE(p): why Vaswani et al. chose sinusoids (sec. 3.5)."""
    width, shift = 8, 5.0
    at, later = (sinusoidal(numpy.arange(50.0) + s, width=width)[0] for s in (0, shift))
    angle = shift / 10000 ** (numpy.arange(0, width, 2) / width)
    sin, cos = at[:, 0::2], at[:, 1::2]
    numpy.testing.assert_allclose(later[:, 0::2], sin * numpy.cos(angle) + cos * numpy.sin(angle), atol=1e-13)
    numpy.testing.assert_allclose(later[:, 1::2], cos * numpy.cos(angle) - sin * numpy.sin(angle), atol=1e-13)


def test_e5_every_dimension_has_a_frequency_of_its_own(sinusoidal: Implementation) -> None:
    y = sinusoidal(numpy.arange(100.0), width=8)[0]
    assert numpy.linalg.matrix_rank(y) == 8


@pytest.mark.own
def test_a_width_below_one_is_refused(sinusoidal: Implementation) -> None:
    with pytest.raises(ValueError, match="sinusoidal: width must be at least 1, got 0"):
        sinusoidal(numpy.zeros(3), width=0)


@pytest.mark.own
def test_integer_positions_are_refused(sinusoidal: Implementation) -> None:
    with pytest.raises(ValueError, match="sinusoidal: p must be floating-point, got int64"):
        sinusoidal(numpy.arange(3), width=4)


def test_positions_of_one_sequence_serve_every_sequence_of_a_batch(add_positions: Implementation) -> None:
    random = numpy.random.default_rng(0)
    x, P, dy = random.normal(size=(4, 3, 2)), random.normal(size=(5, 2)), random.normal(size=(4, 3, 2))
    once = numpy.array([4, 0, 4])
    y, back = add_positions(x, P, positions=once)
    z, back_full = add_positions(x, P, positions=numpy.broadcast_to(once, (4, 3)))
    assert (y == x + P[[4, 0, 4]]).all()
    assert (y == z).all()
    numpy.testing.assert_allclose(back(dy)[1], back_full(dy)[1], rtol=1e-13)
    numpy.testing.assert_allclose(back(dy)[1][4], dy[:, [0, 2]].sum(axis=(0, 1)), rtol=1e-13)
    assert (back(dy)[1][[1, 2, 3]] == 0).all()


@pytest.mark.host
@pytest.mark.own
def test_a_position_beyond_the_table_is_refused(add_positions: Implementation) -> None:
    with pytest.raises(IndexError, match=r"add_positions: positions must be in \[0, 5\); got 5"):
        add_positions(numpy.zeros((3, 2)), numpy.zeros((5, 2)), positions=numpy.array([3, 4, 5]))


@pytest.mark.own
def test_positions_of_another_shape_are_refused(add_positions: Implementation) -> None:
    with pytest.raises(
        ValueError, match=r"positions must be the end of \(\.\.\.,\) = \(3,\) to match x .*; got \(2,\)"
    ):
        add_positions(numpy.zeros((3, 2)), numpy.zeros((5, 2)), positions=numpy.array([3, 4]))
