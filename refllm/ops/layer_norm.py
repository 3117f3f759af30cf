"""Layer normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable

from refllm.backend import Array, known, namespace, overflow_is_expected, row_blocks
from refllm.shapes import require


def layer_norm(
    x: Array, g: Array, b: Array, *, eps: float
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """LN: y = g n + b,   n = (x - mean(x)) / sqrt(var(x) + eps)

    Source:  Ba et al. 2016 (arXiv:1607.06450) sec. 3; documents 002 sec. 3.1 step 4. var is biased (divide by C).
    Shapes:  x (..., C); g (C,); b (C,) -> y (..., C)
    Back:    dn = g dy;  dx = r (dn - mean(dn) - n mean(dn n)),  r = 1 / sqrt(var + eps);  dg = Σ dy n;  db = Σ dy
    Special: a constant row gives y = b, never NaN. Values whose squares overflow are scaled first.
    Raises:  ValueError if g or b is not (C,), C is 0, or eps is not positive.
    """
    C = require("layer_norm", "x (..., C); g (C,); b (C,)", x, g, b)["C"]
    if C == 0 or eps <= 0:
        raise ValueError(f"layer_norm: needs C >= 1 and eps > 0; got C = {C}, eps = {eps}")
    xp = namespace(x)
    rows = x.reshape(-1, C)
    y, n, r = xp.empty(rows.shape, x.dtype), xp.empty(rows.shape, x.dtype), xp.empty((len(rows), 1), x.dtype)
    mean = xp.full(C, 1 / C, x.dtype)  # row sums as matrix-vector products: two to four times as fast as sum(axis=-1)
    for i in row_blocks(rows):
        c = xp.subtract(rows[i], rows[i, :1], out=n[i])  # a constant row is exactly 0 from here on
        c -= c.dot(mean)[:, None]  # dot is half as dear a call as @, which a decoding step feels
        if known(xp.vdot(c, c) < math.inf):  # the sum of all squares; then none of them overflows
            variance = (c * c).dot(mean)[:, None]
            variance += eps
            xp.divide(1, xp.sqrt(variance, out=variance), out=r[i])
            c *= r[i]
        else:
            with overflow_is_expected():
                variance = (c * c).dot(mean)[:, None]
            size = xp.where(xp.isfinite(variance), 1, abs(c).max(axis=1, keepdims=True)).astype(x.dtype)
            c /= size
            r[i] = 1 / xp.sqrt(((c * c) @ mean)[:, None] + eps / size / size)
            c *= r[i]
            r[i] /= size
        xp.multiply(c, g, out=y[i])
        y[i] += b

    def back(dy: Array) -> tuple[Array, Array, Array]:
        drows = dy.reshape(-1, C)
        dx, dg, ones = xp.empty(drows.shape, dy.dtype), xp.zeros_like(g), xp.ones(len(drows), dy.dtype)
        g_mean = g / C  # z @ g_mean is mean(g z)
        for i in row_blocks(drows):
            t = drows[i] * n[i]
            dg += ones[i] @ t
            dn = xp.multiply(drows[i], g, out=dx[i])
            dn -= (drows[i] @ g_mean)[:, None]
            dn -= xp.multiply(n[i], (t @ g_mean)[:, None], out=t)
            dn *= r[i]
        return dx.reshape(dy.shape), dg, ones @ drows

    return y.reshape(x.shape), back
