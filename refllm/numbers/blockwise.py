"""What is done element by element, done in blocks that a cache holds.

Of one step for values with a spread there are a dozen intermediate arrays. Where each is as large as the scores of a
long context, they are written to memory and read again, every page of them new. In blocks they stay where they are.

    @blockwise
    def plus(self, a, b): ...       of two values with a spread, element by element: the same numbers, sooner
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from refllm.backend import Array
from refllm.numbers.spread_value import Source, Spread

BLOCK = 1 << 15  # numbers

Index = tuple[slice, ...]


def blocks(shape: tuple[int, ...], most: int) -> Iterator[Index]:
    """Indices that cut an array of this shape into blocks of at most `most` numbers."""
    axis, inner = len(shape) - 1, 1
    while axis > 0 and inner * shape[axis] <= most:
        inner *= shape[axis]
        axis -= 1
    step = max(1, most // inner)
    return _along(shape, axis, [*range(0, shape[axis], step), shape[axis]])


def blocks_of_rows(shape: tuple[int, ...], most: int, fewest: int) -> Iterator[Index]:
    """As `blocks`, of whole rows: so many times `fewest` of them, and what is left over stands in the last block."""
    axis, inner = len(shape) - 2, shape[-1]
    while axis > 0 and inner * shape[axis] <= most:
        inner *= shape[axis]
        axis -= 1
    step = max(1, most // inner)
    if axis == len(shape) - 2:
        step = max(1, step // fewest) * fewest
    starts = [*range(0, max(shape[axis] - step, 0), step)] or [0]
    return _along(shape, axis, [*starts, shape[axis]])


def _along(shape: tuple[int, ...], axis: int, borders: list[int]) -> Iterator[Index]:
    whole = tuple(slice(0, n) for n in shape[axis + 1 :])
    for before in numpy.ndindex(shape[:axis]):
        for start, end in itertools.pairwise(borders):
            yield (*(slice(i, i + 1) for i in before), slice(start, end), *whole)


def cut(x: Array, index: Index) -> Array:
    """The part of x, of fewer axes or of axes of length 1, that meets this block of what it is broadcast to."""
    own = index[len(index) - x.ndim :]
    return x[tuple(part if n != 1 else slice(None) for part, n in zip(own, x.shape, strict=True))]


def cut_spread(x: Spread, index: Index) -> Spread:
    shared = {source: cut(c, index) for source, c in x.shared.items()}
    return Spread(cut(x.value, index), cut(x.own, index), x.arithmetic, x.held, shared, x.kinds)


def assembled(shape: tuple[int, ...], indices: Iterator[Index], of: Callable[[Index], Spread]) -> Spread:
    """One value of what `of` gives for each block."""
    value, own, shared = numpy.empty(shape), numpy.empty(shape), dict[Source, Array]()
    found = None
    for index in indices:
        found = of(index)
        value[index], own[index] = found.value, found.own
        for source, c in found.shared.items():
            if source not in shared:
                shared[source] = numpy.zeros(shape)
            shared[source][index] = c
    assert found is not None
    return Spread(value, own, found.arithmetic, found.held, shared, found.kinds)


def blockwise(f: Callable[..., Spread]) -> Callable[..., Spread]:
    """The method of an arithmetic that takes values with a spread and nothing else, element by element."""

    @functools.wraps(f)
    def of(self: Any, *operands: Spread) -> Spread:
        shape = numpy.broadcast_shapes(*(x.shape for x in operands))
        if math.prod(shape) <= BLOCK:
            return f(self, *operands)

        def block(index: Index) -> Spread:
            return f(self, *(cut_spread(x, index) for x in operands))

        return assembled(shape, blocks(shape, BLOCK), block)

    return of


def numbers(of: Callable[..., Array], *operands: Spread) -> Array:
    """One array that is made of these values element by element."""
    shape = numpy.broadcast_shapes(*(x.shape for x in operands))
    if math.prod(shape) <= BLOCK:
        return of(*operands)
    found = numpy.empty(shape)
    for index in blocks(shape, BLOCK):
        found[index] = of(*(cut_spread(x, index) for x in operands))
    return found
