"""How two answers of one implementation differ: beyond the tolerance, in bits alone, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Case, Response, Truth
from refllm.verify.law import Law
from refllm.verify.tolerance import tolerance

TWICE = 2.0  # both answers may be off by the tolerance

Where = Callable[[str, str], Any]  # ("gradients", "x") -> which places are compared: an index, a mask, None for none


def everywhere(group: str, name: str) -> Any:
    return ...


def compared(
    law: str,
    done: str,
    case: Case,
    first: Response,
    dtype: str,
    C: float,
    where: Where = everywhere,
    *,
    bits: bool = True,
) -> Callable[[Response], Law | None]:
    """Judges an answer by the first one to the case: a law that is broken, or None; with `bits` a note that the last
    bits are others."""

    def judge(second: Response) -> Law | None:
        other_bits = ""
        for group, name, x, y, truth in _pairs(case, first, second):
            places = where(group, name)
            if places is None:
                continue
            if x.shape != y.shape or x.dtype != y.dtype:
                return Law(law, True, f"{done}, {named(group, name)} is {_kind(y)}; it was {_kind(x)}")
            allowed = TWICE * tolerance(truth, dtype, C) if truth.value.shape == x.shape else None
            at = _beyond(x, y, allowed, places)
            if at is not None:
                return Law(law, True, f"{done}, {_at(group, name, at, x, y)}")
            if bits and not other_bits and not _same(x[places], y[places]).all():
                at = _first(~_same(x, y), places)
                other_bits = f"{done}, the last bits are others: {_at(group, name, at, x, y)}"
        return Law(law, False, other_bits) if other_bits else None

    return judge


def same(first: Response, second: Response) -> bool:
    """Whether two answers have the same numbers everywhere."""
    groups = ((first.outputs, second.outputs), (first.gradients or {}, second.gradients or {}))
    return all(
        mine.keys() == theirs.keys()
        and all(
            numpy.shape(x) == numpy.shape(theirs[n]) and bool(numpy.all(_same(x, theirs[n]))) for n, x in mine.items()
        )
        for mine, theirs in groups
    )


def named(group: str, name: str) -> str:
    return name if group == "outputs" else f"the gradient of {name}"


def _pairs(case: Case, first: Response, second: Response) -> Iterator[tuple[str, str, Array, Array, Truth]]:
    groups: list[tuple[str, Mapping[str, Any], Mapping[str, Any], Mapping[str, Truth]]] = [
        ("outputs", first.outputs, second.outputs, case.outputs),
        ("gradients", first.gradients or {}, second.gradients or {}, case.gradients),
    ]
    for group, mine, theirs, truths in groups:
        for name, x in mine.items():
            y = theirs.get(name)
            if name in truths and isinstance(x, numpy.ndarray) and isinstance(y, numpy.ndarray):
                yield group, name, x, y, truths[name]


def _same(x: Array, y: Array) -> Array:
    same = x == y
    return same | (numpy.isnan(x) & numpy.isnan(y)) if x.dtype.kind == "f" else same


def _beyond(x: Array, y: Array, allowed: Array | None, places: Any) -> tuple[int, ...] | None:
    """Where they differ most beyond what is allowed; None if nowhere. Whole numbers and booleans must be equal."""
    differ = ~_same(x, y)
    if allowed is not None and x.dtype.kind == "f":
        with numpy.errstate(all="ignore"):
            apart = numpy.abs(x.astype("float64") - y.astype("float64"))
        differ &= ~(apart <= allowed)  # which NaN is not
    return _first(differ, places)


def _first(differ: Array, places: Any) -> tuple[int, ...] | None:
    chosen = numpy.zeros(differ.shape, bool)
    chosen[places] = True
    found = numpy.argwhere(differ & chosen)
    return tuple(int(i) for i in found[0]) if len(found) else None


def _at(group: str, name: str, at: tuple[int, ...] | None, x: Array, y: Array) -> str:
    where = list(at) if at else ""
    index = at if at is not None else ()
    return f"{named(group, name)}{where} is {_number(y[index])}, was {_number(x[index])}"


def _number(x: Any) -> str:
    return f"{float(x):.9g}" if x.dtype.kind == "f" else str(x)


def _kind(x: Array) -> str:
    return f"{x.dtype} {list(x.shape)}"
