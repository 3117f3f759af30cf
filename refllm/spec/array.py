"""The vocabulary of the text: what it calls besides + - * / @, comparison, indexing, reshape and swapaxes.

A function belongs to the numbers that it is given: arrays of floats are NumPy's, and every other kind (refllm/numbers)
brings its own `mathematics`. Plain Python numbers, as in `sqrt(D)`, are `math`'s unless a kind takes them over with
`scalars`, so that a root is exact where everything is.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy

Array = Any  # an array of any kind of numbers
Tree = Any  # nested dicts and lists of arrays
Pullback = Callable[..., Any]

arange = numpy.arange  # places, which are whole numbers in every kind


# --- of every element ------------------------------------------------------------------------------------------------


def exp(x: Array) -> Array:
    return _mathematics(x).exp(x)


def log(x: Array) -> Array:
    return _mathematics(x).log(x)


def sqrt(x: Array) -> Array:
    return _mathematics(x).sqrt(x)


def tanh(x: Array) -> Array:
    return _mathematics(x).tanh(x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x)"""
    return _mathematics(x).sigmoid(x)


def sin(x: Array) -> Array:
    return _mathematics(x).sin(x)


def cos(x: Array) -> Array:
    return _mathematics(x).cos(x)


def erfc(x: Array) -> Array:
    """1 - erf(x), which keeps its digits where erf is nearly 1."""
    return _mathematics(x).erfc(x)


def power(x: Array, n: Array) -> Array:
    """x^n of two numbers, or of a number and the entries of n."""
    return _of_numbers(x, n).power(x, n)


def ratio(a: Array, b: Array) -> Array:
    """a / b of whole numbers, without the rounding of a float where the numbers in use have none."""
    return _of_numbers(a, b).ratio(a, b)


def pi() -> Array:
    return _scalars.get().pi


def where(mask: Array, x: Array, y: Array) -> Array:
    """x where the mask is true, else y."""
    return _mathematics(x, y).where(mask, x, y)


def like(x: Array, other: Array) -> Array:
    """x in the dtype of the other, where numbers have one."""
    return _mathematics(x, other).like(x, other)


def constant(x: Array) -> Array:
    """The same numbers, through which no gradient flows."""
    return _mathematics(x).constant(x)


# --- of rows ---------------------------------------------------------------------------------------------------------


def sum(x: Array, axis: int = -1, keepdims: bool = True) -> Array:
    """The sum along an axis, of the row if none is named. However long, it is one step: no order is preferred."""
    return _mathematics(x).sum(x, axis, keepdims)


def mean(x: Array) -> Array:
    """The mean of every row."""
    return sum(x) / x.shape[-1]


def total(x: Array) -> Array:
    """The sum of all numbers."""
    return sum(x.reshape(-1), axis=0, keepdims=False)


def top(x: Array) -> Array:
    """The largest number of every row, as a constant; 0 for a row without a finite one."""
    return _mathematics(x).top(x)


def is_zero(x: Array) -> Array:
    """1 where x is 0, else 0: added to a divisor, it makes 0 / 0 to 0."""
    return _mathematics(x).is_zero(x)


def pick(x: Array, index: Array) -> Array:
    """Entry index[...] of every row."""
    return x.reshape(-1, x.shape[-1])[arange(index.size), index.reshape(-1)].reshape(index.shape)


def one_hot(index: Array, size: int) -> Array:
    """True at the place of each index."""
    return index[..., None] == arange(size)


# --- of shapes -------------------------------------------------------------------------------------------------------


def swap(x: Array) -> Array:
    """The last two axes exchanged: each matrix transposed."""
    return x.swapaxes(-1, -2)


def flat(x: Array) -> Array:
    """All rows in one matrix."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def rows(x: Array) -> Array:
    """The sum of all rows: the gradient of what was added to each, or multiplied with each."""
    return sum(flat(x), axis=0, keepdims=False)


def stack(parts: Sequence[Array], axis: int) -> Array:
    """The parts beside each other along a new axis."""
    return _mathematics(*parts).stack(parts, axis)


def concatenate(parts: Sequence[Array], axis: int) -> Array:
    """The parts one after the other along an axis that they have."""
    return _mathematics(*parts).concatenate(parts, axis)


def spread(x: Array, shape: Sequence[int]) -> Array:
    """x repeated along the axes that it lacks, or in which it has one entry."""
    return _mathematics(x).spread(x, tuple(shape))


def everywhere(shape: Sequence[int]) -> Array:
    """A mask that is true at every place."""
    return numpy.ones(tuple(shape), bool)


def integers(x: Sequence[Any]) -> Array:
    """Whole numbers, or lists of them, as an array."""
    return numpy.array(x, int)


def nearest(x: Array) -> Array:
    """The whole number nearest to each number, of two the even one."""
    return _mathematics(x).nearest(x)


def zeros(shape: Sequence[int], other: Array) -> Array:
    """Zeros in the dtype of the other array."""
    return numpy.zeros(tuple(shape), getattr(other, "dtype", None))


def scatter_add(index: Array, x: Array, size: int) -> Array:
    """Row i of the result is the sum of the rows of x whose index is i; an index of `size` or more is left out."""
    return _mathematics(x).scatter_add(index, x, size)


# --- names for what is in between ------------------------------------------------------------------------------------

Onlooker = Callable[[str, Array], Array]  # sees a name and its value, and says what the text goes on with
_onlooker: ContextVar[tuple[Onlooker | None, str]] = ContextVar("onlooker", default=(None, ""))


def tap(name: str, x: Array) -> Array:
    """x itself, which somebody who looks on (`tapped`, `watched`) finds under this name."""
    onlooker, place = _onlooker.get()
    return x if onlooker is None else onlooker(place + name, x)


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """In this context the names of `tap` begin with `name.`"""
    onlooker, place = _onlooker.get()
    token = _onlooker.set((onlooker, f"{place}{name}."))
    try:
        yield
    finally:
        _onlooker.reset(token)


@contextlib.contextmanager
def watched(onlooker: Onlooker) -> Iterator[None]:
    """In this context the text goes on with what the onlooker makes of each value that `tap` names."""
    token = _onlooker.set((onlooker, ""))
    try:
        yield
    finally:
        _onlooker.reset(token)


@contextlib.contextmanager
def tapped() -> Iterator[dict[str, Array]]:
    """In this context the dict fills with what `tap` names."""
    found: dict[str, Array] = {}

    def kept(name: str, x: Array) -> Array:
        found[name] = x
        return x

    with watched(kept):
        yield found


# --- whose mathematics -----------------------------------------------------------------------------------------------


class Floats:
    """Arrays of floats: NumPy's functions, in the dtype of the array."""

    exp, log, sqrt, tanh, sin, cos = numpy.exp, numpy.log, numpy.sqrt, numpy.tanh, numpy.sin, numpy.cos
    where, stack, concatenate, spread = numpy.where, numpy.stack, numpy.concatenate, numpy.broadcast_to

    @staticmethod
    def sigmoid(x: Array) -> Array:
        with numpy.errstate(over="ignore"):  # e^-x may be infinite; then the answer is 0
            return 1 / (1 + numpy.exp(-x))

    @staticmethod
    def erfc(x: Array) -> Array:
        return numpy.vectorize(math.erfc, otypes=[x.dtype])(x)

    @staticmethod
    def power(x: Array, n: Array) -> Array:
        return numpy.power(x, n)

    @staticmethod
    def ratio(a: Array, b: Array) -> Array:
        return a / b

    @staticmethod
    def like(x: Array, other: Array) -> Array:
        return x.astype(other.dtype)

    @staticmethod
    def constant(x: Array) -> Array:
        return x

    @staticmethod
    def sum(x: Array, axis: int, keepdims: bool) -> Array:
        return x.sum(axis=axis, keepdims=keepdims)

    @staticmethod
    def top(x: Array) -> Array:
        largest = x.max(axis=-1, keepdims=True, initial=-math.inf)
        return numpy.where(numpy.isneginf(largest), 0, largest)

    @staticmethod
    def is_zero(x: Array) -> Array:
        return (x == 0).astype(x.dtype)

    @staticmethod
    def nearest(x: Array) -> Array:
        return numpy.rint(x).astype(int)

    @staticmethod
    def scatter_add(index: Array, x: Array, size: int) -> Array:
        y = numpy.zeros((size, *x.shape[index.ndim :]), x.dtype)
        kept = index < size
        numpy.add.at(y, index[kept], x[kept])
        return y


class Scalars:
    """Plain Python numbers: those of `math`."""

    exp, log, sqrt, tanh, sin, cos, erfc, pi = (
        math.exp, math.log, math.sqrt, math.tanh, math.sin, math.cos, math.erfc, math.pi
    )  # fmt: skip

    @staticmethod
    def power(x: float, n: float) -> float:
        return x**n

    @staticmethod
    def ratio(a: float, b: float) -> float:
        return a / b

    @staticmethod
    def nearest(x: float) -> int:
        return round(x)


_scalars: ContextVar[Any] = ContextVar("scalars", default=Scalars)


@contextlib.contextmanager
def scalars(mathematics: Any) -> Iterator[None]:
    """In this context plain numbers, and whole numbers in arrays, belong to this mathematics."""
    token = _scalars.set(mathematics)
    try:
        yield
    finally:
        _scalars.reset(token)


def _mathematics(*arguments: Any) -> Any:
    """That of the first argument with one of its own; of an array, where there is one."""
    own = [x for x in arguments if hasattr(x, "mathematics")]
    if own:
        return next((x for x in own if hasattr(x, "shape")), own[0]).mathematics
    return Floats if any(isinstance(x, numpy.ndarray | numpy.generic) for x in arguments) else _scalars.get()


def _of_numbers(*arguments: Any) -> Any:
    """As `_mathematics`, but whole numbers in arrays belong to the numbers in use, like those outside of arrays."""
    own = any(hasattr(x, "mathematics") for x in arguments)
    return _mathematics(*arguments) if own or _scalars.get() is Scalars else _scalars.get()
