"""Whole numbers that a kernel takes for others: an index of few bits, cut off, one too small, of an unread row.

of_indices()      (name, words that follow the operation, what makes another case of a case)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Case
from refllm.verify.kernels.machine import narrow

Change = Callable[[Case], Any]  # another case; None where it is as before; a pair if the answer is put right afterwards
WIDTHS = ((16, "16-bit numbers"), (8, "8-bit numbers"), (32, "32-bit numbers"))
TABLES = (1024, 2048, 4096, 8192, 512, 32768, 65536, 16384)


def of_indices() -> Iterator[tuple[str, str, Change]]:
    for bits, words in WIDTHS:
        yield "index-overflow", f"whose indices are unsigned {words}", _whole(lambda x, _, b=bits: x % (1 << b))  # type: ignore[misc]
        yield "index-overflow", f"whose indices are {words}", _whole(_signed(bits))
    for limit in TABLES:
        yield "index-cut-off", f"whose indices are cut off at {limit - 1:,}", _whole(_below(limit))
        yield "index-modulo", f"whose indices are taken modulo {limit:,}", _whole(lambda x, _, n=limit: x % n)  # type: ignore[misc]
    for dtype in ("bfloat16", "float16"):
        yield f"index-in-{dtype}", f"whose indices pass through {dtype}", _whole(_through(dtype))
    yield "index-one-less", "whose indices are one too small", _whole(lambda x, _: numpy.maximum(x - 1, 0))
    yield (
        "index-one-more",
        "whose indices are one too large",
        _whole(lambda x, case: numpy.minimum(x + 1, x.max(initial=0))),
    )
    for n in (1024, 256, 128, 64, 32, 512, 2048, 4096):
        words = f"whose indices are one too small where they are the first of a block of {n:,}"
        yield "index-of-block-before", words, _whole(lambda x, _, n=n: x - ((x > 0) & (x % n == 0)))  # type: ignore[misc]
        words = f"whose indices are one too large where they are the last of a block of {n:,}"
        yield "index-of-block-after", words, _whole(_after_block(n))
    for chosen in ("0", "1", "the last row"):
        yield "padding-index", f"in which the row of index {chosen} gets no gradient", _unread(chosen)


def _whole(change: Callable[[Array, Case], Array]) -> Change:
    """Every array of whole numbers changed, in its own bounds."""

    def changed(case: Case) -> Case | None:
        made = {n: change(x, case) for n, x in case.keywords.items() if _is_whole(x)}
        if all(numpy.array_equal(x, case.keywords[n]) for n, x in made.items()):
            return None
        return replace(case, inputs=dict(case.inputs), keywords={**case.keywords, **made})

    return changed


def _is_whole(x: Any) -> bool:
    return isinstance(x, numpy.ndarray) and x.dtype.kind in "iu"


def _after_block(n: int) -> Callable[[Array, Case], Array]:
    return lambda x, _: numpy.minimum(x + ((x >= 0) & (x % n == n - 1)), x.max(initial=0))


def _signed(bits: int) -> Callable[[Array, Case], Array]:
    half = 1 << (bits - 1)

    def change(x: Array, case: Case) -> Array:
        wrapped = (x + half) % (1 << bits) - half
        n = max((y.shape[0] for y in case.inputs.values() if y.ndim), default=1)
        made: Array = numpy.where((wrapped < 0) & (x >= 0) & ("positions" not in case.keywords), wrapped % n, wrapped)
        return made

    return change


def _below(limit: int) -> Callable[[Array, Case], Array]:
    return lambda x, _: numpy.minimum(x, limit - 1)


def _through(dtype: str) -> Callable[[Array, Case], Array]:
    def change(x: Array, _: Case) -> Array:
        near = narrow(x.astype("float64"), dtype)
        made: Array = numpy.where(numpy.isfinite(near), near, x).astype(x.dtype)
        return numpy.minimum(made, x.max(initial=0))

    return change


def _unread(chosen: str) -> Change:
    def changed(case: Case) -> Case | None:
        ids, table = case.keywords.get("ids"), case.inputs.get("E")
        if ids is None or table is None or "y" not in case.cotangents:
            return None
        row = int(chosen) if chosen.isdigit() else len(table) - 1
        dy = numpy.where((ids == row)[..., None], 0, case.cotangents["y"])
        if not (ids == row).any():
            return None
        return replace(case, inputs=dict(case.inputs), cotangents={**case.cotangents, "y": dy})

    return changed
