"""Matrix products of values with a spread: what they are, and what arrives at them of the errors of both factors.

A product needs several of matrices: of values, of squares, of squares and variances. Those that follow from less are
not formed: a factor without errors adds nothing, where no factor is 0 all terms count, and where two rows together have
more places than there are that are no power of two, one of them meets another.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy

from refllm.backend import Array
from refllm.numbers.blockwise import Index, assembled, blocks_of_rows, cut, cut_spread
from refllm.numbers.spread_value import Shared, Spread
from refllm.numbers.unrounded import is_nothing, is_power_of_two

if TYPE_CHECKING:
    from refllm.numbers.spread import Arithmetic

MOST = 1 << 18  # numbers of a block of rows, or of what becomes of them
FEWEST = 128  # rows of a block: of fewer, a product of matrices is mostly the reading of the other factor


def product(how: Arithmetic, a: Spread, b: Spread) -> Spread:
    """Every product is rounded and then added. Fused multiplication saves the first, which weighs little."""
    right = Factor.of(b)
    if a.ndim < 2 or b.ndim < 2:
        return _of_rows(how, Factor.of(a), right)
    (T, K), S = a.shape[-2:], b.shape[-1]
    shape, width = (*numpy.broadcast_shapes(a.shape[:-2], b.shape[:-2]), T, S), max(K, S)
    if math.prod(shape[:-1]) * width <= MOST or not S:
        return _of_rows(how, Factor.of(a), right)

    def block(index: Index) -> Spread:
        rows = Factor.of(cut_spread(a, (*index[:-1], slice(0, K))))
        return _of_rows(how, rows, right.cut((*index[:-2], slice(0, K), slice(0, S))))

    by_rows = blocks_of_rows((*shape[:-1], width), MOST, FEWEST)
    return assembled(shape, ((*index[:-1], slice(0, S)) for index in by_rows), block)


class Factor:
    """A factor of a matrix product, and what is asked of it, once."""

    def __init__(self, x: Spread, squares: Array) -> None:
        self.x, self.squares = x, squares

    @staticmethod
    def of(x: Spread) -> Factor:
        with numpy.errstate(all="ignore"):
            return Factor(x, x.value**2)

    def cut(self, index: Index) -> Factor:
        if all(n == 1 for n in self.x.shape[:-2]):
            return self
        return Factor(cut_spread(self.x, index), cut(self.squares, index))

    @functools.cached_property
    def variance(self) -> Array:
        return self.x.variance

    @functools.cached_property
    def is_exact(self) -> bool:
        return not self.variance.any()

    @functools.cached_property
    def something(self) -> Array:
        return ~is_nothing(self.x)

    @functools.cached_property
    def rounds(self) -> Array:
        return ~is_power_of_two(self.x)


def _of_rows(how: Arithmetic, left: Factor, right: Factor) -> Spread:
    a, b = left.x, right.x
    with numpy.errstate(all="ignore"):
        squares = left.squares @ right.squares
        arrived = numpy.zeros(())
        if not right.is_exact:
            arrived = left.squares @ right.variance
        if a.own.any():
            arrived = arrived + a.own @ right.squares
        arrived = arrived + _of_equals(a, b)
        shared: Shared = {source: numpy.broadcast_to(c, a.shape) @ b.value for source, c in a.shared.items()}
        count = _meeting(left.something, right.something)
        products = how.of_rounding(squares) + count * how.underflow**2
        if (simple := _without_rounding(left.rounds, right.rounds)) is not None:
            products = numpy.where(simple, 0, products)
    return how._summed(a.value @ b.value, arrived + products, squares, count, a.kinds * b.kinds, shared)


def _of_equals(a: Spread, b: Spread) -> Array:
    """What equal errors of equal factors add to the variance of a matrix product, above independent ones."""
    found = numpy.zeros(())
    if a.kinds < a.shape[-1] and a.own.any():
        found = found + (numpy.sqrt(a.own) @ b.value) ** 2 / a.kinds
    if b.kinds < a.shape[-1] and b.own.any():
        found = found + (a.value @ numpy.sqrt(b.own)) ** 2 / b.kinds
    return found


def _meeting(a: Array, b: Array) -> Array:
    """How many places of each row of a and column of b are true in both; of one row or one column if all are alike."""
    if a.ndim > 1 and b.ndim > 1:
        if b.all():
            return a.sum(axis=-1, keepdims=True).astype(float)
        if a.all():
            return b.sum(axis=-2, keepdims=True).astype(float)
    return _counted(a, b)


def _counted(a: Array, b: Array) -> Array:
    exact = numpy.float32 if a.shape[-1] < 1 << 24 else float  # whole numbers, of which float32 holds so many
    found: Array = (a.astype(exact) @ b.astype(exact)).astype(float)
    return found


def _without_rounding(a: Array, b: Array) -> Array | None:
    """Where no true place of a row meets one of a column; None where all do. More places than there are must meet."""
    if a.ndim < 2 or b.ndim < 2 or not a.size or not b.size:
        found: Array = _counted(a, b) == 0
        return found
    may = a.sum(axis=-1) + b.sum(axis=-2).min() <= a.shape[-1]
    rows = numpy.flatnonzero(may.any(axis=tuple(range(may.ndim - 1))))
    if not len(rows):
        return None
    shape = (*numpy.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    simple = numpy.zeros(shape, bool)
    simple[..., rows, :] = _counted(a[..., rows, :], b) == 0
    return simple
