"""A value beside the variance of its rounding error, and what of that error a whole row has in common.

Most errors are independent of each other. One is not: a number that is found for a row, such as the root of its mean
square, goes into every number of the row, and its error with it. In a sum along the row such errors do not average out
but add up, the more the longer it is. So the error of every element is kept in two parts:

    independent of that of every other element, of variance `own`, and
    c ξ for each number ξ that its row shares, of mean 0 and variance 1;  `shared` has the coefficients c by ξ

And equal numbers are rounded equally: where a row holds few different numbers, their errors do not average out either.
`kinds` says how many different numbers there are, as many as there would be if all were equally frequent. What is cut
off of a sum of such numbers may be the same in every row, and in a sum over rows it does not average out then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy

from refllm.backend import Array

if TYPE_CHECKING:
    from refllm.numbers.spread import Arithmetic


class Source:
    """Where an error begins that the elements of a row share. `alike`: rows may have the same error, as sums of few
    different numbers have, whose digits are cut off alike in every row."""

    def __init__(self, *, alike: bool = False) -> None:
        self.alike = alike


Shared = Mapping[Source, Array]


class Spread:
    """An array of values, and of the variances of their rounding errors, in units of u²."""

    __array_ufunc__ = None  # an array on the left leaves the operation to this one

    def __init__(
        self, value: Any, own: Any, arithmetic: Arithmetic, held: str | None = None, shared: Shared | None = None,
        kinds: float = math.inf,
    ) -> None:  # fmt: skip
        """`held`: the type that every element is known to be a number of (plans.py)."""
        self.value: Array = numpy.asarray(value, float)
        fits = isinstance(own, numpy.ndarray) and own.shape == self.value.shape
        self.own: Array = own if fits else numpy.broadcast_to(own, self.value.shape)
        self.shared: Shared = shared or {}
        self.arithmetic, self.held, self.kinds = arithmetic, held, kinds
        self._in_common: Spread | None = None

    @property
    def mathematics(self) -> Any:
        return self.arithmetic

    @property
    def variance(self) -> Array:
        """That of the whole error."""
        found, *others = [self.own, *self.shared.values()]
        if others:
            found = found + others[0] * others[0]
        for c in others[1:]:
            found += c * c
        return found

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    T = property(lambda self: self.moved(lambda x: x.T))

    def in_common(self) -> Spread:
        """One number a row, as what the whole row shares: of every use of it, the same errors."""
        if self._in_common is None:
            with numpy.errstate(all="ignore"):
                shared = {**self.shared, Source(): numpy.sqrt(self.own)} if self.own.any() else self.shared
            self._in_common = Spread(self.value, 0.0, self.arithmetic, self.held, shared, 1)
        return self._in_common

    def moved(self, f: Callable[[Array], Array], *, rows: bool = False) -> Spread:
        """f of the values and of the variances: for what rounds nothing. `rows`: a row of the result is of one row."""
        if not rows:
            return Spread(f(self.value), f(self.variance), self.arithmetic, self.held, None, self.kinds)
        shared = {source: f(numpy.broadcast_to(c, self.shape)) for source, c in self.shared.items()}
        return Spread(f(self.value), f(self.own), self.arithmetic, self.held, shared, self.kinds)

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: Any) -> Spread:
        return self.moved(lambda x: x[index], rows=_takes_of_rows(index, self.ndim))

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: Any) -> Spread:
        to = numpy.empty(self.shape, "b").reshape(*shape).shape
        return self.moved(lambda x: x.reshape(to), rows=bool(to and self.ndim) and to[-1] == self.shape[-1])

    def swapaxes(self, a: int, b: int) -> Spread:
        last = self.ndim - 1
        return self.moved(lambda x: x.swapaxes(a, b), rows=last not in (a % self.ndim, b % self.ndim))

    def __neg__(self) -> Spread:
        shared = {source: -c for source, c in self.shared.items()}
        return Spread(-self.value, self.own, self.arithmetic, self.held, shared, self.kinds)

    @staticmethod
    def _operator(name: str) -> tuple[Any, Any]:
        def forward(a: Spread, b: Any) -> Spread:
            found: Spread = getattr(a.arithmetic, name)(a, a.arithmetic.lifted(b))
            return found

        def reflected(b: Spread, a: Any) -> Spread:
            found: Spread = getattr(b.arithmetic, name)(b.arithmetic.lifted(a), b)
            return found

        return forward, reflected

    @staticmethod
    def _comparison(f: Any) -> Any:
        return lambda a, b: f(a.value, b.value if isinstance(b, Spread) else b)

    __add__, __radd__ = _operator("plus")
    __sub__, __rsub__ = _operator("minus")
    __mul__, __rmul__ = _operator("times")
    __truediv__, __rtruediv__ = _operator("over")
    __matmul__, __rmatmul__ = _operator("matmul")
    __eq__, __ne__ = _comparison(numpy.equal), _comparison(numpy.not_equal)
    __lt__, __le__ = _comparison(numpy.less), _comparison(numpy.less_equal)
    __gt__, __ge__ = _comparison(numpy.greater), _comparison(numpy.greater_equal)
    __hash__ = None  # type: ignore[assignment]


def _takes_of_rows(index: Any, ndim: int) -> bool:
    """Whether an index takes rows or parts of rows, each element of a new row from the same old one."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(part is Ellipsis or isinstance(part, int | slice) for part in parts):
        return False
    reaches_the_last = Ellipsis in parts or len(parts) == ndim
    return not (reaches_the_last and isinstance(parts[-1], int))


def weighted(slope: Array, shared: Shared) -> dict[Source, Array]:
    """What is shared after a function that is so steep; 0 for what has no error, also where the slope is infinite."""
    return {source: numpy.where(c == 0, 0, slope * c) for source, c in shared.items()}


def together(a: Shared, b: Shared) -> dict[Source, Array]:
    """What is shared by the sum of two."""
    nothing = numpy.zeros(())
    return {source: a.get(source, nothing) + b.get(source, nothing) for source in {**a, **b}}


def kinds_in(x: Array) -> float:
    """How many different numbers, equally frequent, are as likely to meet each other as those of x."""
    counts = numpy.unique(x, return_counts=True)[1].astype(float)
    pairs = float((counts * (counts - 1)).sum())
    return x.size * (x.size - 1) / pairs if pairs else math.inf
