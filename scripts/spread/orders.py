"""NumPy with the orders in which sums are taken: arrays that add one term after the other, in pairs, or backwards.

The text itself (refllm/spec) is run on them, in the dtype of the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy

from refllm.backend import Array
from refllm.parameters import map_leaves
from refllm.verify import plain

CHUNK = 512  # terms that one accumulator takes


class Ordered(numpy.ndarray):
    """An array whose sums and matrix products are those of its class."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **how: Any) -> Any:
        given = [_plain(x) for x in inputs]
        if ufunc is numpy.matmul and method == "__call__":
            return self.product(*given).view(type(self))
        if ufunc is numpy.add and method == "reduce" and given[0].dtype.kind == "f":  # a count has no roundings
            return self.total(given[0], how["axis"], how.get("keepdims", False)).view(type(self))
        outs = {} if out is None else {"out": tuple(_plain(x) for x in out)}
        result = getattr(ufunc, method)(*given, **how, **outs)
        return result.view(type(self)) if isinstance(result, numpy.ndarray) else result

    @classmethod
    def product(cls, a: Array, b: Array) -> Array:
        """Of the products of every place, the sum."""
        rows = a[..., :, None, :] * numpy.swapaxes(b, -1, -2)[..., None, :, :] if a.size < 1 << 14 else None
        if rows is not None and rows.size < 1 << 24:
            return cls.total(rows, -1, False)
        return _by_columns(cls, a, b)

    @classmethod
    def total(cls, x: Array, axis: int, keepdims: bool) -> Array:
        terms = numpy.moveaxis(x, axis, -1)
        y = cls.added(terms)
        return numpy.expand_dims(y, axis) if keepdims else y

    @staticmethod
    def added(terms: Array) -> Array:
        raise NotImplementedError


def _by_columns(cls: type[Ordered], a: Array, b: Array) -> Array:
    """The product, a column at a time, so that the terms fit into memory."""
    columns = [cls.total(a * b[..., None, :, n], -1, False) for n in range(b.shape[-1])]
    found: Array = numpy.stack(columns, axis=-1)
    return found


class Chunked(Ordered):
    """One term after the other, up to 512 in one accumulator; then the accumulators, one after the other."""

    @staticmethod
    def added(terms: Array) -> Array:
        n = terms.shape[-1]
        parts = [_one_by_one(terms[..., i : i + CHUNK]) for i in range(0, n, CHUNK)]
        return _one_by_one(numpy.stack(parts, axis=-1)) if parts else numpy.zeros(terms.shape[:-1], terms.dtype)


class Whole(Ordered):
    """One term after the other, all of a sum in one accumulator."""

    @staticmethod
    def added(terms: Array) -> Array:
        return _one_by_one(terms) if terms.shape[-1] else numpy.zeros(terms.shape[:-1], terms.dtype)


class Pairwise(Ordered):
    """The sums of the two halves, and so on."""

    @staticmethod
    def added(terms: Array) -> Array:
        if not terms.shape[-1]:
            empty: Array = terms.sum(axis=-1)
            return empty
        while terms.shape[-1] > 1:
            half = terms.shape[-1] // 2
            two = terms[..., :half] + terms[..., half : 2 * half]
            terms = numpy.concatenate([two, terms[..., 2 * half :]], axis=-1)
        first: Array = terms[..., 0]
        return first


class Backwards(Chunked):
    """As `Chunked`, from the last term to the first."""

    @staticmethod
    def added(terms: Array) -> Array:
        return Chunked.added(terms[..., ::-1])


class Short(Ordered):
    """As tf32 hardware multiplies: the factors of products are rounded to ten digits after the first, and what they
    make is added up in float32. It is emulated; there is no such hardware in a CPU."""

    @classmethod
    def product(cls, a: Array, b: Array) -> Array:
        found: Array = _short(a) @ _short(b)
        return found

    @staticmethod
    def added(terms: Array) -> Array:
        found: Array = terms.sum(axis=-1)
        return found


def _short(x: Array) -> Array:
    """To nearest, of two the even one."""
    bits = numpy.ascontiguousarray(x, numpy.float32).view(numpy.uint32).astype(numpy.uint64)
    rounded = (bits + 0xFFF + ((bits >> 13) & 1)) & 0xFFFFE000
    found: Array = numpy.where(numpy.isfinite(x), rounded.astype(numpy.uint32).view(numpy.float32), x)
    return found


def _one_by_one(terms: Array) -> Array:
    found: Array = numpy.cumsum(terms, axis=-1, dtype=terms.dtype)[..., -1]
    return found


def _plain(x: Any) -> Any:
    return x.view(numpy.ndarray) if isinstance(x, Ordered) else x


def of_text() -> Iterator[tuple[str, Mapping[str, Callable[..., Any]]]]:
    """The text, summed by NumPy and in every order here."""
    yield "the text, sums of NumPy", plain.operations()
    kinds = ((Chunked, "in chunks of 512"), (Whole, "in one accumulator"), (Pairwise, "in pairs"))
    for kind, name in (*kinds, (Backwards, "backwards")):
        yield f"the text, sums {name}", {n: _with(kind, f) for n, f in plain.operations().items()}


def in_tf32() -> Mapping[str, Callable[..., Any]]:
    """The text with the products of tf32."""
    return {n: _with(Short, f) for n, f in plain.operations().items()}


def _with(kind: type[Ordered], function: Callable[..., Any]) -> Callable[..., Any]:
    def operation(*arrays: Any, **keywords: Any) -> Any:
        returned = function(*_as(kind, arrays), **keywords)
        if not (isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1])):
            return returned
        y, back = returned
        return y, lambda *dy: back(*_as(kind, dy))

    return operation


def _as(kind: type[Ordered], trees: tuple[Any, ...]) -> list[Any]:
    return [map_leaves(lambda x: x.view(kind), tree) for tree in trees]
