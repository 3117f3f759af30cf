"""The floating-point types that intermediate values are stored and summed in.

FORMATS["bfloat16"].unit          the unit roundoff, 2^-8
FORMATS["float16"].holds(x)       where x is a number of the type
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy

from refllm.backend import Array


@dataclass(frozen=True)
class Format:
    """A type of `bits` significant bits; `lowest` is the exponent of its smallest normal number, `largest` its largest.

    A number below the smallest normal one keeps what digits the type has for it (`gradual`), or it may become 0, as in
    hardware that flushes: nobody flushes float16, in which there is not much else.
    """

    name: str
    bits: int
    lowest: int
    largest: float
    gradual: bool = False

    @property
    def unit(self) -> float:
        """The unit roundoff: how far rounding moves a number at most, in parts of it."""
        return math.ldexp(1.0, -self.bits)

    @property
    def smallest(self) -> float:
        """The smallest normal number."""
        return math.ldexp(1.0, self.lowest)

    def holds(self, x: Array) -> Array:
        """Where x, an array of float64, is a number of the type; infinities and NaN are."""
        with numpy.errstate(all="ignore"):
            exponents = numpy.maximum(numpy.frexp(x)[1] - self.bits, self.lowest + 1 - self.bits)
            digits = numpy.ldexp(x, -exponents)
            whole = (digits == numpy.rint(digits)) & (numpy.abs(x) <= self.largest)
        found: Array = whole | ~numpy.isfinite(x)
        return found


def _format(name: str, bits: int, exponents: int, *, gradual: bool = False) -> Format:
    highest = 2 ** (exponents - 1)  # the exponent above the largest number's
    return Format(name, bits, 2 - highest, math.ldexp(2 - math.ldexp(1, 1 - bits), highest - 1), gradual)


FORMATS = {
    format.name: format
    for format in (
        _format("float64", 53, 11), _format("float32", 24, 8), _format("tf32", 11, 8),
        _format("float16", 11, 5, gradual=True), _format("bfloat16", 8, 8),
    )
}  # fmt: skip
