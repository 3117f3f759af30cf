"""Affine maps of the last axis: with a bias, without one, and cut into heads."""

from __future__ import annotations

import math
from collections.abc import Callable

from refllm.backend import Array, equal_entries, namespace
from refllm.differentiable import differentiable
from refllm.heads import cut, side_by_side
from refllm.narrow import Narrow


@differentiable
def matmul(x: Array, W: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """LMHEAD, LINEAR without bias: y = x W

    Source:  documents 002 sec. 4.2 (h_t W); Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.4 for a tied W = Eᵀ.
    Shapes:  x (..., I); W (I, O) -> y (..., O)
    Back:    dx = dy Wᵀ;  dW = Σ over rows of xᵀ dy
    Raises:  ValueError if the width of x is not the height of W.

    >>> y, back = matmul(array([[1.0, 2.0]]), array([[3.0], [4.0]]))
    >>> y.tolist(), [g.tolist() for g in back(ones((1, 1)))]
    ([[11.0]], [[[3.0, 4.0]], [[1.0], [2.0]]])
    """
    return _product(x, W)


@differentiable
def linear(x: Array, W: Array, b: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """LINEAR: y = x W + b

    Source:  documents 002 sec. 3.1 step 3 (the two maps of the FFN), sec. 4.2 (h_t W + b).
    Shapes:  x (..., I); W (I, O); b (O,) -> y (..., O)
    Back:    dx = dy Wᵀ;  dW = Σ over rows of xᵀ dy;  db = Σ over rows of dy
    Raises:  ValueError if the width of x is not the height of W, or b is not (O,).

    >>> y, back = linear(array([[1.0, 2.0]]), array([[3.0], [4.0]]), array([5.0]))
    >>> y.tolist(), back(ones((1, 1)))[2].tolist()
    ([[16.0]], [1.0])
    """
    return _affine(x, W, b)


@differentiable
def heads(
    x: Array, W: Array, b: Array, *, heads: int, parts: int
) -> tuple[tuple[Array, ...], Callable[..., tuple[Array, Array, Array]]]:
    """MHA: the projection to queries, keys and values, y = x W + b cut into `parts` arrays of `heads` heads

    Column p H D + h D + d of y is entry d of head h of part p: parts = 3 gives q, k, v in that order.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.2; documents 002 sec. 5 (the code's view and transpose).
    Shapes:  x (..., T, I); W (I, parts*heads*D); b (parts*heads*D,) -> y[parts] (..., heads, T, D)
    Back:    that of LINEAR, after the heads are put side by side again.
    Raises:  ValueError if parts * heads does not divide the width of W.

    >>> x = array([[1.0, 2.0, 3.0, 4.0]])
    >>> (y,), back = heads(x, np.eye(4), zeros(4), parts=1, heads=2)  # a head has two neighbours
    >>> y.tolist()
    [[[1.0, 2.0]], [[3.0, 4.0]]]
    """
    y, back_affine = _affine(x, W, b)

    def back(*dparts: Array) -> tuple[Array, Array, Array]:
        return back_affine(side_by_side(dparts))

    return cut(y, heads=heads, parts=parts), back


def _rows(x: Array, width: int) -> Array:
    """All rows in one matrix. A shape with -1 would leave the number of rows open where they are empty."""
    return x.reshape(-1, width) if width else x.reshape(math.prod(x.shape[:-1]), 0)


def _product(x: Array, W: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """y = x W, for arrays that were checked."""
    rows = _rows(x, len(W))  # one product for the whole batch
    # a call of dot costs half as much as one of @, which a decoding step feels
    y = W.after(rows) if isinstance(W, Narrow) else rows.dot(W)

    def back(dy: Array) -> tuple[Array, Array]:
        dy = _rows(dy, W.shape[1])
        # dW takes the memory order of W: with W = Eᵀ, dWᵀ is then as contiguous as E
        dW = rows.T @ dy if W.flags.c_contiguous else (dy.T @ rows).T
        return (dy @ W.T).reshape(x.shape), dW

    return y.reshape(*x.shape[:-1], W.shape[1]), back


def _affine(x: Array, W: Array, b: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """y = x W + b, for arrays that were checked."""
    y, back_product = _product(x, W)
    y += b

    def back(dy: Array) -> tuple[Array, Array, Array]:
        dy = _rows(dy, len(b))
        ones = equal_entries(namespace(dy), len(dy), 1, dy.dtype)
        return *back_product(dy), ones @ dy  # a product sums rows up to three times as fast as sum(axis=0)

    return y, back
