"""The moments of an optimiser, or the stretch of them that one of several ranks keeps.

A moment is a vector over all parameters, in the order of a FlatTree. Ranks that share the moments have consecutive
stretches of it, and nobody has the whole: what asks for a parameter's moment gets an array whose numbers come from the
ranks, a piece at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from refllm.backend import Array, namespace
from refllm.parameters import Tree, placed

PIECE = 1 << 20  # numbers that are sent at a time

Ask = Callable[[slice], Array]


class Moments:
    """The stretch `own` of a vector over all leaves of a tree."""

    def __init__(self, shapes: Tree, own: slice, vector: Array) -> None:
        self.own, self.vector = own, vector
        self.places, _ = placed(shapes)
        self.size = sum(math.prod(shape) for _, shape in self.places.values())
        if vector.shape != (own.stop - own.start,):
            raise ValueError(f"Moments: the vector must be ({own.stop - own.start},); got {vector.shape}")

    @property
    def whole(self) -> bool:
        """Whether this is all of the vector."""
        return self.own == slice(0, self.size)

    @property
    def views(self) -> dict[str, Array]:
        """The leaves by path. ValueError where this is a stretch."""
        if not self.whole:
            raise ValueError("Moments: a stretch has no leaves; ask for them by `gathered`")
        return {path: self.vector[place].reshape(shape) for path, (place, shape) in self.places.items()}

    def of(self, n: slice) -> Array:
        """The numbers n of the whole vector, which must be of the own ones."""
        return self.vector[n.start - self.own.start : n.stop - self.own.start]

    def held_of(self, n: slice) -> Array:
        """Those of the numbers n that are of the own ones; none, often."""
        start, stop = max(n.start, self.own.start), min(n.stop, self.own.stop)
        return self.of(slice(start, stop)) if start < stop else self.vector[:0]

    def take(self, start: int, numbers: Array) -> None:
        """Sets the own ones of the numbers that begin at `start` of the whole vector."""
        first, last = max(start, self.own.start), min(start + len(numbers), self.own.stop)
        if first < last:
            own = numbers[first - start : last - start]
            self.of(slice(first, last))[...] = namespace(self.vector).asarray(own.astype(self.vector.dtype))

    def gathered(self, ask: Ask) -> dict[str, Gathered]:
        """The leaves by path, whose numbers `ask` brings."""
        return {path: Gathered(shape, self.vector.dtype, place, ask) for path, (place, shape) in self.places.items()}


class Gathered:
    """An array of which nobody has all: `pieces` brings its numbers in C order, PIECE at a time."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, place: slice, ask: Ask) -> None:
        self.shape, self.dtype, self.place, self._ask = shape, dtype, place, ask

    def pieces(self) -> Iterator[Array]:
        for n in stretches(self.place):
            yield self._ask(n)


def stretches(n: slice) -> Iterator[slice]:
    """The numbers n, PIECE at a time."""
    for start in range(n.start, n.stop, PIECE):
        yield slice(start, min(start + PIECE, n.stop))
