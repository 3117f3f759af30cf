"""A vector over all parameters, as a moment of an optimiser is, or the share of it that one of several ranks keeps.

The numbers are in the order of a FlatTree. Ranks that share a vector keep runs of it, and nobody has the whole: what
asks for a parameter's numbers gets an array whose numbers come from the ranks, a piece at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from refllm.backend import Array, namespace
from refllm.parameters import Tree, placed
from refllm.pieces import Run, length
from refllm.piecewise import Piecewise, stretches

Part: TypeAlias = tuple[int, Array]  # consecutive numbers of a vector, and where they begin
Ask: TypeAlias = Callable[[slice], list[Part]]


class Share:
    """The runs that are kept of a vector over all leaves of a tree, one after the other in `vector`."""

    def __init__(self, shapes: Tree, kept: Sequence[Run], vector: Array) -> None:
        self.kept, self.vector = kept, vector
        self.places, _ = placed(shapes)
        self.size = sum(math.prod(shape) for _, shape in self.places.values())
        wanted = sum(length(run) for run, _ in kept)
        if vector.shape != (wanted,):
            raise ValueError(f"Share: the vector must be ({wanted},); got {vector.shape}")

    @property
    def whole(self) -> bool:
        """Whether this is all of the vector."""
        return list(self.kept) == whole(self.size)

    @property
    def views(self) -> dict[str, Array]:
        """The leaves by path. ValueError where this is a share of them."""
        if not self.whole:
            raise ValueError("Share: a part of a vector has no leaves; ask for them by `gathered`")
        return {path: self.vector[place].reshape(shape) for path, (place, shape) in self.places.items()}

    def held_of(self, n: slice) -> list[Part]:
        """Those of the numbers n of the whole vector that are kept; none, often."""
        found = []
        for run, own in self.kept:
            start, stop = max(n.start, run.start), min(n.stop, run.stop)
            if start < stop:
                found.append((start, self.vector[own.start + start - run.start : own.start + stop - run.start]))
        return found

    def of(self, n: slice) -> Array:
        """The numbers n of the whole vector, which must be within one run."""
        parts = self.held_of(n)
        return parts[0][1] if parts else self.vector[:0]

    def take(self, start: int, numbers: Array) -> None:
        """Sets those that are kept of the numbers that begin at `start` of the whole vector."""
        for first, own in self.held_of(slice(start, start + len(numbers))):
            taken = numbers[first - start : first - start + len(own)]
            own[...] = namespace(self.vector).asarray(taken.astype(own.dtype))

    def gathered(self, ask: Ask) -> dict[str, Piecewise]:
        """The leaves by path, whose numbers `ask` brings."""
        return {path: gathered(shape, self.vector.dtype, place, ask) for path, (place, shape) in self.places.items()}


def gathered(shape: tuple[int, ...], dtype: Any, place: slice, ask: Ask) -> Piecewise:
    """An array of which nobody has all, whose numbers `ask` brings."""

    def pieces() -> Iterator[Array]:
        for n in stretches(place):
            parts = [numbers for _, numbers in sorted(ask(n), key=lambda part: part[0])]
            yield namespace(parts[0]).concatenate(parts)

    return Piecewise(shape, dtype, pieces)


def whole(size: int) -> list[Run]:
    """What keeps all of a vector."""
    return one_run(slice(0, size))


def one_run(n: slice) -> list[Run]:
    """What keeps these numbers of a vector, and no others."""
    return [(n, slice(0, length(n)))]
