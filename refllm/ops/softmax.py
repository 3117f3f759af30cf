"""Softmax and its logarithm, over the last axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.backend import Array, namespace
from refllm.differentiable import differentiable


@differentiable
def softmax(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """SMX: y_i = exp(x_i) / Σ_j exp(x_j)

    Source:  documents 001 ch. 4 sec. 1, 002 sec. 3.1, 003 sec. 4.1, 004 sec. 4.2.
    Shapes:  x (..., V) -> y (..., V)
    Back:    dx = y (dy - Σ_j y_j dy_j)
    Special: the row maximum is subtracted first, so that nothing overflows. -inf gives exactly 0; a row of only -inf
             gives zeros, not NaN: there is nothing to choose. +inf has no meaning here and gives NaN.
    Raises:  ValueError if x is not floating-point or the axis is empty.

    >>> y, back = softmax(array([[0.0, np.log(3)], [-np.inf, -np.inf]]))
    >>> y.round(12).tolist(), back(ones((2, 2))).round(12).tolist()  # to shift a row changes nothing
    ([[0.25, 0.75], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]])
    """
    xp = namespace(x)
    y = xp.exp(x - _finite_for_nothing(xp, _row_maximum(x, "softmax")))
    total = y.sum(axis=-1, keepdims=True)
    y /= xp.where(total == 0, 1, total).astype(x.dtype)

    def back(dy: Array) -> Array:
        dx = dy * y
        dx -= y * dx.sum(axis=-1, keepdims=True)
        return dx

    return y, back


@differentiable
def log_softmax(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """SMX: y_i = x_i - log Σ_j exp(x_j)

    Source:  documents 002 sec. 3.3 (log P); the logarithm of SMX without its rounding: never log(softmax(x)).
    Shapes:  x (..., V) -> y (..., V)
    Back:    dx = dy - softmax(x) Σ_j dy_j
    Special: shifted by the row maximum; -inf stays -inf, and its gradient is that of the limit, 0 for the others.
    Raises:  ValueError if x is not floating-point or the axis is empty.

    >>> log_softmax(array([[0.0, 1000.0]]))[0].tolist()  # the logarithm of softmax would be -inf
    [[-1000.0, 0.0]]
    """
    xp = namespace(x)
    y = x - _finite_for_nothing(xp, _row_maximum(x, "log_softmax"))
    total = xp.exp(y).sum(axis=-1, keepdims=True)
    y -= xp.log(xp.where(total == 0, 1, total)).astype(x.dtype)

    def back(dy: Array) -> Array:
        return dy - xp.exp(y) * dy.sum(axis=-1, keepdims=True)

    return y, back


def _row_maximum(x: Array, operation: str) -> Array:
    if x.shape[-1] == 0:
        raise ValueError(f"{operation}: x (..., V) needs at least one entry in its last axis; got shape {x.shape}")
    return x.max(axis=-1, keepdims=True)


def _finite_for_nothing(xp: Any, top: Array) -> Array:
    """The maxima, 0 for that of a row of only -inf, which no finite shift would change."""
    return xp.where(xp.isneginf(top), 0, top).astype(top.dtype)
