"""e^x in two doubles, off by at most 2^-94 of it.

x = k log 2 + r with |r| <= 0.347, t = r / 512, e^x = 2^k (1 + s) where s = e^r - 1 comes from e^t - 1 by nine steps
e^2t - 1 = s (2 + s). With u = 2^-53, to first order:

    k log 2 is off by 2 u² of itself and k 2^-107 from the constant: for |x| <= 746 by less than 2^-95 together
    e^t - 1 = t (1 + t/2 + ... + t⁸/9!), |t| < 2^-10.5: what is left out is below 2^-115 of it; Horner's last step is
        off by 4 u², those before are multiplied by |t|, the product by 8 u²: below 16 u² of it
    a step s (2 + s) adds at most 4 u² + 8 u², and multiplies what was there by 1 + |s / (2 + s)|; the product of the
        nine is below e^Σ|s| < 2.4, as the |s| halve backwards from 0.42: below 2.4 (16 + 9 · 12) u² < 2^-97.5 of s
    1 + s is at least 0.7, so that this is below 2^-98 of it, and the sum adds 4 u²

and 2^-98 + 4 u² + 2^-95 is below 2^-94. Scaling by 2^k is exact but where it underflows: LOST.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy

from refllm.numbers.two_doubles import Pair, add, multiply, multiply_by

ERROR = 2.0**-94
LOST = 2.0**-1070
_HALVINGS, _TERMS, _FARTHEST = 9, 9, 746.0
_LOG2 = (0.6931471805599453, 2.3190468138462996e-17)
_BLOCK = 1 << 14  # numbers that a cache holds with all that is made of them


def _two(x: Fraction) -> tuple[float, float]:
    hi = float(x)
    return hi, float(x - Fraction(hi))


_COEFFICIENTS = [_two(Fraction(1, math.factorial(n))) for n in range(1, _TERMS + 1)]


def exp(x: Pair) -> Pair:
    """Block by block. 0 far below, and infinite far above."""
    hi, lo = numpy.empty(x[0].shape), numpy.empty(x[0].shape)
    flat = [numpy.ascontiguousarray(part).reshape(-1) for part in x]
    out = [hi.reshape(-1), lo.reshape(-1)]
    for start in range(0, hi.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        out[0][block], out[1][block] = _exp((flat[0][block], flat[1][block]))
    return hi, lo


def _exp(x: Pair) -> Pair:
    inside, above = abs(x[0]) <= _FARTHEST, x[0] > _FARTHEST
    x = (numpy.where(inside, x[0], 0.0), numpy.where(inside, x[1], 0.0))
    k = numpy.rint(x[0] / _LOG2[0])
    one = numpy.ones(k.shape)
    r = add(x, multiply_by((-_LOG2[0] * one, -_LOG2[1] * one), k))
    t = (numpy.ldexp(r[0], -_HALVINGS), numpy.ldexp(r[1], -_HALVINGS))
    s = multiply(t, _horner(t))
    for _ in range(_HALVINGS):
        s = multiply(s, add((2 * one, 0 * one), s))
    y = add((one, 0 * one), s)
    hi, lo = (numpy.where(inside, numpy.ldexp(part, k.astype(int)), 0.0) for part in y)
    return numpy.where(above, numpy.inf, hi), lo


def _horner(t: Pair) -> Pair:
    one = numpy.ones(t[0].shape)
    q = (_COEFFICIENTS[-1][0] * one, _COEFFICIENTS[-1][1] * one)
    for hi, lo in reversed(_COEFFICIENTS[:-1]):
        q = add((hi * one, lo * one), multiply(q, t))
    return q
