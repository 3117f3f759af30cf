"""Where a token stands: the sinusoidal code, and a row of a table added to each token."""

from __future__ import annotations

import math
from collections.abc import Callable

from refllm.backend import Array, namespace, scatter_add
from refllm.differentiable import differentiable
from refllm.fit import require_indices


@differentiable
def sinusoidal(p: Array, *, width: int) -> tuple[Array, Callable[[Array], Array]]:
    """PE-SIN: y(p, 2i) = sin(p / 10000^(2i / C)),   y(p, 2i + 1) = cos(the same),   C = width

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.5; documents 003 sec. 4.1 (erratum E5: not
             sin(p/√d) + cos(p/√d), which is one number for all dimensions).
    Shapes:  p (...) -> y (..., width)
    Back:    dp = Σ_i ω_i (dy(2i) cos(p ω_i) - dy(2i + 1) sin(p ω_i)),   ω_i = 10000^(-2i / C)
    Special: an odd width ends with a sine. Angles are formed in float64: at p = 10000 a float32 angle has three digits.
    Raises:  ValueError if p is not floating-point or the width is not positive.

    >>> sinusoidal(array([0.0]), width=4)[0].tolist()
    [[0.0, 1.0, 0.0, 1.0]]
    >>> y = sinusoidal(array([3.0, 8.0]), width=4)[0]
    >>> (y**2).sum(axis=1).round(12).tolist()  # every code has the length √(C/2)
    [2.0, 2.0]
    """
    xp = namespace(p)
    omega = xp.exp(xp.arange(0, width, 2, dtype="float64") * (-math.log(10000) / width))
    angle = p.astype("float64")[..., None] * omega
    sin, cos = xp.sin(angle), xp.cos(angle)
    y = xp.empty((*p.shape, width), p.dtype)
    y[..., 0::2], y[..., 1::2] = sin, cos[..., : width // 2]

    def back(dy: Array) -> Array:
        slope = dy[..., 0::2] * cos
        slope[..., : width // 2] -= dy[..., 1::2] * sin[..., : width // 2]
        return (slope @ omega).astype(p.dtype)

    return y, back


@differentiable
def add_positions(x: Array, P: Array, *, positions: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """PE-LRN: y = x + P[positions]: row `positions[t]` of the table is added to token t

    The table is learned (BERT, GPT) or holds PE-SIN. It has one row per position (erratum E12: not one per word).
    Source:  Devlin et al. 2019 sec. 3; Radford et al. 2018 sec. 3.1; documents 003 sec. 4.3 (code).
    Shapes:  x (..., C); P (S, C); positions end of (...) in [0, S) -> y (..., C)
    Back:    dx = dy;  dP[s] = Σ of dy over the tokens at position s
    Special: positions may lack leading axes of x: (T,) serves every sequence of a batch (B, T, C).
    Raises:  IndexError if a position is not in [0, S).

    >>> y, back = add_positions(zeros((2, 1)), array([[1.0], [2.0], [4.0]]), positions=array([2, 0]))
    >>> y.tolist(), back(ones((2, 1)))[1].tolist()
    ([[4.0], [1.0]], [[1.0], [0.0], [1.0]])
    """
    require_indices("add_positions", positions=(positions, len(P)))
    shared = x.ndim - 1 - positions.ndim  # leading axes of x that positions lacks

    def back(dy: Array) -> tuple[Array, Array]:
        dP = namespace(P).zeros_like(P)
        rows = dy.reshape(math.prod(x.shape[:shared]), *positions.shape, P.shape[1]).sum(axis=0)
        scatter_add(dP, positions.reshape(-1), rows.reshape(-1, P.shape[1]))
        return dy.copy(), dP

    return x + P[positions], back
