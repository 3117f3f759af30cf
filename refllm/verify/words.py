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
    near = to_bfloat16(values) if dtype == "bfloat16" else values.astype(dtype).astype(values.dtype)
    return x + (near - values)


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


OPERATIONS = spec.operations()  # one of which may be taken for another
WORDS: dict[str, Any] = {
    **{name: value for name, value in vars(array).items() if not name.startswith("_")},
    "columns": columns,
    "highest": highest,
    "rounded": rounded,
    "scatter_last": scatter_last,
    "scatter_mean": scatter_mean,
}
