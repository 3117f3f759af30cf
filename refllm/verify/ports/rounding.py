"""How far rounding moves what a right port computes.

The text is evaluated in float64, and a few times more in the precision of the port, with an error of chance added to
every sum: as large as that of a sum that is formed one term after the other, which is the coarsest in use. From these
runs comes the size of the error of every row.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy

from refllm.backend import Array
from refllm.spec import array, linear
from refllm.verify import plain
from refllm.verify.tolerance import UNIT
from refllm.verify.words import rounded

RUNS = 3
LARGE = 1 << 18  # numbers of a matrix from which on its columns are taken to be even
SEED = 7


@contextlib.contextmanager
def in_a_chain(dtype: str, seed: int) -> Iterator[None]:
    """In this context sums of the text carry the error of a chain of additions."""
    errors = _Errors(dtype, seed)
    if not seed:
        _columns.clear()
    own = array.Floats.sum
    array.Floats.sum = staticmethod(errors.sum)  # type: ignore[method-assign]
    try:
        with plain.exchanged({linear.matmul: errors.matmul, linear.linear: errors.linear}):
            yield
    finally:
        array.Floats.sum = staticmethod(own)  # type: ignore[method-assign]


_columns: dict[tuple[object, ...], Array] = {}  # the mean squares of the columns of large matrices, by where these lie


class _Errors:
    def __init__(self, dtype: str, seed: int) -> None:
        self.unit = UNIT["float32" if dtype in ("bfloat16", "float16") else dtype]
        self.random = numpy.random.default_rng(SEED + seed)
        self.columns = _columns

    def moved(self, y: Array, squares: Array, count: int) -> Array:
        """y, a sum of so many terms, with the error of a chain: see `Arithmetic._summed` of
        refllm/numbers/spread.py."""
        mean = y / count
        about = numpy.maximum(squares / count - mean * mean, 0)
        partial = (count * (count + 1) / 2) * about + (count * (count + 1) * (2 * count + 1) / 6) * mean * mean
        error = self.random.standard_normal(numpy.shape(y)) * numpy.sqrt(partial) * (self.unit / math.sqrt(3))
        return (y + error).astype(y.dtype)

    def matmul(self, x: Array, W: Array) -> tuple[Array, Any]:
        return self.moved(x @ W, self._squares(x, W), x.shape[-1]), None

    def _squares(self, x: Array, W: Array) -> Array:
        """The sum of the squares of the terms; of a large matrix as if its columns were of even entries."""
        if W.size <= LARGE:
            return (x * x) @ (W * W)
        key = (W.__array_interface__["data"][0], W.shape, W.strides)
        if key not in self.columns:
            self.columns[key] = numpy.einsum("io,io->o", W, W) / len(W)
        return (x * x).sum(axis=-1, keepdims=True) * self.columns[key]

    def linear(self, x: Array, W: Array, b: Array) -> tuple[Array, Any]:
        return self.matmul(x, W)[0] + b, None

    def sum(self, x: Array, axis: int, keepdims: bool) -> Array:
        y = x.sum(axis=axis, keepdims=keepdims)
        if x.dtype.kind != "f" or not x.size:
            return y
        return self.moved(y, (x * x).sum(axis=axis, keepdims=keepdims), x.shape[axis])


def stored(dtype: str, x: Array) -> Array:
    """A value as a port of that precision holds it."""
    if dtype in ("bfloat16", "float16"):
        return rounded(x, dtype)
    return x


def root_mean_square(x: Array) -> Array:
    """Of every row."""
    return numpy.sqrt((x * x).mean(axis=-1, keepdims=True)) if x.size else numpy.zeros((*x.shape[:-1], 1))
