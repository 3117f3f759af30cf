"""Normalisation by the root of the mean square."""

from __future__ import annotations

import math
from collections.abc import Callable

from refllm.backend import Array, equal_entries, known, namespace, row_blocks
from refllm.differentiable import differentiable
from refllm.ops.layer_norm import _mean_of_rows, _normalise_large


@differentiable
def rms_norm(x: Array, g: Array, *, eps: float) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """T5-REL, RMS norm: y = g n,   n = x / sqrt(mean(x²) + eps)

    Layer norm without the shift and without the bias: the norm of T5 and Llama.
    Source:  Zhang & Sennrich 2019 (arXiv:1910.07467) sec. 4; Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1.
    Shapes:  x (..., C); g (C,) -> y (..., C)
    Back:    dn = g dy;  dx = r (dn - n mean(dn n)),  r = 1 / sqrt(mean(x²) + eps);  dg = Σ dy n
    Special: a row of zeros gives zeros, never NaN. Values whose squares overflow are scaled first.
    Raises:  ValueError if g is not (C,), C is 0, or eps is not positive.

    >>> y, back = rms_norm(array([5.0, 5.0]), array([1.0, 3.0]), eps=1e-15)  # no mean is taken off
    >>> y.round(12).tolist()
    [1.0, 3.0]
    """
    C = x.shape[-1]
    if C == 0 or not eps > 0:
        raise ValueError(f"rms_norm: needs C >= 1 and eps > 0; got C = {C}, eps = {eps}")
    xp = namespace(x)
    rows = x.reshape(-1, C)
    y, n, r = xp.empty(rows.shape, x.dtype), xp.empty(rows.shape, x.dtype), xp.empty((len(rows), 1), x.dtype)
    mean = equal_entries(xp, C, 1 / C, x.dtype)  # x @ mean is mean(x)
    for xi, yi, ni, ri in row_blocks(rows, y, n, r):  # blocks of rows that a cache holds
        if known(xp.vdot(xi, xi) < math.inf):  # the sum of all squares; then none of them overflows
            square = _mean_of_rows(xp.multiply(xi, xi, out=ni), mean)
            square += eps
            xp.reciprocal(xp.sqrt(square, out=square), out=ri)  # r = 1 / sqrt(mean(x²) + eps)
            xp.multiply(xi, ri, out=ni)  # n = x r
        else:
            ni[...] = xi
            _normalise_large(ni, ri, mean, eps)
        xp.multiply(ni, g, out=yi)  # y = g n

    def back(dy: Array) -> tuple[Array, Array]:
        drows = dy.reshape(-1, C)
        dx, dg, ones = xp.empty(drows.shape, dy.dtype), xp.zeros_like(g), equal_entries(xp, len(drows), 1, dy.dtype)
        g_mean = g / C  # with dn = g dy:  t @ g_mean is mean(dn n)
        for dyi, dxi, ni, ri, one in row_blocks(drows, dx, n, r, ones):
            t = dyi * ni
            dg += one @ t  # dg = Σ dy n
            d = xp.multiply(dyi, g, out=dxi)  # dx = r (dn - n mean(dn n)), term by term
            d -= xp.multiply(ni, (t @ g_mean)[:, None], out=t)
            d *= ri
        return dx.reshape(dy.shape), dg

    return y.reshape(x.shape), back
