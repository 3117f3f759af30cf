"""What edited text may say that the text itself never does."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy

from refllm import spec
from refllm.backend import Array
from refllm.spec import array
from refllm.spec.tree import plus
from refllm.verify.bounded import tick


def columns(f: Callable[..., Any]) -> Callable[..., Any]:
    """An operation of the text along the columns instead of the rows."""
    f = OPERATIONS.get(f.__name__, f)

    def along_columns(x: Array, **keywords: Any) -> Any:
        if len(x.shape) == 1:
            return f(x, **keywords)
        y, back = f(array.swap(x), **keywords)
        return array.swap(y), lambda dy: array.swap(back(array.swap(dy)))

    return along_columns


def down(f: Callable[[Array], Array], x: Array) -> Array:
    """A function of the columns instead of the rows; a vector is one row."""
    return f(x) if x.ndim < 2 else array.swap(f(array.swap(x)))


def right(f: Callable[..., Any]) -> Callable[..., Any]:
    """The operation as the text has it, for an edit that calls what it is an edit of."""
    return OPERATIONS[f.__name__]


def erf(x: Array) -> Array:
    """The error function with the digits that a float has beside 1."""
    return array.where(x < 0, array.erfc(-x) - 1, 1 - array.erfc(x))


def second_best(p: Array, chosen: Array) -> Array:
    """The place of the largest entry of every row but for the chosen one."""
    values = getattr(p, "value", p)
    return numpy.where(array.one_hot(chosen, p.shape[-1]), -numpy.inf, values).argmax(axis=-1)


def narrow(x: Array, dtype: str) -> Array:
    """x in another dtype, in which what is made of it is computed."""
    return array.like(x, numpy.zeros(0, dtype))


def narrow_angles(positions: Array, D: int, base: float, dtype: str) -> Array:
    """The angles of rotary positions, computed in a narrow type."""
    frequencies = (base ** (-numpy.arange(0, D, 2) / D)).astype(dtype)
    return (positions.astype(dtype)[..., None] * frequencies).astype("float64")


def bucket_by(whole: Callable[[float], int], n: int, K: int, farthest: int, near: int | None = None) -> int:
    """T5's bucket of a distance by logarithms in floats, which `whole` cuts to whole numbers. They are raised by a
    hair, so that a border is reached on it."""
    near = K // 2 if near is None else near
    if n < near:
        return n
    steps = math.log(max(n, 1) / max(near, 1)) / math.log(farthest / max(near, 1)) * (K - near)
    return min(near + int(whole(steps + 1e-9)), K - 1)


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


def reshaped(x: Array, a: int, b: int) -> Array:
    """The numbers in their order under the shape that x has with two axes exchanged: a view for a transpose."""
    shape = list(x.shape)
    shape[a], shape[b] = shape[b], shape[a]
    return x.reshape(*shape)


def digits(x: float, n: int) -> float:
    """A number with n significant digits."""
    return float(f"{x:.{n - 1}e}")


def cut_off(x: float, n: int) -> float:
    """A number whose digits end after n significant ones, without rounding."""
    digit, _, exponent = f"{x:.17e}".partition("e")
    return float(f"{digit[: n + 1 + digit.startswith('-')]}e{exponent}")


def separately(f: Callable[..., Any]) -> Callable[..., Any]:
    """What an operation does to a list, done to each of its arrays alone; what it says of them is said of the list."""
    f = OPERATIONS.get(f.__name__, f)

    def of_each(parts: list[Array], **keywords: Any) -> Any:
        said, _ = f(parts, **keywords)
        return said, [f([x], **keywords)[1][0] for x in parts]

    return of_each


def by_text(f: Callable[..., Any]) -> Callable[..., Any]:
    """The mean of what an operation gives for each text, where it is meant for all together."""
    f = OPERATIONS.get(f.__name__, f)

    def of_texts(x: Array, **keywords: Any) -> Any:
        if len(x.shape) < 3:
            return f(x, **keywords)
        found = [f(x[b], **{name: _of_text(y, b) for name, y in keywords.items()}) for b in range(len(x))]
        values = array.stack([value for value, _ in found], axis=0)

        def of_texts_back(dy: Array) -> Array:
            return array.stack([back(dy / len(found)) for _, back in found], axis=0)

        return array.total(values) / len(found), of_texts_back

    return of_texts


def _of_text(x: Any, b: int) -> Any:
    return x[b] if isinstance(x, numpy.ndarray) else x


_sums: list[Any] = []


def begin() -> None:
    """Nothing is left of an earlier evaluation."""
    _sums.clear()


def accumulated(g: Any) -> Any:
    """The sum of this tree and of those before it in the same evaluation: gradients that nobody sets to zero."""
    _sums[:] = [plus(_sums[0], g) if _sums else g]
    return _sums[0]


OPERATIONS = spec.operations()  # one of which may be taken for another
WORDS: dict[str, Any] = {
    **{name: value for name, value in vars(array).items() if not name.startswith("_")},
    "_tick": tick,
    "accumulated": accumulated,
    "bucket_by": bucket_by,
    "by_text": by_text,
    "columns": columns,
    "cut_off": cut_off,
    "digits": digits,
    "down": down,
    "erf": erf,
    "float32": numpy.float32,
    "highest": highest,
    "math": math,
    "narrow": narrow,
    "narrow_angles": narrow_angles,
    "narrow_matmul": narrow_matmul,
    "narrow_mean": narrow_mean,
    "narrow_sum": narrow_sum,
    "reshaped": reshaped,
    "right": right,
    "rounded": rounded,
    "separately": separately,
    "scatter_last": scatter_last,
    "scatter_mean": scatter_mean,
    "second_best": second_best,
}


def explained(lines: Iterable[str]) -> list[str]:
    """What these lines say that no line of the text does, each word with what it means."""
    there = set(re.findall(r"\b[a-z_]+\b", " ".join(line for line in lines if line.startswith("+"))))
    own = {name: f for name, f in WORDS.items() if getattr(f, "__module__", "") == __name__}
    return [f"{name}: {f.__doc__.split('.')[0].strip()}" for name, f in own.items() if name in there and f.__doc__]
