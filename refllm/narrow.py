"""Matrices whose numbers are kept in 16 or 8 bits, as a file has them, and widened a block at a time in use.

    Narrow(stored, form="bfloat16", turned=True)      stands for the matrix stored.T in float32

A product widens some rows into a buffer that stays in the cache, multiplies them, and goes on with the next ones: what
moves from the memory is the narrow form. On the host alone; to a device goes what is widened.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]
else:
    Array = Any

FORMS = ("bfloat16", "float16", "int8")
BLOCK = 1 << 17  # numbers that are widened at once: half a megabyte of float32, which a core keeps beside it
SHARED = 1 << 18  # numbers from which on a product is worth more than one thread
_HIGH, _SHIFT = np.uint32(0xFFFF0000), np.uint32(16)
_own = threading.local()


class Narrow:
    """A matrix (I, O) in float32, of which `stored` has the numbers: (I, O), or (O, I) if it is `turned`.

    "bfloat16" is stored as uint16, the upper half of a float32; "float16" as such; "int8" as whole numbers with
    `scale`, a float32 for each row, or for each column, of what is stored.
    """

    __array_ufunc__ = None  # x @ W then asks W
    ndim = 2
    dtype = np.dtype(np.float32)  # what it is in use

    def __init__(self, stored: Array, *, form: str, turned: bool = False, scale: Array | None = None) -> None:
        if form not in FORMS or stored.ndim != 2 or (form == "int8") != (scale is not None):
            raise ValueError(f"Narrow: a matrix of {form} cannot be made of {stored.dtype} {stored.shape}")
        self.stored, self.form, self.turned, self.scale = stored, form, turned, scale
        self.shape: tuple[int, int] = stored.shape[::-1] if turned else stored.shape

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        return self.stored.size

    @property
    def nbytes(self) -> int:
        return self.stored.nbytes + (0 if self.scale is None else self.scale.nbytes)

    @property
    def flags(self) -> Any:
        """The order in the memory: that of what is stored."""
        return self.stored.T.flags if self.turned else self.stored.flags

    @property
    def T(self) -> Narrow:  # noqa: N802 (as an array has it)
        return Narrow(self.stored, form=self.form, turned=not self.turned, scale=self.scale)

    def widened(self) -> Array:
        """The whole matrix in float32, an array of its own."""
        wide = np.empty(self.stored.shape, np.float32)
        for start, stop in _blocks(self.stored):
            for part, columns in _parts(self.stored[start:stop], self.form):
                wide[start:stop, columns] = part
        if self.scale is not None:
            wide *= self.scale
        return wide.T if self.turned else wide

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a narrow matrix becomes an array by a copy alone")
        wide = self.widened()
        return wide if dtype is None else wide.astype(dtype, copy=False)

    def __getitem__(self, rows: Array) -> Array:
        """Rows by their numbers, as a table of tokens gives them."""
        if self.turned:
            return self.widened()[rows]
        picked = self.stored[rows]
        flat = picked.reshape(-1, self.stored.shape[1])
        wide = np.empty(flat.shape, np.float32)
        for part, columns in _parts(flat, self.form):
            wide[:, columns] = part
        if self.scale is not None:
            per_row = self.scale.shape[1] == 1 and self.scale.shape[0] == len(self.stored)
            wide *= self.scale[rows].reshape(-1, 1) if per_row else self.scale
        return wide.reshape(picked.shape)

    def __rmatmul__(self, x: Array) -> Array:
        """x W for x (..., I)."""
        return self.after(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.shape[1])

    def after(self, x: Array) -> Array:
        """x W for rows x (N, I): in float32, or wider where x is."""
        rows, columns = self.stored.shape
        scale = self.scale
        if scale is not None and (scale.shape[1] == 1) is not self.turned:  # a scale of each input
            x, scale = x * _flat(scale, x.dtype), None
        y = np.zeros((len(x), self.shape[1]), np.result_type(x.dtype, np.float32))

        def multiply(first: int, last: int) -> None:
            if self.turned:
                _dot_rows(x, self.stored[first:last], self.form, y[:, first:last])
            else:
                _add_rows(x, self.stored[:, first:last], self.form, y[:, first:last])

        _shared_out(multiply, rows if self.turned else columns, work=self.stored.size)
        if scale is not None:
            y *= _flat(scale, y.dtype)
        return y


def joined(parts: list[Narrow]) -> Narrow:
    """The matrices side by side, along their last axis. All are of one form, and turned or not alike."""
    first = parts[0]
    if len(parts) == 1:
        return first
    axis = 0 if first.turned else 1
    stored = np.concatenate([part.stored for part in parts], axis=axis)
    scales = [part.scale for part in parts if part.scale is not None]
    scale = np.concatenate(scales, axis=axis) if scales else None
    return Narrow(stored, form=first.form, turned=first.turned, scale=scale)


def in_8_bits(wide: Narrow | Array, *, axis: int) -> Narrow:
    """round(W / s) in 8 bits, with a scale s = max|W| / 127 along `axis` of the matrix, as `finetune.stored.quantised`

    A block at a time: nothing of the matrix's size is made but the 8 bits. `axis` is that of what is stored, turned as
    the matrix is.
    """
    source, form, turned = _source(wide)
    along = axis % 2 if not turned else 1 - axis % 2
    largest = np.zeros((source.shape[0], 1) if along == 1 else (1, source.shape[1]), np.float32)
    for start, stop in _blocks(source):
        block = abs(_block(source, start, stop, form))
        if along == 1:
            largest[start:stop] = block.max(axis=1, keepdims=True, initial=0)
        else:
            np.maximum(largest, block.max(axis=0, keepdims=True, initial=0), out=largest)
    scale = largest / np.float32(127)
    scale[scale == 0] = 1
    stored = np.empty(source.shape, np.int8)
    for start, stop in _blocks(source):
        block = _block(source, start, stop, form)
        block /= scale[start:stop] if along == 1 else scale
        stored[start:stop] = np.clip(np.rint(block, out=block), -127, 127, out=block)
    return Narrow(stored, form="int8", turned=turned, scale=scale)


def in_bfloat16(wide: Narrow | Array) -> Narrow:
    """The matrix in 16 bits, each number the nearest that they have, of two the even one. A number that would round to
    infinity becomes the largest."""
    if isinstance(wide, Narrow) and wide.form == "bfloat16":
        return wide
    source, form, turned = _source(wide)
    stored = np.empty(source.shape, np.uint16)
    for start, stop in _blocks(source):
        bits = _block(source, start, stop, form).view(np.uint32)
        bits += ((bits >> _SHIFT) & np.uint32(1)) + np.uint32(0x7FFF)
        bits >>= _SHIFT
        bits -= (bits & np.uint32(0x7FFF)) == 0x7F80
        stored[start:stop] = bits
    return Narrow(stored, form="bfloat16", turned=turned)


def _source(wide: Narrow | Array) -> tuple[Array, str | None, bool]:
    """What a matrix is stored as, in which form, and whether it is turned: of an array its rows as they lie."""
    if isinstance(wide, Narrow):
        return wide.stored, wide.form, wide.turned
    turned = not wide.flags.c_contiguous
    return wide.T if turned else wide, None, turned


def _block(source: Array, start: int, stop: int, form: str | None) -> Array:
    """Some rows in float32, an array of their own."""
    block = source[start:stop]
    return block.astype(np.float32) if form is None else Narrow(block, form=form).widened()


def is_finite(stored: Array, form: str) -> bool:
    """Whether all numbers of a 16-bit form are finite: no exponent is all ones."""
    ones = {"bfloat16": 0x7F80, "float16": 0x7C00}[form]
    bits = stored.view(np.uint16)
    return all(not ((bits[a:b] & np.uint16(ones)) == ones).any() for a, b in _blocks(bits))


def _flat(scale: Array, dtype: Any) -> Array:
    return scale.reshape(1, -1).astype(dtype, copy=False)


def _blocks(stored: Array) -> Iterator[tuple[int, int]]:
    rows = max(1, BLOCK // max(1, stored.shape[1]))
    for start in range(0, len(stored), rows):
        yield start, min(start + rows, len(stored))


def _dot_rows(x: Array, stored: Array, form: str, y: Array) -> None:
    """y = x storedᵀ, each row of what is stored an output."""
    cut: dict[Any, Array] = {}
    for start, stop in _blocks(stored):
        for part, columns in _parts(stored[start:stop], form):
            key = (columns.start, columns.step)
            if key not in cut:
                cut[key] = np.ascontiguousarray(x[:, columns])
            if columns.start:
                y[:, start:stop] += cut[key].dot(part.T)
            else:
                y[:, start:stop] = cut[key].dot(part.T)


def _add_rows(x: Array, stored: Array, form: str, y: Array) -> None:
    """y += x stored, each row of what is stored an input."""
    for start, stop in _blocks(stored):
        these = np.ascontiguousarray(x[:, start:stop])
        for part, columns in _parts(stored[start:stop], form):
            y[:, columns] += these.dot(part)


def _parts(block: Array, form: str) -> Iterator[tuple[Array, slice]]:
    """The numbers of some rows in float32 without their scale, and the columns that they are of. All parts stand in one
    buffer: each is done with before the next comes."""
    room = _room(block.size)
    if form == "bfloat16" and _has_pairs(block):
        # two numbers to a word: one operation on whole words gives the second of each, another one the first
        words = block.view(np.uint32)
        into = room[: words.size].reshape(words.shape)
        yield np.left_shift(words, _SHIFT, out=into).view(np.float32), slice(0, None, 2)
        yield np.bitwise_and(words, _HIGH, out=into).view(np.float32), slice(1, None, 2)
        return
    into = room[: block.size].reshape(block.shape)
    wide = into.view(np.float32)
    if form == "bfloat16":
        np.copyto(into, block)
        np.left_shift(into, _SHIFT, out=into)
    elif form == "float16":
        np.take(_every_float16(), block.view(np.uint16), out=wide, mode="clip")  # faster than NumPy's own conversion
    else:
        np.copyto(wide, block)
    yield wide, slice(0, None, 1)


def _has_pairs(block: Array) -> bool:
    even = block.shape[1] % 2 == 0 and block.strides[1] == 2 and block.strides[0] % 4 == 0
    return sys.byteorder == "little" and even and block.__array_interface__["data"][0] % 4 == 0


@lru_cache(maxsize=1)
def _every_float16() -> Array:
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def _room(size: int) -> Array:
    """A buffer of this thread for so many words of 32 bits."""
    room: Array | None = getattr(_own, "room", None)
    if room is None or room.size < size:
        room = _own.room = np.empty(max(size, BLOCK), np.uint32)
    return room


def _shared_out(multiply: Callable[[int, int], None], across: int, *, work: int) -> None:
    """`multiply` over the whole of an axis, in as many parts as BLAS may have threads: each widens and multiplies its
    own, with a BLAS of one thread."""
    threads, limited = _machine()
    if threads == 1 or work < SHARED or across < 4 * threads or not _sharing().acquire(blocking=False):
        multiply(0, across)
        return
    each = -(-across // (2 * threads)) * 2  # even: a word holds two numbers
    cuts = [(i, min(i + each, across)) for i in range(0, across, each)]
    try:
        with limited():
            others = [_pool(threads - 1).submit(multiply, *cut) for cut in cuts[1:]]
            multiply(*cuts[0])
            for one in others:
                one.result()
    finally:
        _sharing().release()


@lru_cache(maxsize=1)
def _machine() -> tuple[int, Callable[[], Any]]:
    """How many threads BLAS has, and a context in which it has one."""
    from threadpoolctl import ThreadpoolController

    blas = ThreadpoolController().select(user_api="blas")
    threads = max((one["num_threads"] for one in blas.info()), default=1)
    return threads, lambda: blas.limit(limits=1)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # here, since few that import this need it

    return ThreadPoolExecutor(threads, thread_name_prefix="refllm-narrow")


@lru_cache(maxsize=1)
def _sharing() -> Any:
    """The threads of BLAS are a setting of the whole process: one product at a time changes it."""
    return threading.Lock()


def _forget_threads() -> None:
    """A forked process has none of its parent's threads."""
    _sharing.cache_clear()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
