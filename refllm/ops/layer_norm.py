"""Layer normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable

from refllm.backend import Array, equal_entries, known, namespace, overflow_is_expected, row_blocks
from refllm.differentiable import differentiable

CHAIN = 512  # numbers that are added up one after the other


@differentiable
def layer_norm(
    x: Array, g: Array, b: Array, *, eps: float
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """LN: y = g n + b,   n = (x - mean(x)) / sqrt(var(x) + eps)

    Source:  Ba et al. 2016 (arXiv:1607.06450) sec. 3; documents 002 sec. 3.1 step 4. var is biased (divide by C).
    Shapes:  x (..., C); g (C,); b (C,) -> y (..., C)
    Back:    dn = g dy;  dx = r (dn - mean(dn) - n mean(dn n)),  r = 1 / sqrt(var + eps);  dg = Σ dy n;  db = Σ dy
    Special: a constant row gives y = b, never NaN. Values whose squares overflow are scaled first.
    Raises:  ValueError if g or b is not (C,), C is 0, or eps is not positive.

    >>> y, back = layer_norm(array([1.0, 3.0]), array([5.0, 5.0]), array([10.0, 10.0]), eps=1e-15)
    >>> y.round(12).tolist(), abs(back(ones(2))[0]).round(12).tolist()  # to shift x changes nothing
    ([5.0, 15.0], [0.0, 0.0])
    """
    C = x.shape[-1]
    if C == 0 or not eps > 0:
        raise ValueError(f"layer_norm: needs C >= 1 and eps > 0; got C = {C}, eps = {eps}")
    xp = namespace(x)
    rows = x.reshape(-1, C)
    y, n, r = xp.empty(rows.shape, x.dtype), xp.empty(rows.shape, x.dtype), xp.empty((len(rows), 1), x.dtype)
    mean = equal_entries(xp, C, 1 / C, x.dtype)  # x @ mean is mean(x)
    # In place, in blocks of rows that a cache holds: ni is first c = x - mean(x), then n = c r.
    for xi, yi, ni, ri in row_blocks(rows, y, n, r):
        c = xp.subtract(xi, xi[:, :1], out=ni)  # the mean is taken of x - x_1: a constant row is then exactly 0
        c -= _mean_of_rows(c, mean)
        c -= _mean_of_rows(c, mean)  # what rounding has left of it: much, where x_1 is far from the others
        if known(xp.vdot(c, c) < math.inf):  # the sum of all squares; then none of them overflows
            variance = _mean_of_rows(c * c, mean)
            variance += eps
            xp.reciprocal(xp.sqrt(variance, out=variance), out=ri)  # r = 1 / sqrt(mean(c²) + eps)
            c *= ri  # n = c r
        else:
            _normalise_large(c, ri, mean, eps)
        xp.multiply(c, g, out=yi)  # y = g n + b
        yi += b

    def back(dy: Array) -> tuple[Array, Array, Array]:
        drows = dy.reshape(-1, C)
        dx, dg, ones = xp.empty(drows.shape, dy.dtype), xp.zeros_like(g), equal_entries(xp, len(drows), 1, dy.dtype)
        g_mean = g / C  # with dn = g dy:  dy @ g_mean is mean(dn), and t @ g_mean is mean(dn n)
        for dyi, dxi, ni, ri, one in row_blocks(drows, dx, n, r, ones):
            t = dyi * ni
            dg += one @ t  # dg = Σ dy n
            d = xp.multiply(dyi, g, out=dxi)  # dx = r (dn - mean(dn) - n mean(dn n)), term by term
            d -= (dyi @ g_mean)[:, None]
            d -= xp.multiply(ni, (t @ g_mean)[:, None], out=t)
            d *= ri
        return dx.reshape(dy.shape), dg, ones @ drows

    return y.reshape(x.shape), back


def _mean_of_rows(x: Array, mean: Array) -> Array:
    """x @ mean as a column. A long row is not added up in one chain, whose roundings, where numbers are alike, have the
    same sign. A call of dot costs half as much as one of @, which a decoding step feels."""
    return x.mean(axis=1, keepdims=True) if len(mean) > CHAIN else x.dot(mean)[:, None]


def _normalise_large(c: Array, r: Array, mean: Array, eps: float) -> None:
    """c becomes n = c r where squares of c may overflow: such a row is divided by its largest entry first. In place."""
    xp = namespace(c)
    with overflow_is_expected():
        variance = _mean_of_rows(c * c, mean)
    size = xp.where(xp.isfinite(variance), 1, abs(c).max(axis=1, keepdims=True)).astype(c.dtype)
    c /= size
    r[...] = 1 / xp.sqrt(_mean_of_rows(c * c, mean) + eps / size / size)
    c *= r
    r /= size
