"""Values beside the variance of their rounding error: how far a right implementation may be from the truth.

x, W = lift(x), lift(W)                what enters is exact
y, back = linear(x, W, b)              any text of refllm/spec
y.value                                in float64
deviation(y, u)                        the standard deviation of the error of y, for the unit roundoff u

The condition of a number (exact.py) adds up what all roundings could do together, so it grows like the length of a
sum. At the size of kernels that decides nothing. But roundings have random signs, and what they do together grows like
the root of the length:

    y = f(a, b, ...)  is computed as  f(a + δa, b + δb, ...) (1 + ε)   hence, to first order and for independent errors,
    Var y = (∂f/∂a)² Var a + (∂f/∂b)² Var b + ... + Var(ε) y²

Where one intermediate is used twice its error comes twice, and the two are not independent: they may add up or cancel.
This is kept for a number that is found for a row and goes into all of it (spread_value.py), and for a square; else it
is not seen. spec_tests/numbers/test_spread.py measures how far the prediction holds all the same.

Where and how an implementation rounds is its `Arithmetic`. Every value carries one, and the words of the text are
methods of it, so that a plan of what is stored in which type has its place there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy

from refllm.backend import Array
from refllm.numbers.blockwise import blockwise
from refllm.numbers.rules import DERIVATIVES
from refllm.numbers.spread_products import product
from refllm.numbers.spread_value import Shared, Source, Spread, kinds_in, together, weighted
from refllm.numbers.unrounded import is_nothing, is_power_of_two, is_short, of_one_type
from refllm.spec import array
from refllm.spec.array import Floats

__all__ = ["ROUNDING", "Arithmetic", "Spread", "deviation", "lift", "plain_numbers_round"]

# Var(ε) in units of u². A result y = 2^e m with 1 <= m < 2 is off by up to u 2^e, every error being as likely:
# u² 4^e / 3 = u² y² / (3 m²). Leading digits are such that log m is even in [0, log 2), which gives 1 / m² the mean
# 3 / (8 log 2):
ROUNDING = 1 / (8 * math.log(2))


def _function(name: str) -> Any:
    f, derivative = getattr(Floats, name), DERIVATIVES[name]

    def of(self: Arithmetic, x: Any) -> Spread:
        return of_one(self, self.lifted(x))

    @blockwise
    def of_one(self: Arithmetic, a: Spread) -> Spread:
        with numpy.errstate(all="ignore"), array.scalars(array.Scalars):  # how steep it is need not be known so well
            y = f(a.value)
            slope = self.steepness(f, a, derivative(a.value, y))
            own = 0 if name == "sqrt" else self.of_rounding(y * y)  # a root is rounded correctly
            flat = is_flat(a.value, slope)
            arrived = _weighed(slope, a.own) + numpy.where(flat, left_out(a.value) ** 2, own)
            return self.rounded(y, arrived, flat, weighted(slope, a.shared), a.kinds)

    def is_flat(x: Array, slope: Array) -> Array:
        """Where the value has reached its limit, as that of tanh far from 0: it does not change from half way on. Where
        it has just ceased to change, the next digit of 1 - 1e-17 is the error."""
        flat: Array = slope == 0
        return flat & (derivative(x / 2, f(x / 2)) == 0) if flat.any() else flat

    def left_out(x: Array) -> Array:
        """By how much the limit is not reached. A form that does not cancel knows it: 1 + tanh(-40) is 4e-35."""
        limits = {"tanh": lambda x: 2 * numpy.exp(-2 * x), "sigmoid": lambda x: numpy.exp(-x), "erfc": Floats.erfc}
        return limits[name](abs(x)) if name in limits else numpy.zeros(x.shape)

    return of


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """Where and how an implementation rounds, and the vocabulary of the text for values with a spread.

    Every result is rounded once; what a function of a libm gives is off by about two roundings. A sum is taken by
    accumulators of at most `chain` terms each, one after the other in no particular order, and what they hold is
    summed in the same way.
    A result below the smallest normal number of the type may become 0: `underflow` is that number in units of u.
    Variances are in units of u² unless the arithmetic has a `unit` of its own, as those of a plan have (plans.py).
    """

    chain: int = 64
    underflow: float = 2.0 ** (-126 + 24)  # of float32, and enough for bfloat16
    unit: float = 1.0  # the unit roundoff, in that of the variances

    exp, log, sqrt, tanh = _function("exp"), _function("log"), _function("sqrt"), _function("tanh")
    sigmoid, sin, cos, erfc = _function("sigmoid"), _function("sin"), _function("cos"), _function("erfc")

    def of_rounding(self, squares: Any) -> Any:
        """The variance that the rounding of numbers with these squares adds."""
        return ROUNDING * self.unit * self.unit * squares

    def adding(self, level: int) -> tuple[int, float]:
        """How many terms one accumulator takes, and the variance of rounding what it holds when that is 1. Level 0 adds
        the terms, level 1 what the accumulators of level 0 hold, and so on."""
        return self.chain, self.of_rounding(1.0)

    def steepness(self, f: Callable[[Array], Array], x: Spread, slope: Array) -> Array:
        """How steep f is where x may be: its derivative, while the error of x is small."""
        return slope

    def rounded(self, y: Any, own: Any, exact: Any, shared: Shared | None = None, kinds: float = math.inf) -> Spread:
        """The result y of operands whose errors give it these, after its own rounding; `exact` says where there is
        none."""
        with numpy.errstate(all="ignore"):
            rounding = 0 if exact is True else numpy.where(exact, 0, self.of_rounding(y * y) + self.underflow**2)
            finite = numpy.isfinite(y)
            kept = {source: numpy.where(finite, c, 0) for source, c in (shared or {}).items()}
            return Spread(y, numpy.where(finite, own + rounding, 0), self, None, kept, kinds)

    def lifted(self, x: Any) -> Spread:
        """What stands beside a value with a spread: a plain number is rounded to the type when it is not short."""
        if isinstance(x, Spread):
            return x
        value = numpy.asarray(x, float)
        return self.rounded(value, 0.0, is_short(x), kinds=1 if value.size == 1 else math.inf)

    # --- of two operands ---------------------------------------------------------------------------------------------

    def plus(self, a: Spread, b: Spread) -> Spread:
        return self._plus(*_repeated(a, b))

    @blockwise
    def _plus(self, a: Spread, b: Spread) -> Spread:
        with numpy.errstate(all="ignore"):
            shared = together(a.shared, b.shared)
            return self.rounded(
                a.value + b.value, a.own + b.own, is_nothing(a) | is_nothing(b), shared, a.kinds * b.kinds
            )

    def minus(self, a: Spread, b: Spread) -> Spread:
        return self.plus(a, -b)

    def times(self, a: Spread, b: Spread) -> Spread:
        return self._square(a) if a is b else self._times(*_repeated(a, b))

    @blockwise
    def _square(self, a: Spread) -> Spread:
        """Its error comes twice, and it is the same."""
        with numpy.errstate(all="ignore"):
            slope, exact = 2 * a.value, is_power_of_two(a)
            own, shared = _weighed(slope, a.own), weighted(slope, a.shared)
            return self.rounded(a.value * a.value, own, exact, shared, a.kinds)

    @blockwise
    def _times(self, a: Spread, b: Spread) -> Spread:
        exact = is_power_of_two(a) | is_power_of_two(b)
        with numpy.errstate(all="ignore"):
            shared = together(weighted(b.value, a.shared), weighted(a.value, b.shared))
            own = _weighed(b.value, a.own) + _weighed(a.value, b.own)
            return self.rounded(a.value * b.value, own, exact, shared, a.kinds * b.kinds)

    def over(self, a: Spread, b: Spread) -> Spread:
        return self._over(*_repeated(a, b))

    @blockwise
    def _over(self, a: Spread, b: Spread) -> Spread:
        with numpy.errstate(all="ignore"):
            y = a.value / b.value
            of_a, of_b = 1 / b.value, -y / b.value
            shared = together(weighted(of_a, a.shared), weighted(of_b, b.shared))
            own = _weighed(of_a, a.own) + _weighed(of_b, b.own)
            return self.rounded(y, own, is_power_of_two(b) | is_nothing(a), shared, a.kinds * b.kinds)

    @property
    def pi(self) -> Any:
        return self.lifted(math.pi)

    def power(self, x: Any, n: Any) -> Spread:
        a, b = self.lifted(x), self.lifted(n)
        with numpy.errstate(all="ignore"):
            y = numpy.power(a.value, b.value)
            slope = numpy.where(b.value == 0, 0, b.value * numpy.power(a.value, b.value - 1))
            own = _weighed(slope, a.own) + _weighed(y * numpy.log(a.value), b.variance)
            return self.rounded(y, own, (b.value == 1) & (b.variance == 0), weighted(slope, a.shared), a.kinds)

    def ratio(self, a: Any, b: Any) -> Spread:
        return self.over(self.lifted(a), self.lifted(b))

    # --- sums --------------------------------------------------------------------------------------------------------

    def sum(self, x: Spread, axis: int, keepdims: bool) -> Spread:
        def total(terms: Array) -> Array:
            return terms.sum(axis=axis, keepdims=keepdims)

        along_rows = x.ndim > 0 and axis % x.ndim == x.ndim - 1
        squares, count = total(x.value * x.value), total(~is_nothing(x))
        if not along_rows:
            return self._summed(total(x.value), total(x.own) + _over_rows(x, total), squares, count, x.kinds)
        shared = {source: total(numpy.broadcast_to(c, x.shape)) for source, c in x.shared.items()}
        alike = 0.0 if math.isinf(x.kinds) else total(numpy.sqrt(x.own)) ** 2 / x.kinds
        arrived = total(x.own) + alike
        y = self._summed(total(x.value), arrived, squares, count, x.kinds, shared)
        if not keepdims:
            return Spread(y.value, y.variance, self)
        return y if math.isinf(x.kinds) else _cut_off_alike(y, arrived)

    def matmul(self, a: Spread, b: Spread) -> Spread:
        return product(self, a, b)

    def scatter_add(self, index: Array, x: Spread, size: int) -> Spread:
        def total(terms: Array) -> Array:
            return Floats.scatter_add(index, terms, size)

        count = total((~is_nothing(x)).astype(float))
        return self._summed(total(x.value), total(x.variance), total(x.value * x.value), count, x.kinds)

    def _summed(
        self, y: Array, variance: Array, squares: Array, count: Array, kinds: float, shared: Shared | None = None
    ) -> Spread:
        """The sum y of `count` terms that are not 0; their squares add up to `squares`, their variances to `variance`.

        Every partial sum is rounded. Of terms with the mean μ, and the variance v about it, any k have a sum whose
        square is k v + k² μ² in the mean. In a chain of n terms k goes from 2 to n, and Σ k = n (n + 1) / 2 - 1,
        Σ k² = n (n + 1) (2 n + 1) / 6 - 1. What the chains hold has the mean n μ and the variance n v.

        Where equal numbers are added, each addition cuts off the same digits until the sum reaches the next power of
        two, in every chain: of N terms of m kinds, of which half come after the last one, N / 2m errors are equal.
        """
        with numpy.errstate(all="ignore"):
            N = numpy.maximum(count, 1).astype(float)
            mean = y / N
            about = numpy.maximum(squares / N - mean * mean, 0)
            own = numpy.zeros(numpy.shape(y))
            for level in itertools.count():
                chain, of_one = self.adding(level)
                chains = numpy.ceil(N / chain)
                n = N / chains
                linear, square = n * (n + 1) / 2 - 1, n * (n + 1) * (2 * n + 1) / 6 - 1
                squared = chains * (linear * about + square * mean * mean) * (1 + N / (2 * kinds))
                own = own + of_one * squared
                kinds = math.inf  # the chains hold different sums
                if (chains == 1).all():
                    break
                N, mean, about = chains, n * mean, n * about
            return self.rounded(y, variance + own, True, shared)

    # --- what rounds nothing -----------------------------------------------------------------------------------------

    def where(self, mask: Array, x: Any, y: Any) -> Spread:
        a, b = self.lifted(x), self.lifted(y)
        value = numpy.where(mask, a.value, b.value)
        a, b = _repeated(a, b, value.shape)
        shared = {
            source: numpy.where(mask, a.shared.get(source, 0.0), b.shared.get(source, 0.0))
            for source in {**a.shared, **b.shared}
        }
        kinds = a.kinds + b.kinds - 1
        return Spread(value, numpy.where(mask, a.own, b.own), self, of_one_type([a, b]), shared, kinds)

    def like(self, x: Any, other: Any) -> Spread:
        """A plain array is rounded when it takes the type of one with a spread."""
        return self.lifted(x)

    def constant(self, x: Spread) -> Spread:
        return x

    def top(self, x: Spread) -> Spread:
        """What is subtracted from a row and cancels: its error does too."""
        return Spread(Floats.top(x.value), 0.0, self)

    def is_zero(self, x: Spread) -> Spread:
        return Spread(Floats.is_zero(x.value), 0.0, self)

    def nearest(self, x: Any) -> Any:
        return Floats.nearest(self.lifted(x).value)

    def spread(self, x: Spread, shape: tuple[int, ...]) -> Spread:
        one = _repeated(x, x, shape)[0]
        return one.moved(lambda each: numpy.broadcast_to(each, shape), rows=True)

    def stack(self, parts: Sequence[Any], axis: int) -> Spread:
        return self._joined(numpy.stack, parts, axis)

    def concatenate(self, parts: Sequence[Any], axis: int) -> Spread:
        return self._joined(numpy.concatenate, parts, axis)

    def _joined(self, join: Callable[..., Array], parts: Sequence[Any], axis: int) -> Spread:
        own = [self.lifted(x) for x in parts]
        value, variance = (join([getattr(x, part) for x in own], axis) for part in ("value", "variance"))
        return Spread(value, variance, self, of_one_type(own))


def _cut_off_alike(y: Spread, arrived: Array) -> Spread:
    """Sums of few different numbers: what their own rounding adds may be the same in every row."""
    with numpy.errstate(all="ignore"):
        cut = numpy.sqrt(numpy.maximum(y.own - arrived, 0))
    shared = {**y.shared, Source(alike=True): cut} if cut.any() else y.shared
    return Spread(y.value, numpy.minimum(arrived, y.own), y.arithmetic, y.held, shared, y.kinds)


def _over_rows(x: Spread, total: Callable[[Array], Array]) -> Array:
    """The variance of a sum over rows that comes from what each row shares: of errors that are alike, the larger of
    what they make if they are equal and if they are independent."""
    found = numpy.zeros(())
    for source, c in x.shared.items():
        each = numpy.broadcast_to(c, x.shape)
        independent = total(each * each)
        found = found + (numpy.maximum(independent, total(each) ** 2) if source.alike else independent)
    return found


def _weighed(slope: Array, variance: Array) -> Array:
    """slope² variance, and 0 for what has no error, also where the slope is infinite."""
    return numpy.where(variance == 0, 0, slope * slope * variance)


def _repeated(a: Spread, b: Spread, shape: tuple[int, ...] | None = None) -> tuple[Spread, Spread]:
    """Two operands; of one that has a single number a row, which goes into all of it, what is shared."""
    width = (numpy.broadcast_shapes(a.shape, b.shape) if shape is None else shape)[-1:]
    return tuple(x.in_common() if x.shape[-1:] == (1,) != width else x for x in (a, b))  # type: ignore[return-value]


def lift(x: Any, arithmetic: Arithmetic | None = None) -> Any:
    """Floats as exact values. Trees are lifted leaf by leaf; plain numbers, whole ones, booleans and texts stay."""
    if isinstance(x, dict):
        return {name: lift(branch, arithmetic) for name, branch in x.items()}
    if isinstance(x, list | tuple):
        return type(x)(lift(branch, arithmetic) for branch in x)
    floats = isinstance(x, numpy.ndarray | numpy.generic) and x.dtype.kind == "f"
    return Spread(x, 0.0, arithmetic or Arithmetic(), kinds=kinds_in(x)) if floats else x


@contextlib.contextmanager
def plain_numbers_round(arithmetic: Arithmetic) -> Iterator[None]:
    """In this context what the text makes of plain numbers alone, like √D or wavelengths, is rounded at every step too.
    Outside it is computed in float64, and rounded once where it meets a value with a spread."""
    with array.scalars(arithmetic):
        yield


def deviation(y: Spread, u: float) -> Array:
    """The standard deviation of the rounding error of every element of y, for the unit roundoff u."""
    return u * numpy.sqrt(y.variance)
