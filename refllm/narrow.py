"""Matrices whose numbers are kept in 16 or 8 bits, as a file has them, and widened a block at a time in use.

    Narrow(stored, form="bfloat16", turned=True)      stands for the matrix stored.T in float32

On the host alone; to a device goes what is widened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from refllm.own_threads import in_parts, part_count
from refllm.widening import FORMS, Widener, blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]
else:
    Array = Any

_SHIFT = np.uint32(16)


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
        self._wideners: dict[tuple[int, int], Widener] = {}
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
        wide = Widener(self.stored, self.form).widened()
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
        wide = Widener(picked.reshape(-1, self.stored.shape[1]), self.form).widened()
        if self.scale is not None:
            per_row = self.scale.shape[1] == 1 and self.scale.shape[0] == len(self.stored)
            wide *= self.scale[rows].reshape(-1, 1) if per_row else self.scale
        return wide.reshape(picked.shape)

    def __rmatmul__(self, x: Array) -> Array:
        """x W for x (..., I)."""
        return self.after(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.shape[1])

    def after(self, x: Array) -> Array:
        """x W for rows x (N, I): in float32, or wider where x is."""
        scale = self.scale
        if scale is not None and (scale.shape[1] == 1) is not self.turned:  # a scale of each input
            x, scale = x * _flat(scale, x.dtype), None
        y = (self._outputs if self.turned else self._inputs)(x)
        if scale is not None:
            y *= _flat(scale, y.dtype)
        return y

    def _outputs(self, x: Array) -> Array:
        """x storedᵀ, some of the outputs by each thread."""
        y = np.empty((len(self.stored), len(x)), _dtype(x))
        count = self._count()
        if count == 1:
            self._rows(0, len(self.stored)).outputs(x, y)
        else:
            in_parts(lambda _, first, last: self._rows(first, last).outputs(x, y[first:last]), len(y), count)
        return y.reshape(1, -1) if len(x) == 1 else np.ascontiguousarray(y.T)

    def _inputs(self, x: Array) -> Array:
        """x stored, some of the inputs by each thread."""
        count = self._count()
        sums = np.empty((count, len(x), self.stored.shape[1]), _dtype(x))

        def multiply(part: int, first: int, last: int) -> None:
            self._rows(first, last).inputs(x[:, first:last], sums[part])

        in_parts(multiply, len(self.stored), count)
        return sums[0] if count == 1 else sums.sum(axis=0)

    def _count(self) -> int:
        """In how many parts what is stored is multiplied."""
        return part_count(self.stored.size, len(self.stored))

    def _rows(self, first: int, last: int) -> Widener:
        found = self._wideners.get((first, last))
        if found is None:
            found = self._wideners[first, last] = Widener(self.stored[first:last], self.form)
        return found


def _dtype(x: Array) -> Any:
    """Of a product with rows x."""
    return x.dtype if x.dtype.itemsize > 4 else np.float32


def joined(matrices: list[Narrow]) -> Narrow:
    """The matrices side by side, along their last axis. All are of one form, and turned or not alike."""
    first = matrices[0]
    if len(matrices) == 1:
        return first
    axis = 0 if first.turned else 1
    stored = np.concatenate([one.stored for one in matrices], axis=axis)
    scales = [one.scale for one in matrices if one.scale is not None]
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
    for rows in blocks(source):
        block = abs(_block(source, rows, form))
        if along == 1:
            largest[rows] = block.max(axis=1, keepdims=True, initial=0)
        else:
            np.maximum(largest, block.max(axis=0, keepdims=True, initial=0), out=largest)
    scale = largest / np.float32(127)
    scale[scale == 0] = 1
    stored = np.empty(source.shape, np.int8)
    for rows in blocks(source):
        block = _block(source, rows, form)
        block /= scale[rows] if along == 1 else scale
        stored[rows] = np.clip(np.rint(block, out=block), -127, 127, out=block)
    return Narrow(stored, form="int8", turned=turned, scale=scale)


def in_bfloat16(wide: Narrow | Array) -> Narrow:
    """The matrix in 16 bits, each number the nearest that they have, of two the even one. A number that would round to
    infinity becomes the largest."""
    if isinstance(wide, Narrow) and wide.form == "bfloat16":
        return wide
    source, form, turned = _source(wide)
    stored = np.empty(source.shape, np.uint16)
    for rows in blocks(source):
        bits = _block(source, rows, form).view(np.uint32)
        bits += ((bits >> _SHIFT) & np.uint32(1)) + np.uint32(0x7FFF)
        bits >>= _SHIFT
        bits -= (bits & np.uint32(0x7FFF)) == 0x7F80
        stored[rows] = bits
    return Narrow(stored, form="bfloat16", turned=turned)


def _source(wide: Narrow | Array) -> tuple[Array, str | None, bool]:
    """What a matrix is stored as, in which form, and whether it is turned: of an array its rows as they lie."""
    if isinstance(wide, Narrow):
        return wide.stored, wide.form, wide.turned
    turned = not wide.flags.c_contiguous
    return wide.T if turned else wide, None, turned


def _block(source: Array, rows: slice, form: str | None) -> Array:
    """Some rows in float32, an array of their own."""
    block = source[rows]
    return block.astype(np.float32) if form is None else Widener(block, form).widened()


def is_finite(stored: Array, form: str) -> bool:
    """Whether all numbers of a 16-bit form are finite: no exponent is all ones."""
    ones = {"bfloat16": 0x7F80, "float16": 0x7C00}[form]
    bits = stored.view(np.uint16)
    return all(not ((bits[rows] & np.uint16(ones)) == ones).any() for rows in blocks(bits))


def _flat(scale: Array, dtype: Any) -> Array:
    return scale.reshape(1, -1).astype(dtype, copy=False)
