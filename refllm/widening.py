"""Numbers in 16 and 8 bits as float32, a block of rows at a time, and products with them.

A block is widened into a buffer that stays in the cache of a core and is multiplied there: what moves from the memory
is the narrow form. The steps are the cheapest that NumPy has: whole words, without a copy in between.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]
else:
    Array = Any

FORMS = ("bfloat16", "float16", "int8")
BLOCK = 1 << 17  # numbers of a block: with those that are stored, a half of what a core keeps beside it at most
LINE = 64  # bytes that come from the memory at once
_HIGH, _HALF = np.uint32(0xFFFF0000), np.uint32(16)
_HALF_SIGNED, _THREE = np.int32(16), np.int32(3)
_SIGN_AND_REST = np.int32(-0x70002000)  # 0x8FFFE000: the sign, and exponent and fraction three places further right
_BIAS = np.float32(2.0**112)  # between the exponents of float16 and of float32
_ALL, _EVEN, _ODD = slice(None), slice(0, None, 2), slice(1, None, 2)
_own = threading.local()


def blocks(stored: Array) -> Iterator[slice]:
    """The rows of each block, all but the last of one size."""
    count = max(1, -(-stored.size // BLOCK))
    rows = max(1, -(-len(stored) // count))
    for start in range(0, len(stored), rows):
        yield slice(start, min(start + rows, len(stored)))


class Widener:
    """The rows of a matrix in float32, a block at a time. What each block is, is found once, not at every product.

    `operation(block, constant, room)` puts the bits of float32 into a buffer, for each of the passes. Where two numbers
    are a word, one operation on whole words gives the first of each, another one the second.
    """

    def __init__(self, stored: Array, form: str) -> None:
        pairs = form != "int8" and _has_pairs(stored)
        source = stored.view(np.uint32) if pairs else stored
        self.passes = (_PAIRS if pairs else _ONE_BY_ONE)[form]
        self.blocks = [(rows, source[rows], _lines(source[rows], form)) for rows in blocks(stored)]
        self.shape = stored.shape
        self.largest = self.blocks[0][1].shape if self.blocks else (0, source.shape[1])

    def widened(self) -> Array:
        """All numbers without their scale, an array of their own."""
        wide = np.empty(self.shape, np.float32)
        for rows, block, _ in self.blocks:
            room = _room(block.size).reshape(block.shape)
            for columns, operation, constant in self.passes:
                operation(block, constant, room)
                wide[rows, columns] = room.view(np.float32)
        return wide

    def outputs(self, x: Array, y: Array) -> None:
        """y = W xᵀ for rows x (N, I) and y (O, N): each row of what is stored is an output."""
        if len(x) == 1:  # vectors: a product with a matrix of one column costs more
            x, y = x[0], y[:, 0]
        todo: list[tuple[Any, Any, Array, Array]] = []
        for columns, operation, constant in self.passes:
            todo.append((operation, constant, x.T[columns].copy(), np.empty_like(y) if todo else y))
        room, wide = self._buffer()
        # between two blocks a core has lost Python from its cache: each step that is not there saves a microsecond
        for rows, block, lines in self.blocks:
            if len(room) != len(block):
                room, wide = room[: len(block)], wide[: len(block)]
            if lines is not None:
                lines.copy()
            for operation, constant, factor, total in todo:
                operation(block, constant, room)
                np.dot(wide, factor, total[rows])
        for *_, other in todo[1:]:
            y += other

    def inputs(self, x: Array, y: Array) -> None:
        """y = x W for rows x (N, I) and y (N, O): each row of what is stored is an input."""
        sums = [np.zeros((len(x), y[:1, columns].shape[1]), y.dtype) for columns, *_ in self.passes]
        room, wide = self._buffer()
        for rows, block, lines in self.blocks:
            if len(room) != len(block):
                room, wide = room[: len(block)], wide[: len(block)]
            some = np.ascontiguousarray(x[:, rows])
            if lines is not None:
                lines.copy()
            for total, (_, operation, constant) in zip(sums, self.passes, strict=True):
                operation(block, constant, room)
                total += some.dot(wide)
        for total, (columns, *_) in zip(sums, self.passes, strict=True):
            y[:, columns] = total

    def _buffer(self) -> tuple[Array, Array]:
        """Room for the largest block, as whole numbers and as float32."""
        rows, width = self.largest
        room = _room(rows * width).reshape(rows, width)
        return room, room.view(np.float32)


def _first_float16(words: Array, _: None, room: Array) -> None:
    signed = room.view(np.int32)
    np.left_shift(words.view(np.int32), _HALF_SIGNED, signed)
    _second_float16(room, None, room)


def _second_float16(words: Array, _: None, room: Array) -> None:
    """The fields of each number go where float32 has them, and its exponent gets the bias that it has there."""
    signed, wide = room.view(np.int32), room.view(np.float32)
    np.right_shift(words.view(np.int32), _THREE, signed)
    np.bitwise_and(signed, _SIGN_AND_REST, signed)
    np.multiply(wide, _BIAS, wide)


def _each_bfloat16(block: Array, _: None, room: Array) -> None:
    np.copyto(room, block)
    np.left_shift(room, _HALF, room)


def _each_number(block: Array, _: None, room: Array) -> None:
    np.copyto(room.view(np.float32), block)


def _lines(block: Array, form: str) -> Array | None:
    """One number of every line of 8 bits, to be read at first: all lines then come at the same time. Widening takes so
    many instructions that the memory would wait for them, and they for the memory. 16 bits gain nothing by it."""
    return block.reshape(-1)[::LINE] if form == "int8" and block.flags.c_contiguous else None


_PAIRS: dict[str, tuple[tuple[slice, Any, Any], ...]] = {
    "bfloat16": ((_EVEN, np.left_shift, _HALF), (_ODD, np.bitwise_and, _HIGH)),
    "float16": ((_EVEN, _first_float16, None), (_ODD, _second_float16, None)),
}
_ONE_BY_ONE: dict[str, tuple[tuple[slice, Any, Any], ...]] = {
    "bfloat16": ((_ALL, _each_bfloat16, None),),
    "float16": ((_ALL, _each_number, None),),
    "int8": ((_ALL, _each_number, None),),
}


def _has_pairs(stored: Array) -> bool:
    """Whether two numbers of a row are a word, wherever in the memory a row begins."""
    even = stored.shape[1] % 2 == 0 and stored.strides[1] == 2 and stored.strides[0] % 4 == 0
    return sys.byteorder == "little" and even and stored.__array_interface__["data"][0] % 4 == 0


def _room(size: int) -> Array:
    """A buffer of this thread for so many words of 32 bits, which begins with a line: a vector that lies across two of
    them takes twice the time."""
    room: Array | None = getattr(_own, "room", None)
    if room is None or room.size < size:
        memory = np.empty(4 * max(size, BLOCK) + LINE, np.uint8)
        start = -memory.__array_interface__["data"][0] % LINE
        room = _own.room = memory[start : start + 4 * max(size, BLOCK)].view(np.uint32)
    return room[:size]
