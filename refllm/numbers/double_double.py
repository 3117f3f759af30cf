"""Numbers of about 106 bits in two doubles each, with a proven bound of their error.

They give the truth of what is too large for exact numbers.

    with plain_numbers():
        y, back = attention(lift(q), lift(k), lift(v), causal=True, attention_mask=None)      any text of refllm/spec
    y.hi                                  the float64 nearest to the truth, wherever `y.settled()`
    y.radius                              |truth - (hi + lo)| is at most this

A number is hi + lo with |lo| at most half an ulp of hi. Every step adds its own error to the radius, and carries on
those of its operands. With u = 2^-53 the relative errors of the steps are (Joldes, Muller & Popescu
2017, "Tight and rigorous error bounds for basic building blocks of double-word arithmetic", and for the root Lefèvre,
Louvet, Muller, Picot & Rideau 2023):

    a + b    algorithm 6    3 u² / (1 - 4u)        a / b   algorithm 17   15 u² + 56 u³
    a · b    algorithm 10   at most 7 u²           √a      algorithm 8    25/8 u²

The radius counts 4, 8, 16 and 4 u². Its own arithmetic is float64's, whose roundings `WIDER` covers; what underflows,
`LEAST`. A sum of n numbers is n - 1 additions in a tree. Matrix products, whose error is bounded otherwise, are in
`slices`, the exponential in `double_exp`. The other functions are asked of mpmath, number by number: no text calls them
for more than some ten thousand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy
from mpmath import mp

from refllm.backend import Array
from refllm.numbers import by_mpmath, double_exp, slices
from refllm.numbers.two_doubles import U2, Pair, add, divide, multiply, square_root
from refllm.spec import array
from refllm.spec.array import Floats

WIDER = 1 + 2.0**-30  # what float64 may lose while it adds up at most some thousand bounds
LEAST = 2.0**-1000  # more than is lost where a low part underflows


class Double:
    """An array of such numbers."""

    __array_ufunc__ = None  # an array on the left leaves the operation to this one

    def __init__(self, hi: Any, lo: Any, radius: Any) -> None:
        self.hi: Array = numpy.asarray(hi, float)
        finite = numpy.isfinite(self.hi)
        everywhere = bool(finite.all())
        self.lo: Array = _shaped(lo if everywhere else numpy.where(finite, lo, 0), self.hi.shape)
        self.radius: Array = _shaped(radius if everywhere else numpy.where(finite, radius, 0), self.hi.shape)

    @property
    def mathematics(self) -> Any:
        return Mathematics

    shape = property(lambda self: self.hi.shape)
    ndim = property(lambda self: self.hi.ndim)
    size = property(lambda self: self.hi.size)
    T = property(lambda self: self.moved(lambda x: x.T))

    @property
    def pair(self) -> Pair:
        return self.hi, self.lo

    def moved(self, f: Callable[[Array], Array]) -> Double:
        """f of both parts and of the radius: for what rounds nothing."""
        return Double(f(self.hi), f(self.lo), f(self.radius))

    def settled(self) -> Array:
        """Where hi is the truth rounded to float64: all that the radius allows rounds to it."""
        down, up = (self.hi + (self.lo + sign * self.radius * WIDER) for sign in (-1, 1))
        return (down == self.hi) & (up == self.hi) | ~numpy.isfinite(self.hi)

    def __len__(self) -> int:
        return len(self.hi)

    def __getitem__(self, index: Any) -> Double:
        return self.moved(lambda x: x[index])

    def __iter__(self) -> Iterator[Double]:
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: Any) -> Double:
        return self.moved(lambda x: x.reshape(*shape))

    def swapaxes(self, a: int, b: int) -> Double:
        return self.moved(lambda x: x.swapaxes(a, b))

    def __neg__(self) -> Double:
        return Double(-self.hi, -self.lo, self.radius)

    @staticmethod
    def _operator(f: Callable[[Double, Double], Double]) -> tuple[Any, Any]:
        return (lambda a, b: f(a, lifted(b)), lambda b, a: f(lifted(a), b))

    @staticmethod
    def _comparison(f: Any) -> Any:
        def compared(a: Double, b: Any) -> Any:
            other = lifted(b)
            return numpy.where(a.hi == other.hi, f(a.lo, other.lo), f(a.hi, other.hi))

        return compared

    @staticmethod
    def _plus(a: Double, b: Double) -> Double:
        with numpy.errstate(all="ignore"):
            hi, lo = _or_plain(add(a.pair, b.pair), a.hi + b.hi)
            return Double(hi, lo, WIDER * (a.radius + b.radius + 4 * U2 * abs(hi) * _rounds(a, b)))

    @staticmethod
    def _times(a: Double, b: Double) -> Double:
        with numpy.errstate(all="ignore"):
            hi, lo = _or_plain(multiply(a.pair, b.pair), a.hi * b.hi)
            carried = abs(a.hi) * b.radius + abs(b.hi) * a.radius + a.radius * b.radius
            return Double(hi, lo, WIDER * (carried + 8 * U2 * abs(hi) * _rounds(a, b)) + _lost(hi))

    @staticmethod
    def _over(a: Double, b: Double) -> Double:
        with numpy.errstate(all="ignore"):
            hi, lo = _or_plain(divide(a.pair, b.pair), a.hi / b.hi)
            certain = abs(b.hi) * (1 - 2.0**-50) - b.radius
            carried = numpy.where(certain > 0, (a.radius + abs(hi) * b.radius) / certain, numpy.inf)
            exact = (a.hi == 0) & (a.radius == 0) & (certain > 0)
            hi, lo = numpy.where(exact, 0, hi), numpy.where(exact, 0, lo)
            return Double(hi, lo, numpy.where(exact, 0, WIDER * (carried + 16 * U2 * abs(hi)) + _lost(hi)))

    __add__, __radd__ = _operator(_plus)
    __sub__, __rsub__ = _operator(lambda a, b: Double._plus(a, -b))
    __mul__, __rmul__ = _operator(_times)
    __truediv__, __rtruediv__ = _operator(_over)
    __matmul__, __rmatmul__ = _operator(lambda a, b: matmul(a, b))  # noqa: PLW0108  (defined below)
    __eq__, __ne__ = _comparison(numpy.equal), _comparison(numpy.not_equal)
    __lt__, __le__ = _comparison(numpy.less), _comparison(numpy.less_equal)
    __gt__, __ge__ = _comparison(numpy.greater), _comparison(numpy.greater_equal)
    __hash__ = None  # type: ignore[assignment]


def _shaped(x: Any, shape: tuple[int, ...]) -> Array:
    return numpy.broadcast_to(numpy.asarray(x, float), shape)


def _or_plain(found: Pair, plain: Array) -> Pair:
    """The result; an infinity, of which the parts of the algorithm make NaN, as float64 has it."""
    finite = numpy.isfinite(found[0])
    return found if finite.all() else (numpy.where(finite, found[0], plain), numpy.where(finite, found[1], 0))


def _rounds(a: Double, b: Double) -> Array:
    """Whether a sum or a product rounds: that of two doubles fits into two doubles."""
    return (a.lo != 0) | (b.lo != 0)


def _lost(hi: Array) -> Array:
    """What underflow may take from a product or a quotient: nothing from an exact 0."""
    return numpy.where(hi == 0, 0, LEAST)


def lift(x: Any) -> Any:
    """Floats as the numbers that they are. Trees are lifted leaf by leaf; whole numbers, booleans and texts stay."""
    if isinstance(x, dict):
        return {name: lift(branch) for name, branch in x.items()}
    if isinstance(x, list | tuple):
        return type(x)(lift(branch) for branch in x)
    if isinstance(x, float) or (isinstance(x, numpy.ndarray | numpy.generic) and x.dtype.kind == "f"):
        return lifted(x)
    return x


def lifted(x: Any) -> Double:
    return x if isinstance(x, Double) else Double(x, 0.0, 0.0)


@contextlib.contextmanager
def plain_numbers() -> Iterator[None]:
    """In this context what the text makes of plain numbers alone, like √D or wavelengths, has 106 bits too."""
    with array.scalars(Mathematics):
        yield


def matmul(a: Double, b: Double) -> Double:
    (hi, lo), own = slices.product(a.pair, b.pair)
    sizes, radii = (abs(a.hi), abs(b.hi)), (a.radius, b.radius)
    carried = sizes[0] @ radii[1] + radii[0] @ sizes[1] + radii[0] @ radii[1]
    return Double(hi, lo, WIDER * (own + carried))


# --- functions --------------------------------------------------------------------------------------------------------


def _by_mpmath(f: Callable[[Any], Any], steep: Callable[[Array, Array], Array]) -> Any:
    """f of every number; `steep` bounds the slope of f within the radius."""

    def of(x: Any) -> Double:
        a = lifted(x)
        with numpy.errstate(all="ignore"):
            hi, lo = by_mpmath.of_each(f, a.pair)
            return Double(hi, lo, WIDER * (steep(a.hi, a.radius) * a.radius + U2 * abs(hi)))

    return staticmethod(of)


def _least(x: Array, r: Array) -> Array:
    """The smallest size of what lies within the radius."""
    smallest: Array = numpy.maximum(abs(x) - r, 0)
    return smallest


class Pi:
    """π, asked of the class."""

    def __get__(self, instance: object, owner: object) -> Double:
        return Double(*by_mpmath.pi(), 4 * U2)


class Mathematics:
    """The vocabulary of the text."""

    sin = _by_mpmath(mp.sin, lambda x, r: 1 + 0 * x)
    cos = _by_mpmath(mp.cos, lambda x, r: 1 + 0 * x)
    tanh = _by_mpmath(mp.tanh, lambda x, r: numpy.minimum(1, 4 * numpy.exp(-2 * _least(x, r))))
    erfc = _by_mpmath(mp.erfc, lambda x, r: 1.2 * numpy.exp(-(_least(x, r) ** 2)))  # 2/√π is below 1.2
    log = _by_mpmath(lambda x: mp.log(x) if x else -mp.inf, lambda x, r: 2 / numpy.maximum(abs(x) - 2 * r, 0))

    @staticmethod
    def exp(x: Any) -> Double:
        a = lifted(x)
        with numpy.errstate(all="ignore"):
            hi, lo = double_exp.exp(a.pair)
            carried = numpy.where(a.radius < 0.5, 2 * a.radius, numpy.inf)  # e^r - 1 is at most 2 r
            return Double(hi, lo, WIDER * abs(hi) * (carried + double_exp.ERROR) + double_exp.LOST * (hi < 1e-280))

    @staticmethod
    def sigmoid(x: Any) -> Double:
        a = lifted(x)
        e = Mathematics.exp(Mathematics.where(a.hi < 0, a, -a))
        return Mathematics.where(a.hi < 0, e, 1.0) / (1 + e)

    @staticmethod
    def sqrt(x: Any) -> Double:
        a = lifted(x)
        with numpy.errstate(all="ignore"):
            hi, lo = square_root(a.pair)
            carried = numpy.where(a.radius == 0, 0, a.radius / hi)  # |√x - √x'| = |x - x'| / (√x + √x')
            return Double(hi, lo, WIDER * (carried + 4 * U2 * hi) + _lost(hi))

    @staticmethod
    def power(x: Any, n: Any) -> Double:
        a, b = lifted(x), lifted(n)
        (hi, lo), carried = by_mpmath.powers((a.hi, a.lo, a.radius), (b.hi, b.lo, b.radius))
        return Double(hi, lo, WIDER * (carried + U2 * abs(hi)))

    @staticmethod
    def ratio(a: Any, b: Any) -> Double:
        return lifted(a) / lifted(b)

    pi = Pi()

    # --- of rows

    @staticmethod
    def sum(x: Double, axis: int, keepdims: bool) -> Double:
        terms = x.moved(lambda each: numpy.moveaxis(each, axis, 0))
        if not len(terms):
            terms = lifted(numpy.zeros((1, *terms.shape[1:])))
        while len(terms) > 1:
            half = len(terms) // 2
            added = terms[:half] + terms[half : 2 * half]
            terms = Mathematics.concatenate([added, terms[2 * half :]], 0) if len(terms) % 2 else added
        return terms.moved(lambda each: numpy.expand_dims(each[0], axis) if keepdims else each[0])

    @staticmethod
    def scatter_add(index: Array, x: Double, size: int) -> Double:
        """One addition at a time for every row of the result, for all rows together."""
        flat_index, rows = index.reshape(-1), x.reshape(index.size, *x.shape[index.ndim :])
        order = numpy.argsort(flat_index, kind="stable")
        order = order[flat_index[order] < size]
        ordered = flat_index[order]
        rank = numpy.arange(len(ordered)) - numpy.searchsorted(ordered, ordered)
        parts = [numpy.zeros((size, *rows.shape[1:])) for _ in range(3)]
        for n in range(int(rank.max(initial=-1)) + 1):
            here = rank == n
            to, taken = ordered[here], rows[order[here]]
            found = Double(*(part[to] for part in parts)) + taken
            for part, each in zip(parts, (found.hi, found.lo, found.radius), strict=True):
                part[to] = each
        return Double(*parts)

    @staticmethod
    def top(x: Double) -> Double:
        """A constant that cancels: the largest high part is as good as the largest number."""
        return lifted(Floats.top(x.hi))

    @staticmethod
    def is_zero(x: Double) -> Double:
        return lifted(((x.hi == 0) & (x.lo == 0)).astype(float))

    @staticmethod
    def nearest(x: Any) -> Any:
        return Floats.nearest(lifted(x).hi)

    # --- what rounds nothing

    @staticmethod
    def where(mask: Array, x: Any, y: Any) -> Double:
        a, b = lifted(x), lifted(y)
        pairs = ((a.hi, b.hi), (a.lo, b.lo), (a.radius, b.radius))
        return Double(*(numpy.where(mask, one, other) for one, other in pairs))

    @staticmethod
    def like(x: Any, other: Any) -> Double:
        return lifted(x)

    @staticmethod
    def constant(x: Double) -> Double:
        return x

    @staticmethod
    def spread(x: Double, shape: tuple[int, ...]) -> Double:
        return x.moved(lambda each: numpy.broadcast_to(each, shape))

    @staticmethod
    def stack(parts: Sequence[Any], axis: int) -> Double:
        return _joined(numpy.stack, parts, axis)

    @staticmethod
    def concatenate(parts: Sequence[Any], axis: int) -> Double:
        return _joined(numpy.concatenate, parts, axis)


def _joined(join: Callable[..., Array], parts: Sequence[Any], axis: int) -> Double:
    own = [lifted(x) for x in parts]
    return Double(*(join([getattr(x, name) for x in own], axis) for name in ("hi", "lo", "radius")))
