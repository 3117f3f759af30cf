"""The mean squared error."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array
from refllm.differentiable import differentiable


@differentiable
def mean_squared_error(x: Array, t: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """MSE: y = mean over all N elements of (x - t)²

    Source:  documents 000 sec. 4.1.
    Shapes:  x (...); t (...) -> y ()
    Back:    dx = dy 2 (x - t) / N;  dt = -dx
    Raises:  ValueError if the shapes differ or there is no element to average.

    >>> y, back = mean_squared_error(array([1.0, 5.0]), array([0.0, 2.0]))
    >>> float(y), back(array(1.0))[0].tolist()
    (5.0, [1.0, 3.0])
    """
    if x.size == 0:
        raise ValueError("mean_squared_error: the mean of no element; give at least one")
    difference = x - t

    def back(dy: Array) -> tuple[Array, Array]:
        dx = difference * (dy * (2 / x.size))
        return dx, -dx

    return (difference * difference).mean(), back
