"""Arithmetic on hi + lo: the algorithms of Joldes, Muller & Popescu 2017, for arrays, without fused operations.

What each is off by stands in double_double.py. Arguments and results are pairs (hi, lo) with |lo| <= ulp(hi) / 2.
"""

from __future__ import annotations

import numpy

from refllm.backend import Array

U2 = 2.0**-106  # u², u being the roundoff of float64
_SPLITTER = float((1 << 27) + 1)

Pair = tuple[Array, Array]


def split_sum(a: Array, b: Array) -> Pair:
    """a + b, exactly (Knuth)."""
    s = a + b
    v = s - a
    return s, (a - (s - v)) + (b - v)


def ordered_sum(a: Array, b: Array) -> Pair:
    """a + b, exactly, where |a| >= |b| or a is 0 (Dekker)."""
    s = a + b
    return s, b - (s - a)


def _halves(a: Array) -> Pair:
    """a as the sum of two numbers of 26 bits (Veltkamp)."""
    t = _SPLITTER * a
    high = t - (t - a)
    return high, a - high


def split_product(a: Array, b: Array) -> Pair:
    """a b, exactly (Dekker)."""
    p = a * b
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


def add(x: Pair, y: Pair) -> Pair:
    """Algorithm 6."""
    (s, s1), (t, t1) = split_sum(x[0], y[0]), split_sum(x[1], y[1])
    v, v1 = ordered_sum(s, s1 + t)
    return ordered_sum(v, t1 + v1)


def multiply(x: Pair, y: Pair) -> Pair:
    """Algorithm 10."""
    p, p1 = split_product(x[0], y[0])
    return ordered_sum(p, p1 + (x[0] * y[1] + x[1] * y[0]))


def multiply_by(x: Pair, t: Array) -> Pair:
    """Algorithm 7: by a double. At most 2 u² off."""
    c, c1 = split_product(x[0], t)
    s, s1 = ordered_sum(c, x[1] * t)
    return ordered_sum(s, s1 + c1)


def divide(x: Pair, y: Pair) -> Pair:
    """Algorithm 17."""
    t = x[0] / y[0]
    r, r1 = multiply_by(y, t)
    return ordered_sum(t, ((x[0] - r) + (x[1] - r1)) / y[0])


def square_root(x: Pair) -> Pair:
    """Algorithm 8 of Lefèvre et al.; 0 of 0."""
    s = numpy.sqrt(x[0])
    p, p1 = split_product(s, s)
    rest = ((x[0] - p) - p1 + x[1]) / numpy.where(s == 0, 1, 2 * s)
    return ordered_sum(s, rest)
