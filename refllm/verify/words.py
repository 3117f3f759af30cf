"""What edited text may say that the text itself never does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm import spec
from refllm.backend import Array
from refllm.spec import array


def columns(f: Callable[..., Any]) -> Callable[..., Any]:
    """An operation of the text along the columns instead of the rows."""
    f = OPERATIONS.get(f.__name__, f)

    def along_columns(x: Array, **keywords: Any) -> Any:
        if len(x.shape) == 1:
            return f(x, **keywords)
        y, back = f(array.swap(x), **keywords)
        return array.swap(y), lambda dy: array.swap(back(array.swap(dy)))

    return along_columns


def highest(x: Array) -> Array:
    """The largest number of all rows, where that of each is meant."""
    largest = array.top(array.flat(x).reshape(1, -1))
    return largest.reshape(*[1 for _ in x.shape])


def rounded(x: Array, dtype: str) -> Array:
    """x as it is after it was stored in a type of lower precision; the gradient passes."""
    values = getattr(x, "value", x)
    return x + (_stored(values, dtype) - values)


def _stored(x: Array, dtype: str) -> Array:
    return to_bfloat16(x) if dtype == "bfloat16" else x.astype(dtype).astype(x.dtype)


def to_bfloat16(x: Array) -> Array:
    """The nearest number of 8 significant bits, ties to even."""
    bits = numpy.asarray(x, numpy.float32).view(numpy.uint32).astype(numpy.uint64)
    near = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(numpy.uint32).view(numpy.float32)
    return near.astype(x.dtype).reshape(numpy.shape(x))


def scatter_mean(index: Array, x: Array, size: int) -> Array:
    """The mean of the rows of each index, where their sum is meant."""
    count = numpy.bincount(index.reshape(-1), minlength=size)[:size].clip(1)
    return array.scatter_add(index, x, size) / array.like(count[:, None], x)


def scatter_last(index: Array, x: Array, size: int) -> Array:
    """The last row of each index: assigned where it should be added."""
    flat = index.reshape(-1)
    last = {int(i): n for n, i in enumerate(flat)}
    kept = numpy.array([last[int(i)] == n for n, i in enumerate(flat)], bool).reshape(index.shape)
    return array.scatter_add(numpy.where(kept, index, size), x, size)


def narrow_sum(x: Array, dtype: str) -> Array:
    """The sum of every row, one number after the other in an accumulator of a narrow type; the gradient is a sum's."""
    values = getattr(x, "value", x)
    accumulated = numpy.zeros((*values.shape[:-1], 1), values.dtype)
    for i in range(values.shape[-1]):
        accumulated = _stored(accumulated + values[..., i : i + 1], dtype)
    right = array.sum(x)
    return right + (accumulated - getattr(right, "value", right))


def narrow_mean(x: Array, dtype: str) -> Array:
    return narrow_sum(x, dtype) / x.shape[-1]


def narrow_matmul(a: Array, b: Array, dtype: str) -> Array:
    """A product of matrices with an accumulator of a narrow type; the gradient is that of the product."""
    right, (x, y) = a @ b, (getattr(z, "value", z) for z in (a, b))
    accumulated = numpy.zeros(right.shape, x.dtype)
    for i in range(x.shape[-1]):
        accumulated = _stored(accumulated + x[..., i : i + 1] * y[..., i : i + 1, :], dtype)
    return right + (accumulated - getattr(right, "value", right))


OPERATIONS = spec.operations()  # one of which may be taken for another
WORDS: dict[str, Any] = {
    **{name: value for name, value in vars(array).items() if not name.startswith("_")},
    "columns": columns,
    "highest": highest,
    "narrow_matmul": narrow_matmul,
    "narrow_mean": narrow_mean,
    "narrow_sum": narrow_sum,
    "rounded": rounded,
    "scatter_last": scatter_last,
    "scatter_mean": scatter_mean,
}
