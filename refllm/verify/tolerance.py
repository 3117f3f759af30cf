"""How near is near enough, element by element, derived from the case and not chosen.

    |y - t| <= C c (u (S + |t| + max|t| along the last axis) + 2^-53 W) + tiny

S is the condition of the case, u the unit roundoff of the declared dtype, W the condition of what is formed in float64
in every run (0 for most cases), tiny the smallest normal number of the dtype: what may be flushed to zero. c is 1/4 for
bfloat16 and 1 otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy

from refllm.backend import Array
from refllm.verify.case import Truth

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}
TINY = {"float64": 2.0**-1022, "float32": 2.0**-126, "tf32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
# What C leaves beyond one rounding of each number is for a library's functions, which are off by some units of float32
# or float64. To the 8 bits of bfloat16 they are exact.
SHARE = {"float64": 1.0, "float32": 1.0, "tf32": 1.0, "float16": 1.0, "bfloat16": 0.25}
LARGEST = {
    "float64": math.ldexp(2 - 2**-52, 1023), "float32": math.ldexp(2 - 2**-23, 127),
    "tf32": math.ldexp(2 - 2**-10, 127), "float16": 65504.0, "bfloat16": math.ldexp(2 - 2**-7, 127),
}  # fmt: skip


@dataclass(frozen=True)
class Worst:
    """The element that is furthest from its truth, in units of its tolerance."""

    index: tuple[int, ...]
    got: float
    truth: float
    tolerance: float
    ratio: float  # error / tolerance
    ulp: float  # the error in units of the spacing of the dtype's numbers at the truth


def tolerance(truth: Truth, dtype: str, C: float) -> Array:
    """The largest error allowed of each element: 0 where the truth is exact (an integer, a boolean) or not finite."""
    if truth.condition is None:
        return numpy.zeros(truth.value.shape)
    finite = numpy.isfinite(truth.value)
    size = numpy.where(finite, numpy.abs(truth.value), 0)  # beside an infinity the numbers keep their own tolerance
    row = size.max(axis=-1, keepdims=True) if size.ndim and size.shape[-1] else size
    allowed = C * SHARE[dtype] * UNIT[dtype] * (condition(truth, dtype) + size + row) + TINY[dtype]
    allowed = allowed if truth.most is None else numpy.minimum(allowed, truth.most)
    return numpy.where(finite, allowed, 0)


def condition(truth: Truth, dtype: str) -> Array:
    """S, and W in the same units, of a truth that has them."""
    if truth.condition is None:
        return numpy.zeros(truth.value.shape)
    return truth.condition if truth.wide is None else truth.condition + truth.wide * (UNIT["float64"] / UNIT[dtype])


def ratios(y: Array, truth: Truth, dtype: str, C: float) -> Array:
    """Error / tolerance of each element, as float64: 0 where equal, infinite where one of the two is NaN, and where
    nothing is allowed."""
    return _allowed_and_ratios(y, truth, dtype, C)[1]


def _allowed_and_ratios(y: Array, truth: Truth, dtype: str, C: float) -> tuple[Array, Array]:
    """What is allowed of each element, and its error as a share of that."""
    value = truth.value.astype("float64", copy=False)
    got = y.astype("float64", copy=False)
    with numpy.errstate(all="ignore"):
        allowed = tolerance(truth, dtype, C)
        ratio = numpy.abs(got - value) / allowed
    ratio = numpy.where(numpy.isnan(ratio), numpy.inf, ratio)
    return allowed, numpy.where((got == value) | (numpy.isnan(got) & numpy.isnan(value)), 0.0, ratio)


def worst(y: Array, truth: Truth, dtype: str, C: float) -> Worst | None:
    """The worst element; None if there is no element."""
    allowed, ratio = _allowed_and_ratios(y, truth, dtype, C)
    if not ratio.size:
        return None
    index = tuple(int(i) for i in numpy.unravel_index(int(ratio.argmax()), ratio.shape))
    got, value = float(y[index]), float(truth.value[index])
    return Worst(index, got, value, float(allowed[index]), float(ratio[index]), ulp(got, value, dtype))


def ulp(got: float, truth: float, dtype: str) -> float:
    """The error in units of the spacing of the dtype's numbers at the truth."""
    if got == truth or (math.isnan(got) and math.isnan(truth)):
        return 0.0
    if not math.isfinite(got) or not math.isfinite(truth):
        return math.inf
    exponent = math.frexp(max(abs(truth), TINY[dtype]))[1]  # truth = m 2^exponent with m in [1/2, 1)
    return abs(got - truth) / (2 * UNIT[dtype] * 2.0 ** (exponent - 1))
