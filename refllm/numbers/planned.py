"""The arithmetic of a plan: which type each sum is added up in, and what storing a value in a type does to it.

Planned(..., sums={"over rows": Accumulator("bfloat16")})        the gradient of a bias is added up in bfloat16
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy

from refllm.backend import Array
from refllm.numbers.blockwise import numbers
from refllm.numbers.formats import FORMATS, Format
from refllm.numbers.spread import Arithmetic
from refllm.numbers.spread_value import Source, Spread

CHAIN = 1 << 20  # terms that one accumulator takes: all of a sum, as in a plain loop
KEPT = 256  # terms of a mean that is kept up to date term by term, where a sum would round nothing
SUMS = ("products", "along rows", "over rows", "scattered")  # kinds of sums; `scattered` adds rows up by index
_FOURTH = 3.0  # mean of ξ⁴, for ξ of variance 1 that is normal
_LARGE, _REACH = 2.0**-9, 3.0  # from which error on a function is not straight, and as how many deviations it counts


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """What one kind of sum is added up in: the type, the most terms of one accumulator, and of how many terms the sum
    is formed in float32 before it is added in that type (0: of one)."""

    dtype: str
    chain: int = CHAIN
    block: int = 0


@dataclasses.dataclass(frozen=True)
class Planned(Arithmetic):
    """The arithmetic of the type that sums are accumulated in; values that are stored are rounded to their own type.

    Variances are absolute. Where a value overflows the type that it is stored in, an implementation goes on with an
    infinity, and of what depends on it nothing can be said: the variance is infinite there.
    """

    factors: str | None = None
    carrier: str = "float32"  # of the outputs
    products: str | None = None  # of the results of matrix products, where every value is stored
    means: str | None = None  # in which the mean of a row is kept for the pullback
    sums: Mapping[str, Accumulator] = dataclasses.field(default_factory=dict)  # by kind; else those of the arithmetic
    accumulator: Accumulator | None = None  # of the sum in hand

    def steepness(self, f: Callable[[Array], Array], x: Spread, slope: Array) -> Array:
        """The largest mean slope about x, where its error is too large to go by the derivative."""
        deviations = numpy.sqrt(x.variance)
        if not (deviations > _LARGE).any():
            return slope
        reach = _REACH * deviations
        mean = numpy.abs(f(x.value + reach) - f(x.value - reach)) / (2 * reach)
        found: Array = numpy.where(deviations > _LARGE, numpy.fmax(numpy.abs(slope), mean), slope)
        return found

    def stored(self, x: Any, dtype: str) -> Any:
        """x as a number of that type. One that the arithmetic has rounded itself may still be beyond it."""
        if not isinstance(x, Spread) or x.held == dtype:
            return x
        if FORMATS[dtype].unit > self.unit:
            own = numbers(lambda part: part.own + _of_storing(part, FORMATS[dtype]), x)
            return Spread(x.value, own, self, dtype, x.shared, x.kinds)
        further = numbers(lambda part: numpy.where(_beyond(part, FORMATS[dtype]), math.inf, 0.0), x)
        return Spread(x.value, x.own + further, self, x.held, x.shared, x.kinds) if further.any() else x

    def times(self, a: Spread, b: Spread) -> Spread:
        """Of what two factors share, c ξ and d ξ, the product has c d ξ² besides: it may be all that is left where the
        rest cancels."""
        y = super().times(a, b)
        common = [source for source in a.shared if source in b.shared and a is not b]
        if not common:
            return y

        def with_second(y: Spread, a: Spread, b: Spread) -> Array:
            second = sum(a.shared[source] ** 2 * b.shared[source] ** 2 for source in common)
            return y.own + numpy.where(numpy.isfinite(y.value), _FOURTH * second, 0)

        with numpy.errstate(all="ignore"):
            return Spread(y.value, numbers(with_second, y, a, b), self, None, y.shared, y.kinds)

    def over(self, a: Spread, b: Spread) -> Spread:
        """Of a divisor that may be near to 0 nothing is known, and what it divides may be anything."""
        y = super().over(a, b)
        with numpy.errstate(all="ignore"):
            nearest = 1 - _REACH * numpy.sqrt(b.variance) / numpy.abs(b.value)
            if not (nearest < 1 - _LARGE).any():
                return y
            more = y.value / b.value * numpy.sqrt(b.variance) * (1 / numpy.fmax(nearest, 0) - 1)
            further = numpy.where((b.variance == 0) | (y.value == 0), 0, more * more)
        return Spread(y.value, y.own + further, self, None, y.shared, y.kinds)

    def adding(self, level: int) -> tuple[int, float]:
        own = self.accumulator
        if own is None or (own.block and not level):
            return own.block if own else self.chain, self.of_rounding(1.0)
        return own.chain, Arithmetic(unit=FORMATS[own.dtype].unit).of_rounding(1.0)

    def _added(self, kind: str, add: Callable[[Planned], Spread]) -> Spread:
        """A sum of a kind that may have an accumulator of its own."""
        own = self.sums.get(kind)
        if own is None or FORMATS[own.dtype].unit <= self.unit:
            return add(self)
        y = add(dataclasses.replace(self, sums={}, accumulator=own))
        found: Spread = self.stored(Spread(y.value, y.own, self, None, y.shared, y.kinds), own.dtype)
        return found

    def sum(self, x: Spread, axis: int, keepdims: bool) -> Spread:
        along_rows = x.ndim > 0 and axis % x.ndim == x.ndim - 1
        return self._added("along rows" if along_rows else "over rows", lambda how: how._sum(x, axis, keepdims))

    def scatter_add(self, index: Array, x: Spread, size: int) -> Spread:
        return self._added("scattered", lambda how: Arithmetic.scatter_add(how, index, x, size))

    def _sum(self, x: Spread, axis: int, keepdims: bool) -> Spread:
        return self._vanished(x, self._of_few(x, axis, keepdims), axis)

    def _vanished(self, x: Spread, y: Spread, axis: int) -> Spread:
        """Terms below half a unit of what an accumulator holds change nothing: they are lost, in every row alike."""
        held = numpy.abs(y.value) if y.ndim == x.ndim else numpy.expand_dims(numpy.abs(y.value), axis)
        chain = self.accumulator.chain if self.accumulator else self.chain
        held = held * (self._unit_of_sum * min(1.0, chain / max(1, x.shape[axis])))
        with numpy.errstate(all="ignore"):
            small = numpy.where(numpy.abs(x.value) < held, x.value, 0)
        if not small.any():
            return y
        lost = small.sum(axis=axis, keepdims=y.ndim == x.ndim)
        if y.ndim != x.ndim or y.shape[-1:] != (1,):
            return Spread(y.value, y.own + lost * lost, self, y.held, y.shared, y.kinds)
        return Spread(y.value, y.own, self, y.held, {**y.shared, Source(alike=True): lost}, y.kinds)

    @property
    def _unit_of_sum(self) -> float:
        return FORMATS[self.accumulator.dtype].unit if self.accumulator else self.unit

    def _of_few(self, x: Spread, axis: int, keepdims: bool) -> Spread:
        """Where every partial sum is a number of the type, in whatever order, no digits are cut off, so none are cut
        off alike; a mean that is kept up to date term by term (Welford) still rounds."""
        y = super().sum(x, axis, keepdims)
        if math.isinf(x.kinds) or x.shared or x.own.any() or not numpy.isfinite(x.value).all():
            return y
        kept = dataclasses.replace(self, chain=min(self.chain, KEPT))
        apart = Arithmetic.sum(kept, Spread(x.value, 0.0, self), axis, keepdims)
        exact = numpy.abs(x.value).sum(axis=axis, keepdims=keepdims) * self._unit_of_sum <= _step(x.value)
        shared = {source: numpy.where(exact, 0, c) for source, c in y.shared.items()}
        return Spread(y.value, numpy.where(exact, apart.variance, y.own), self, None, shared, y.kinds)

    def matmul(self, a: Spread, b: Spread) -> Spread:
        if self.factors is not None:
            a, b = self.stored(a, self.factors), self.stored(b, self.factors)
        y = self._added("products", lambda how: Arithmetic.matmul(how, a, b))
        return y if self.products is None else self.stored(y, self.products)

    def remembered(self, n: Spread, x: Spread, r: Spread) -> Spread:
        """n = (x - mean(x)) r as a pullback forms it again, from a mean that was kept in a type of its own. What is
        lost with it is the same in the whole row."""
        if self.means is None or FORMATS[self.means].unit <= self.unit:
            return n
        mean = Spread(x.value.mean(axis=-1, keepdims=True), 1.0, self)
        lost = -r.value * numpy.sqrt(_of_storing(mean, FORMATS[self.means]))
        return Spread(n.value, n.own, self, n.held, {**n.shared, Source(): lost}, n.kinds)

    def either(self, one: Spread, other: Spread, *, each: bool = False) -> Spread:
        """A number of which there are two customary forms, with the errors of the one that errs more. What the other
        errs more is the same in the whole row, as what is subtracted from each of its numbers is, or `each` its own."""
        with numpy.errstate(all="ignore"):
            further = numpy.maximum(other.variance - one.variance, 0)
        further = numpy.where(numpy.isfinite(further), further, 0)
        if each:
            return Spread(one.value, one.own + further, self, None, one.shared, one.kinds)
        return Spread(one.value, one.own, self, None, {**one.shared, Source(): numpy.sqrt(further)}, one.kinds)

    def through_softmax(self, ds: Spread, dP: Spread, P: Spread, dy: Spread, y: Spread) -> Spread:
        """ds = P (dP - D), where D = Σ P dP may have been found as Σ dy y from the stored output."""
        D = self.sum(self.times(P, dP), -1, True)
        read = self.sum(self.times(dy, self.stored(y, self.carrier)), -1, True)
        with numpy.errstate(all="ignore"):
            further = numpy.sqrt(numpy.maximum(read.variance - D.variance, 0))
            return Spread(ds.value, ds.own, self, ds.held, {**ds.shared, Source(): -P.value * further}, ds.kinds)


def _step(x: Array) -> float:
    """The largest power of two of which all numbers are multiples."""
    mantissa, exponent = numpy.frexp(x[x != 0])
    if not mantissa.size:
        return math.inf
    digits = numpy.ldexp(mantissa, 53).astype(numpy.int64)
    lowest = numpy.frexp((digits & -digits).astype(float))[1] - 1
    return math.ldexp(1.0, int((lowest + exponent - 53).min()))


def _of_storing(x: Spread, format: Format) -> Array:
    """The variance that rounding to the type adds."""
    y = x.value
    with numpy.errstate(all="ignore"):
        exact = x.variance == 0
        exact = exact & format.holds(y) if exact.any() else exact
        lost = 0.0 if format.gradual else format.smallest**2
        rounding = Arithmetic(unit=format.unit).of_rounding(y * y) + lost
        if format.gradual:  # below the smallest normal number the spacing is that above it, every error being as likely
            rounding = numpy.where(abs(y) < format.smallest, (format.unit * format.smallest) ** 2 / 3, rounding)
        own = numpy.where(exact, 0, rounding)
        return numpy.where(_beyond(x, format), math.inf, numpy.where(numpy.isfinite(y), own, 0))


def _beyond(x: Spread, format: Format) -> Array:
    """Where a finite number overflows the type, or may: what a right implementation has of it is off."""
    least = format.largest * (1 + format.unit / 2)
    with numpy.errstate(all="ignore"):
        found: Array = numpy.isfinite(x.value) & (numpy.abs(x.value) + _REACH * numpy.sqrt(x.variance) > least)
    return found
