"""Normalisation by the root of the mean square."""

from __future__ import annotations

import math
from collections.abc import Callable

from refllm.backend import Array, equal_entries, known, namespace, overflow_is_expected, row_blocks
from refllm.differentiable import differentiable


@differentiable
def rms_norm(x: Array, g: Array, *, eps: float) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """T5-REL, RMS norm: y = g n,   n = x / sqrt(mean(x²) + eps)

    Layer norm without the shift and without the bias: the norm of T5 and Llama.
    Source:  Zhang & Sennrich 2019 (arXiv:1910.07467) sec. 4; Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1.
    Shapes:  x (..., C); g (C,) -> y (..., C)
    Back:    dn = g dy;  dx = r (dn - n mean(dn n)),  r = 1 / sqrt(mean(x²) + eps);  dg = Σ dy n
    Special: a row of zeros gives zeros, never NaN. Values whose squares overflow are scaled first.
    Raises:  ValueError if g is not (C,), C is 0, or eps is not positive.
    """
    C = x.shape[-1]
    if C == 0 or not eps > 0:
        raise ValueError(f"rms_norm: needs C >= 1 and eps > 0; got C = {C}, eps = {eps}")
    xp = namespace(x)
    rows = x.reshape(-1, C)
    y, n, r = xp.empty(rows.shape, x.dtype), xp.empty(rows.shape, x.dtype), xp.empty((len(rows), 1), x.dtype)
    mean = equal_entries(xp, C, 1 / C, x.dtype)  # x @ mean is mean(x)
    for xi, yi, ni, ri in row_blocks(rows, y, n, r):
        if known(xp.vdot(xi, xi) < math.inf):  # the sum of all squares; then none of them overflows
            square = xp.multiply(xi, xi, out=ni).dot(mean)[:, None]
            square += eps
            xp.divide(1, xp.sqrt(square, out=square), out=ri)
            xp.multiply(xi, ri, out=ni)
        else:
            with overflow_is_expected():
                square = (xi * xi).dot(mean)[:, None]
            size = xp.where(xp.isfinite(square), 1, abs(xi).max(axis=1, keepdims=True)).astype(x.dtype)
            c = xp.divide(xi, size, out=ni)
            ri[...] = 1 / xp.sqrt(((c * c) @ mean)[:, None] + eps / size / size)
            c *= ri
            ri /= size
        xp.multiply(ni, g, out=yi)

    def back(dy: Array) -> tuple[Array, Array]:
        drows = dy.reshape(-1, C)
        dx, dg, ones = xp.empty(drows.shape, dy.dtype), xp.zeros_like(g), equal_entries(xp, len(drows), 1, dy.dtype)
        g_mean = g / C  # z @ g_mean is mean(g z)
        for dyi, dxi, ni, ri, one in row_blocks(drows, dx, n, r, ones):
            t = dyi * ni
            dg += one @ t
            dn = xp.multiply(dyi, g, out=dxi)
            dn -= xp.multiply(ni, (t @ g_mean)[:, None], out=t)
            dn *= ri
        return dx.reshape(dy.shape), dg

    return y.reshape(x.shape), back
