"""Where an operation rounds nothing: numbers of few bits, powers of two, and nothing at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from refllm.backend import Array
from refllm.numbers.spread_value import Spread

SHORT = 2.0**8  # a number of eight significant bits is exact in every type, bfloat16 included


def of_one_type(parts: Sequence[Spread]) -> str | None:
    """The type that all parts are known to be numbers of; a short number is one of every type."""
    held = {x.held for x in parts if x.held or x.variance.any() or not is_short(x.value).all()}
    return held.pop() if len(held) == 1 else None


def is_short(x: Array) -> Array:
    """Where x has at most eight significant bits, 0 and infinities included."""
    mantissa = numpy.frexp(x)[0] * SHORT
    return (mantissa == numpy.rint(mantissa)) | numpy.isinf(x)


def is_nothing(x: Spread) -> Array:
    """Where x is exactly 0: adding it rounds nothing."""
    return (x.value == 0) & (x.variance == 0)


def is_power_of_two(x: Spread) -> Array:
    """Where x is exactly 0 or a power of two: a product with it is not rounded."""
    exact: Array = x.variance == 0
    if not exact.any():
        return exact
    mantissa = numpy.abs(numpy.frexp(x.value)[0])
    return exact & ((mantissa == 0.5) | (mantissa == 0))
