"""Masks that are kept in bits, row by row, and read with another stride than they were written with, or of another row:
those that are given, and the signs that relu keeps for its gradient.

masks()                     (name, words that follow "whose mask ", what makes another mask of a mask)
saved_signs("relu")         … whose gradient reads x > 0 of the row before
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations

import numpy

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.kernels.siblings import Sibling

Change = Callable[[Array], Array]
Stride = Callable[[int], int]  # of how many places a row has: how many bits lie between the beginnings of two
UNITS = {8: "bytes", 32: "words of 32 bits", 64: "words of 64 bits", 16: "words of 16 bits", 128: "128 bits"}


def _up(unit: int) -> Stride:
    return lambda n: -(-n // unit) * unit


def _down(unit: int) -> Stride:
    return lambda n: max(n // unit, 1) * unit


def masks() -> Iterator[tuple[str, str, Change]]:
    for unit, words in UNITS.items():
        yield (
            "read-by-shorter-rows",
            f"has rows that are rounded up to whole {words}, and is read as if they were rounded down",
            _read(_up(unit), _down(unit)),
        )
        yield (
            "read-by-shorter-rows",
            f"has rows one after the other, and is read as if they were rounded down to whole {words}",
            _read(lambda n: n, _down(unit)),
        )
        yield "tail-lost", f"has rows that are cut to whole {words}, and is false behind them", _cut(unit)
    for one, other in permutations((8, 32, 64, 16), 2):
        yield (
            "read-by-other-units",
            f"has rows of whole {UNITS[one]}, and is read as if they were of whole {UNITS[other]}",
            _read(_up(one), _up(other)),
        )
    yield "as-if-padded", "is read as if its rows were padded to a power of two", _read(lambda n: n, _power)
    yield "in-padded-rows", "has rows that are padded to a power of two, and is read as if not", _read(_power, int)
    yield "of-row-before", "is read of the row before", _of_row(lambda rows: rows - 1)
    yield "of-row-after", "is read of the row after", _of_row(lambda rows: (rows + 1) % max(1, len(rows)))
    yield "of-first-row", "is read of the first row for all", _of_row(lambda rows: 0 * rows)
    yield "rows-turned", "is read of the rows in the reverse order", _of_row(lambda rows: rows[::-1])


def _power(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _read(written: Stride, read: Stride) -> Change:
    """Behind the end of all there are zeros."""

    def change(mask: Array) -> Array:
        if mask.ndim < 2 or not mask.size:
            return mask
        n = mask.shape[-1]
        rows = mask.reshape(-1, n)
        memory = numpy.pad(rows, ((0, 0), (0, written(n) - n))).reshape(-1)
        place = numpy.arange(len(rows))[:, None] * read(n) + numpy.arange(n)
        found = memory[numpy.minimum(place, len(memory) - 1)] & (place < len(memory))
        return found.reshape(mask.shape)

    return change


def _cut(unit: int) -> Change:
    return lambda mask: mask & (numpy.arange(mask.shape[-1]) < mask.shape[-1] // unit * unit) if mask.ndim else mask


def _of_row(which: Callable[[Array], Array]) -> Change:
    def change(mask: Array) -> Array:
        if mask.ndim < 2 or not mask.size:
            return mask
        rows = mask.reshape(-1, mask.shape[-1])
        return rows[which(numpy.arange(len(rows)))].reshape(mask.shape)

    return change


def saved_signs(operation: str) -> Iterator[Sibling]:
    called = plain.called(operation) if operation in plain.operations() else ()
    for function in (f for f in called if f.__name__ == "relu"):
        for name, words, change in masks():
            about = f"{operation} whose gradient keeps x > 0 of relu as a mask that {words}"
            exchanged = {function: _with_signs(function, change)}
            yield Sibling(f"{operation}/signs-{name}", about, exchanged, gradients_alone=True)


def _with_signs(function: plain.Function, change: Change) -> plain.Function:
    def exchanged(x: Array) -> tuple[Array, plain.Function]:
        y, _ = function(x)
        return y, lambda dy: numpy.where(change(x > 0), dy, 0)

    return exchanged
