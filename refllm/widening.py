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


def passes(stored: Array, form: str) -> tuple[Array, tuple[tuple[slice, Any, Any], ...]]:
    """What is stored, as words if it can be, and how the numbers of some columns come from a block of it.

    `operation(block, constant, room)` puts the bits of float32 into a buffer, for each of the passes. Where two numbers
    are a word, one operation on whole words gives the first of each, another one the second.
    """
    if form != "int8" and _has_pairs(stored):
        return stored.view(np.uint32), _PAIRS[form]
    return stored, _ONE_BY_ONE[form]


def widened(stored: Array, form: str) -> Array:
    """All numbers in float32 without their scale, an array of their own."""
    wide = np.empty(stored.shape, np.float32)
    source, steps = passes(stored, form)
    for rows in blocks(stored):
        block = source[rows]
        room = _room(block.size).reshape(block.shape)
        for columns, operation, constant in steps:
            operation(block, constant, room)
            wide[rows, columns] = room.view(np.float32)
    return wide


def multiply_outputs(x: Array, stored: Array, form: str, y: Array) -> None:
    """y = stored xᵀ for rows x (N, I) and y (O, N): each row of what is stored is an output."""
    source, steps = passes(stored, form)
    vectors = len(x) == 1  # a product with a matrix of one column costs more
    todo = []
    for columns, operation, constant in steps:
        factor = x[0, columns].copy() if vectors else np.ascontiguousarray(x[:, columns].T)
        total = np.empty_like(y) if todo else y
        todo.append((operation, constant, factor, total[:, 0] if vectors else total))
    room: Any = ()
    # between two blocks the caches of a core have lost Python: each step that is not there saves a microsecond
    for rows in blocks(stored):
        block = source[rows]
        if len(room) != len(block):
            room = _room(block.size).reshape(block.shape)
            wide = room.view(np.float32)
        for operation, constant, factor, total in todo:
            operation(block, constant, room)
            np.dot(wide, factor, total[rows])
    for *_, other in todo[1:]:
        todo[0][-1][...] += other


def multiply_inputs(x: Array, stored: Array, form: str, y: Array) -> None:
    """y = x stored for rows x (N, I) and y (N, O): each row of what is stored is an input."""
    source, steps = passes(stored, form)
    sums = [np.zeros((len(x), y[0:1, columns].shape[1]), y.dtype) for columns, *_ in steps]
    for rows in blocks(stored):
        block, some = source[rows], np.ascontiguousarray(x[:, rows])
        room = _room(block.size).reshape(block.shape)
        for total, (_, operation, constant) in zip(sums, steps, strict=True):
            operation(block, constant, room)
            total += some.dot(room.view(np.float32))
    for total, (columns, *_) in zip(sums, steps, strict=True):
        y[:, columns] = total


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


def _each_int8(block: Array, _: None, room: Array) -> None:
    """At first one number of every line is read, all of which then come at the same time: widening 8 bits takes so many
    instructions that the memory would wait for them, and they for the memory."""
    if block.flags.c_contiguous:
        lines = block.reshape(-1)[::LINE]
        np.copyto(room.reshape(-1).view(np.int8)[: lines.size], lines)
    np.copyto(room.view(np.float32), block)


_PAIRS: dict[str, tuple[tuple[slice, Any, Any], ...]] = {
    "bfloat16": ((_EVEN, np.left_shift, _HALF), (_ODD, np.bitwise_and, _HIGH)),
    "float16": ((_EVEN, _first_float16, None), (_ODD, _second_float16, None)),
}
_ONE_BY_ONE: dict[str, tuple[tuple[slice, Any, Any], ...]] = {
    "bfloat16": ((_ALL, _each_bfloat16, None),),
    "float16": ((_ALL, _each_number, None),),
    "int8": ((_ALL, _each_int8, None),),
}


def _has_pairs(stored: Array) -> bool:
    """Whether two numbers of a row are a word, wherever in the memory a row begins."""
    even = stored.shape[1] % 2 == 0 and stored.strides[1] == 2 and stored.strides[0] % 4 == 0
    return sys.byteorder == "little" and even and stored.__array_interface__["data"][0] % 4 == 0


def _room(size: int) -> Array:
    """A buffer of this thread for so many words of 32 bits."""
    room: Array | None = getattr(_own, "room", None)
    if room is None or room.size < size:
        room = _own.room = np.empty(max(size, BLOCK), np.uint32)
    return room[:size]
