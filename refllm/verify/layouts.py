"""The same numbers in another place in memory: what a function may be given for an array.

    laid_out(x, "gapped")      every second number of a larger array

What lies between the numbers is NaN, or for whole numbers and booleans the same in another order: whoever reads it
gives another answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array

CONTIGUOUS = "contiguous"


def _gapped(x: Array) -> Array:
    larger = numpy.stack([x, _filler(x)], axis=-1)
    return larger[..., 0]


def _offset(x: Array) -> Array:
    larger = numpy.empty(tuple(n + 3 for n in x.shape), x.dtype)
    larger[...] = numpy.resize(_filler(x), larger.shape) if x.size else 0
    places: tuple[Any, ...] = (*[slice(1, n + 1) for n in x.shape], ...)
    inside = larger[places]
    inside[...] = x
    return inside


def _reversed(x: Array) -> Array:
    return numpy.flip(numpy.flip(x).copy()) if x.ndim else x.copy()


def _transposed(x: Array) -> Array:
    return x.copy(order="F")


def _read_only(x: Array) -> Array:
    y = x.copy()
    y.setflags(write=False)
    return y


LAYOUTS: dict[str, tuple[Callable[[Array], Array], str]] = {
    "gapped": (_gapped, "every second number of a larger array"),
    "offset": (_offset, "a part of a larger array, whose rows lie apart"),
    "reversed": (_reversed, "arrays with negative strides"),
    "transposed": (_transposed, "arrays in column-major order"),
    "read-only": (_read_only, "read-only arrays"),
}


def laid_out(x: Any, layout: str) -> Any:
    """An array in that layout; everything else, and every array where it is contiguous, as it is."""
    if layout == CONTIGUOUS or not isinstance(x, numpy.ndarray):
        return x
    return LAYOUTS[layout][0](x)


def read_as_contiguous(x: Array, layout: str) -> Array | None:
    """The numbers that lie behind each other in memory where such an array begins: what it is to who ignores strides.
    None where the memory ends before."""
    root = placed = laid_out(x, layout)
    while isinstance(root.base, numpy.ndarray):
        root = root.base
    first = (placed.ctypes.data - root.ctypes.data) // max(1, x.itemsize)
    found = root.ravel(order="K")[first : first + x.size]
    return found.reshape(x.shape) if found.size == x.size else None


def _filler(x: Array) -> Array:
    if x.dtype.kind == "f":
        return numpy.full(x.shape, numpy.nan, x.dtype)
    if x.dtype.kind == "b":
        return ~x
    return numpy.roll(x, 1)
