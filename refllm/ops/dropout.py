"""Dropout, with the draw as an argument."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array
from refllm.differentiable import differentiable


@differentiable
def dropout(x: Array, *, dropout_mask: Array, rate: float) -> tuple[Array, Callable[[Array], Array]]:
    """DROP: y = x m / (1 - rate), the inverted form: the expectation of y is x, and inference does nothing

    Randomness is data: m is `dropout_mask`, a boolean array, true with probability 1 - rate, drawn by the caller.
    Source:  Srivastava et al. 2014; documents 000 sec. 4.4 Q3.
    Shapes:  x (...); dropout_mask bool (...) -> y (...)
    Back:    dx = dy m / (1 - rate)
    Raises:  ValueError if rate is not in [0, 1) or dropout_mask is not boolean of x's shape.

    >>> dropout(array([1.0, 2.0, 3.0, 4.0]), dropout_mask=array([True, False, True, False]), rate=0.5)[0].tolist()
    [2.0, 0.0, 6.0, 0.0]
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate must be at least 0 and below 1, got {rate}")

    def scaled(z: Array) -> Array:
        z = z * dropout_mask
        z *= 1 / (1 - rate)
        return z

    return scaled(x), scaled
