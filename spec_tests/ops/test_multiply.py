"""Laws of the product element by element."""

from __future__ import annotations

import numpy
import pytest

from spec_tests.subject import Implementation, Subject


@pytest.fixture(scope="session")
def multiply(subject: Subject) -> Implementation:
    return subject.operation("multiply")


def test_each_factor_is_the_slope_of_the_other(multiply: Implementation) -> None:
    a, b, dy = numpy.array([2.0, -3, 0]), numpy.array([5.0, 7, 11]), numpy.array([1.0, 10, 100])
    y, back = multiply(a, b)
    da, db = back(dy)
    assert (y.tolist(), da.tolist(), db.tolist()) == ([10, -21, 0], [5, 70, 1100], [2, -30, 0])


@pytest.mark.own
def test_factors_of_different_shapes_are_refused(multiply: Implementation) -> None:
    """They would broadcast, and a gradient would have the wrong shape."""
    with pytest.raises(ValueError, match=r"multiply: b must be .* = \(2, 3\) to match a .*; got \(3,\)"):
        multiply(numpy.ones((2, 3)), numpy.ones(3))
    with pytest.raises(ValueError, match="multiply: a must be floating-point"):
        multiply(numpy.ones(3, int), numpy.ones(3, int))
