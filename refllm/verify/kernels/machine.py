"""What the text with loops is made of: tiles, memory that nobody has written, narrow numbers, indices of few bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy

from refllm.backend import Array

TILE = 32  # rows, columns and terms of a tile
ROWS = TILE  # queries of a tile of attention
BLOCK = 256  # columns that a row kernel reads at once
INFINITY = float("inf")
UNWRITTEN = numpy.array(0x7FF8DEA000000000, "uint64").view("float64")  # a NaN whose lower bits arithmetic passes on
_SIGN = numpy.uint64(1 << 63)


def tiles(n: int, size: int) -> Iterator[slice]:
    """The parts of n places, each of this size but the last."""
    return (slice(first, min(first + size, n)) for first in range(0, n, size))


def unwritten(shape: tuple[int, ...], like: Array) -> Array:
    """Memory that nobody has written. It holds anything; here that is a NaN, which no right answer is."""
    return numpy.full(shape, UNWRITTEN.astype(like.dtype), like.dtype)


def is_unwritten(x: Array) -> Array:
    """Where numbers of float64 come from such memory: it is no NaN that arithmetic makes of ∞ - ∞ or 0 / 0."""
    found: Array = (x.view("uint64") | _SIGN) == (UNWRITTEN.view("uint64") | _SIGN)
    return found


def first_seen(allowed: Array, start: int, stop: int, which: str) -> int:
    """The first key that a mask allows to a query of a tile: to the first or the last of them that has one, or to the
    middle one."""
    return _seen(allowed, start, stop, which)[0]


def last_seen(allowed: Array, start: int, stop: int, which: str) -> int:
    """The key after the last one that a mask allows to such a query."""
    return _seen(allowed, start, stop, which)[1]


def _seen(allowed: Array, start: int, stop: int, which: str) -> tuple[int, int]:
    mask: Array = numpy.asarray(allowed.reshape(-1, *allowed.shape[-2:]).any(axis=0))
    rows = numpy.flatnonzero(mask[start:stop].any(axis=1)) + start
    if not len(rows):
        return 0, mask.shape[1]
    row = {"first": rows[0], "last": rows[-1], "middle": rows[len(rows) // 2]}[which]
    keys = numpy.flatnonzero(mask[row])
    return int(keys[0]), int(keys[-1]) + 1


def zeros(shape: tuple[int, ...], like: Array) -> Array:
    return numpy.zeros(shape, like.dtype)


def swap(x: Array) -> Array:
    """The last two axes exchanged: a view, whose strides are other ones."""
    return x.swapaxes(-1, -2)


def as_rows(x: Array) -> Array:
    """All rows of the last axis below each other."""
    return x.reshape(-1, x.shape[-1]) if x.size else x.reshape(0, x.shape[-1])


def narrow(x: Any, dtype: str) -> Any:
    """Numbers rounded to bfloat16, tf32 (by cutting, as hardware does), float16 or float32, in their own dtype."""
    wide = numpy.asarray(x)
    if dtype in ("float16", "float32"):
        with numpy.errstate(over="ignore"):
            return wide.astype(dtype).astype(wide.dtype)
    bits = wide.astype("float32").view("uint32")
    if dtype == "tf32":
        kept = bits & numpy.uint32(0xFFFFE000)
    else:
        kept = (bits + numpy.uint32(0x7FFF) + ((bits >> numpy.uint32(16)) & numpy.uint32(1))) & numpy.uint32(0xFFFF0000)
    return kept.view("float32").astype(wide.dtype)


def wrapped(i: Any, bits: int) -> Any:
    """An index in an integer of so few bits, with a sign: what is too large begins again below. Kernels overflow at 32
    bits; a case of that size would take gigabytes, and so the mistakes here count in 16."""
    half = 1 << (bits - 1)
    return (numpy.asarray(i) + half) % (1 << bits) - half


def before(part: slice, size: int) -> slice:
    """The places of the tile before, or of the tile itself if there is none."""
    return slice(part.start - size, part.stop - size) if part.start >= size else part


def first(part: slice) -> slice:
    """As many places from the begin on."""
    return slice(0, part.stop - part.start)
