"""A file of tensors, safetensors: eight bytes, a header in JSON, and the numbers, which stay on the disk until read.

The header is compared with the size of the file before anything is believed. The numbers are mapped: an array of
float32 is a view of the file, which takes no memory of the process; the smaller types are widened when they are read.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refllm.backend import Array
from refllm.errors import UserError
from refllm.limited_json import parsed_object, require_file

MOST_HEADER = 100_000_000  # bytes: as the library of the format has it
MOST_AXES = 16
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1,
          "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip
WIDENED = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file, unread."""

    path: Path
    data: Any  # the mapped file
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def read(self) -> Array:
        """In float32, or float64 where the file has it. An array of the file's own type is a view of it."""
        found = widened(self.kept(), self.dtype)
        if self.dtype in ("F16", "BF16"):
            self.forget()
        return found

    def kept(self) -> Array:
        """As the file has it, a view of it: bfloat16, which NumPy lacks, as uint16."""
        if self.dtype not in WIDENED:
            raise UserError(f"{self.path} has a tensor of {self.dtype}; only {', '.join(WIDENED)} are weights")
        size = math.prod(self.shape)
        kinds: dict[str, Any] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
        stored = np.dtype(kinds[self.dtype])
        flat = np.zeros(0, stored)
        if size:
            flat = np.frombuffer(self.data, stored, size, self.start)
        if sys.byteorder == "big":  # the numbers of a file are in little-endian order
            flat = flat.byteswap()
        return flat.reshape(self.shape)

    def is_equal_to(self, other: Tensor) -> bool:
        """Whether both hold the same numbers: where they have the same bytes, neither is widened."""
        if self.dtype == other.dtype and self.shape == other.shape:
            mine, its = (memoryview(one.data)[one.start : one.end] for one in (self, other))
            if mine == its:
                return True
        return bool(np.array_equal(self.read(), other.read()))

    def forget(self) -> None:
        """Lets the pages of the file go whose numbers are in memory of their own now."""
        if hasattr(mmap, "MADV_DONTNEED") and self.end > self.start:
            first = self.start - self.start % mmap.PAGESIZE
            self.data.madvise(mmap.MADV_DONTNEED, first, self.end - first)

    def raw(self) -> bytes:
        """The bytes as they lie in the file."""
        return bytes(self.data[self.start : self.end])


def widened(flat: Array, dtype: str) -> Array:
    """Numbers of a file as float32, or float64: both 16-bit types are parts of float32, so nothing is rounded.

    >>> widened(array([0x3F80, 0xC000], np.uint16), "BF16").tolist()  # the upper half of a float32
    [1.0, -2.0]
    """
    if dtype == "BF16":
        bits = flat.astype(np.uint32)
        bits <<= np.uint32(16)
        return bits.view(np.float32)
    return flat.astype(np.float32) if dtype == "F16" else flat


def narrowed(x: Array, dtype: str) -> bytes | None:
    """The bytes of an array in a type of a file, None where a number would have to be rounded.

    >>> narrowed(array([1.0], np.float32), "BF16"), narrowed(array([1.001], np.float32), "BF16")
    (b'\x80?', None)
    """
    x = np.ascontiguousarray(x)
    if dtype == "BF16":
        bits = x.astype(np.float32, copy=False).view(np.uint32)
        exact = x.dtype == np.float32 and not (bits & np.uint32(0xFFFF)).any()
        return (bits >> np.uint32(16)).astype("<u2").tobytes() if exact else None
    stored = x.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
    return stored.tobytes() if np.array_equal(stored.astype(x.dtype), x, equal_nan=True) else None


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, none of them read.

    Raises: UserError for a header that does not belong to the file: too long, damaged, with a name twice, offsets that
    overlap, leave gaps or lie outside, or a size that is not that of its shape.
    """
    try:
        require_file(path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise UserError(f"{path} has a header longer than the file, {size:,} bytes; get the file again")
            if length > MOST_HEADER:
                raise UserError(f"{path} has a header of {length:,} bytes; {MOST_HEADER:,} are the most")
            header = file.read(length)
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; get the file, or remove its name from the index") from None
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read ({error}); check the path and its permissions") from None
    entries = parsed_object(header, what=f"the header of {path}")
    entries.pop("__metadata__", None)
    found = {name: _tensor(path, data, name, entry, start=8 + length) for name, entry in entries.items()}
    _require_tiling(path, found, start=8 + length, end=size)
    return found


def _tensor(path: Path, data: Any, name: str, entry: Any, *, start: int) -> Tensor:
    try:
        dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        plain = all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, first, last))
        if not plain or len(shape) > MOST_AXES or not isinstance(dtype, str):
            raise ValueError("its shape and offsets are not whole numbers of a size that files have")
        if dtype not in WIDTHS:
            raise ValueError(f"its type {dtype[:20]!r} is not known")
        if math.prod(shape) * WIDTHS[dtype] != last - first:
            raise ValueError(f"{dtype} {shape} does not take {last - first:,} bytes")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: the tensor {name[:100]!r} is declared wrongly ({error}); get the file again"
        ) from None
    return Tensor(path, data, dtype, shape, start + first, start + last)


def _require_tiling(path: Path, tensors: dict[str, Tensor], *, start: int, end: int) -> None:
    """UserError unless the tensors lie one behind the other, from the end of the header to that of the file."""
    at = start
    for name, one in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if one.end > end:
            raise UserError(f"{path}: the tensor {name[:100]!r} lies outside the file, which may have been cut short")
        if one.start != at:
            what = "overlaps the one before it" if one.start < at else f"lies {one.start - at:,} bytes behind it"
            raise UserError(f"{path}: the tensor {name[:100]!r} {what}; get the file again")
        at = one.end
    if at != end:
        raise UserError(f"{path} has {end - at:,} bytes that belong to no tensor; get the file again")
