"""Normalisation of every row: by its mean and standard deviation, or by the root of its mean square."""

from refllm.spec.array import Array, Pullback, mean, rows, sqrt


def layer_norm(x: Array, g: Array, b: Array, *, eps: float) -> tuple[Array, Pullback]:
    """LN: y = g n + b,   n = (x - mean(x)) / sqrt(var(x) + eps)

    The variance is biased: divided by C.
    Source:  Ba et al. 2016 (arXiv:1607.06450) sec. 3; documents 002 sec. 3.1 step 4.
    Shapes:  x (..., C); g (C,); b (C,) -> y (..., C)
    Back:    with c = x - mean(x),  r = 1 / sqrt(mean(c²) + eps),  n = c r  and  dn = g dy:
             ∂r/∂c_i = -r³ c_i / C   hence   dc = r dn - r³ c mean(dn c) = r (dn - n mean(dn n))
             ∂c_j/∂x_i = [i = j] - 1/C   hence   dx = dc - mean(dc) = r (dn - mean(dn) - n mean(dn n)), as mean(n) = 0

    >>> layer_norm(array([[1., 2., 3.]]), ones(3), zeros(3), eps=0.)[0]
    array([[-1.22474487,  0.        ,  1.22474487]])
    """
    c = x - mean(x)
    r = 1 / sqrt(mean(c * c) + eps)
    n = c * r
    y = g * n + b

    def layer_norm_back(dy: Array) -> tuple[Array, Array, Array]:
        db, dg, dn = rows(dy), rows(dy * n), dy * g
        dx = r * (dn - mean(dn) - n * mean(dn * n))
        return dx, dg, db

    return y, layer_norm_back


def rms_norm(x: Array, g: Array, *, eps: float) -> tuple[Array, Pullback]:
    """T5-REL, RMS norm: y = g n,   n = x / sqrt(mean(x²) + eps)

    Source:  Zhang & Sennrich 2019 (arXiv:1910.07467) sec. 4; Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1.
    Shapes:  x (..., C); g (C,) -> y (..., C)
    Back:    as in `layer_norm` without the mean:  dn = g dy,  dx = r (dn - n mean(dn n)),  dg = Σ dy n

    >>> rms_norm(array([[3., 4.]]), ones(2), eps=0.)[0]
    array([[0.84852814, 1.13137085]])
    """
    r = 1 / sqrt(mean(x * x) + eps)
    n = x * r

    def rms_norm_back(dy: Array) -> tuple[Array, Array]:
        dn = dy * g
        return r * (dn - n * mean(dn * n)), rows(dy * n)

    return g * n, rms_norm_back
