"""Laws of the mean squared error."""

import numpy
import pytest

from spec_tests.subject import Implementation, Subject


@pytest.fixture(scope="session")
def mean_squared_error(subject: Subject) -> Implementation:
    return subject.operation("mean_squared_error")


def test_the_mean_is_over_every_element(mean_squared_error: Implementation) -> None:
    y, back = mean_squared_error(numpy.array([[1.0, 2], [3, 4]]), numpy.array([[1.0, 0], [0, 8]]))
    assert y == (0 + 4 + 9 + 16) / 4
    assert back(numpy.array(2.0))[0].tolist() == [[0, 2], [3, -4]]


def test_equal_arguments_have_no_error_and_no_gradient(mean_squared_error: Implementation) -> None:
    x = numpy.array([1e30, -1e30, 0.1])
    y, back = mean_squared_error(x, x.copy())
    assert y == 0
    assert not numpy.any(back(numpy.array(1.0)))


def test_the_arguments_are_interchangeable(mean_squared_error: Implementation) -> None:
    x, t = numpy.random.default_rng(0).normal(size=(2, 3, 4))
    (y, back), (z, back_swapped) = mean_squared_error(x, t), mean_squared_error(t, x)
    assert y == z
    (dx, dt), (dx_swapped, dt_swapped) = back(numpy.array(3.0)), back_swapped(numpy.array(3.0))
    assert (dx == dt_swapped).all()
    assert (dt == dx_swapped).all()
    assert (dx == -dt).all()


@pytest.mark.own
def test_the_mean_of_no_element_is_refused(mean_squared_error: Implementation) -> None:
    with pytest.raises(ValueError, match="mean_squared_error: the mean of no element; give at least one"):
        mean_squared_error(numpy.zeros((0, 3)), numpy.zeros((0, 3)))


@pytest.mark.own
def test_another_shape_is_refused(mean_squared_error: Implementation) -> None:
    with pytest.raises(ValueError, match="mean_squared_error: t must be"):
        mean_squared_error(numpy.zeros((2, 3)), numpy.zeros((3, 2)))
