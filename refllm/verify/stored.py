"""What edited text says of numbers that are stored in a narrow type: what is too large for it is infinite, and sums are
rounded each time that they are stored. The gradient passes."""

from __future__ import annotations

from typing import Any

import numpy

from refllm.backend import Array
from refllm.spec import array

WHOLE = 1 << 30  # terms of a sum that is rounded once, when it is whole


def stored(x: Array, dtype: str) -> Array:
    """x as it is after it was stored in a type of lower precision, infinite where that is too large."""
    values = getattr(x, "value", x)
    return _with(x, _narrow(values, dtype))


def stored_sum(x: Array, dtype: str, n: int, axis: int = -1, keepdims: bool = True) -> Array:
    """The sum along an axis in an accumulator of a narrow type, which takes the sums of n numbers one after the
    other."""
    values = numpy.moveaxis(getattr(x, "value", x), axis, 0)
    made = numpy.zeros(values.shape[1:], values.dtype)
    for first in range(0, len(values), n):
        made = _narrow(made + values[first : first + n].sum(axis=0), dtype)
    return _with(array.sum(x, axis, keepdims), numpy.expand_dims(made, axis) if keepdims else made)


def stored_mean(x: Array, dtype: str, n: int) -> Array:
    """The mean of every row, whose sum is that of stored_sum."""
    return stored_sum(x, dtype, n) / x.shape[-1]


def stored_rows(x: Array, dtype: str, n: int) -> Array:
    """The sum of all rows, as stored_sum has it."""
    return stored_sum(array.flat(x), dtype, n, 0, False)


def stored_total(x: Array, dtype: str, n: int) -> Array:
    """The sum of all numbers, as stored_sum has it."""
    return stored_sum(x.reshape(-1), dtype, n, 0, False)


def stored_scatter_add(index: Array, x: Array, size: int, dtype: str) -> Array:
    """As scatter_add, where each row is added in a narrow type to the sum so far of its index."""
    right = array.scatter_add(index, x, size)
    rows, at = getattr(x, "value", x).reshape(index.size, -1), index.reshape(-1)
    made = numpy.zeros((size, rows.shape[1]), rows.dtype)
    order = numpy.argsort(at, kind="stable")
    begins = numpy.flatnonzero(numpy.diff(at[order], prepend=-1))
    counts = numpy.diff(begins, append=len(order))
    for turn in range(int(counts.max(initial=0))):
        here = order[begins[counts > turn] + turn]
        here = here[at[here] < size]
        made[at[here]] = _narrow(made[at[here]] + rows[here], dtype)
    return _with(right, made.reshape(right.shape))


def stored_matmul(a: Array, b: Array, dtype: str, n: int, parts: bool = False) -> Array:
    """A product of matrices in an accumulator of a narrow type, which takes n products at once; `parts`: after their
    sum was rounded too."""
    right, (x, y) = a @ b, (getattr(z, "value", z) for z in (a, b))
    made = numpy.zeros(right.shape, x.dtype)
    for first in range(0, x.shape[-1], n):
        part = x[..., first : first + n] @ y[..., first : first + n, :]
        made = _narrow(made + (_narrow(part, dtype) if parts else part), dtype)
    return _with(right, made)


def _narrow(x: Array, dtype: str) -> Array:
    with numpy.errstate(over="ignore", invalid="ignore"):
        if dtype == "float16":
            return x.astype(dtype).astype(x.dtype)
        bits = x.astype("float32").view("uint32")
        kept = (bits + numpy.uint32(0x7FFF) + ((bits >> numpy.uint32(16)) & numpy.uint32(1))) & numpy.uint32(0xFFFF0000)
        near: Array = kept.view("float32").astype(x.dtype)
        return numpy.where(numpy.isnan(x), x, near)


def _with(right: Array, made: Array) -> Array:
    """Other numbers, with the gradient of the right ones."""
    values = getattr(right, "value", right)
    with numpy.errstate(invalid="ignore"):
        return right + numpy.where(numpy.isfinite(values), made - values, 0)


WORDS: dict[str, Any] = {
    "stored": stored,
    "stored_matmul": stored_matmul,
    "stored_mean": stored_mean,
    "stored_rows": stored_rows,
    "stored_scatter_add": stored_scatter_add,
    "stored_sum": stored_sum,
    "stored_total": stored_total,
}
