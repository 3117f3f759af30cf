"""What edited text says of digits and of whole numbers: how a number is rounded, or that it is not."""

from __future__ import annotations

import math
from typing import Any

import numpy

from refllm.backend import Array


def digits(x: float, n: int) -> float:
    """A number with n significant digits."""
    return float(f"{x:.{n - 1}e}")


def cut_off(x: float, n: int) -> float:
    """A number whose digits end after n significant ones, without rounding."""
    digit, _, exponent = f"{x:.17e}".partition("e")
    return float(f"{digit[: n + 1 + digit.startswith('-')]}e{exponent}")


def rounded_down(x: Array | float) -> Array:
    """The largest whole number that is not above x."""
    return numpy.floor(x).astype(int)


def rounded_up(x: Array | float) -> Array:
    """The smallest whole number that is not below x."""
    return numpy.ceil(x).astype(int)


def to_zero(x: Array | float) -> Array:
    """x without what stands behind the point, as `int` does it."""
    return numpy.trunc(x).astype(int)


def halves_up(x: Array | float) -> Array:
    """The nearest whole number, of two the larger one."""
    return numpy.floor(numpy.asarray(x) + 0.5).astype(int)


def halves_away(x: Array | float) -> Array:
    """The nearest whole number, of two the one farther from 0."""
    return (numpy.sign(x) * numpy.floor(numpy.abs(x) + 0.5)).astype(int)


def passing(x: Array, limit: float) -> float:
    """The place, between whole ones, at which numbers that fall by a constant factor pass a limit. Places behind both
    ends are the last before and the first behind."""
    first, last = float(x[0]), float(x[-1])
    place = math.log(first / limit) / math.log(first / last) * (len(x) - 1)
    return min(max(place, -1.0), float(len(x)))


WORDS: dict[str, Any] = {
    "cut_off": cut_off,
    "digits": digits,
    "halves_away": halves_away,
    "halves_up": halves_up,
    "passing": passing,
    "rounded_down": rounded_down,
    "rounded_up": rounded_up,
    "to_zero": to_zero,
}
