"""Functions of numbers in two doubles each, asked of mpmath number by number, to 40 digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy
from mpmath import mp, mpf

from refllm.backend import Array
from refllm.numbers.two_doubles import Pair

DIGITS = 40
Uncertain: TypeAlias = tuple[Array, Array, Array]  # high part, low part, radius


def of_each(f: Callable[[Any], Any], x: Pair) -> Pair:
    hi, lo = numpy.empty(x[0].shape), numpy.empty(x[0].shape)
    with mp.workdps(DIGITS):
        for i in numpy.ndindex(hi.shape):
            hi[i], lo[i] = _as_pair(f(_number(x, i)))
    return hi, lo


def powers(x: Uncertain, n: Uncertain) -> tuple[Pair, Array]:
    """x to the n, and what the radii of both carry into it."""
    both = numpy.broadcast_arrays(*x, *n)
    base_of, exponent_of, radii = (both[0], both[1]), (both[3], both[4]), (both[2], both[5])
    hi, lo, carried = (numpy.empty(both[0].shape) for _ in range(3))
    with mp.workdps(DIGITS):
        for i in numpy.ndindex(hi.shape):
            base, exponent = _number(base_of, i), _number(exponent_of, i)
            y = mp.power(base, exponent)
            hi[i], lo[i] = _as_pair(y)
            slopes = (exponent * y / base if base else 0, y * mp.log(abs(base)) if base else 0)
            carried[i] = 2 * float(sum(abs(s) * mpf(float(r[i])) for s, r in zip(slopes, radii, strict=True)))
    return (hi, lo), carried


def pi() -> tuple[float, float]:
    with mp.workdps(DIGITS):
        return _as_pair(+mp.pi)


def _number(x: Pair, i: tuple[int, ...]) -> Any:
    return mpf(float(x[0][i])) + mpf(float(x[1][i]))


def _as_pair(y: Any) -> tuple[float, float]:
    hi = float(y)
    return hi, float(y - mpf(hi)) if numpy.isfinite(hi) else 0.0
