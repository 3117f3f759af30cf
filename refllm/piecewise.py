"""Arrays of which no memory need hold all: their numbers come in C order, so many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from refllm.backend import Array, namespace

PIECE = 1 << 20  # numbers at a time


class Piecewise:
    """An array that lies elsewhere, in a file or with several ranks, until its `pieces` are asked for."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, pieces: Callable[[], Iterator[Array]]) -> None:
        self.shape, self.dtype, self._pieces = shape, dtype, pieces

    def pieces(self) -> Iterator[Array]:
        """The numbers in C order, vector after vector."""
        return self._pieces()

    def whole(self) -> Array:
        """All of it in one array."""
        pieces = list(self.pieces())
        return namespace(pieces[0]).concatenate(pieces).reshape(self.shape)


def stretches(n: slice) -> Iterator[slice]:
    """The numbers n, PIECE at a time."""
    for start in range(n.start, n.stop, PIECE):
        yield slice(start, min(start + PIECE, n.stop))


def pieces_of(x: Any) -> Iterator[Array]:
    """The numbers of an array in C order, whether it is there or piecewise."""
    if isinstance(x, Piecewise):
        yield from x.pieces()
        return
    numbers = x.reshape(-1)
    for n in stretches(slice(0, len(numbers))):
        yield numbers[n]


def whole_array(x: Any) -> Array:
    return x.whole() if isinstance(x, Piecewise) else x
