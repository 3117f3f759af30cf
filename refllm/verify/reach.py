"""Which tensors of an answer a function of the text has a say in: a mistake there explains no others.

The numbers that the function gives, or that its pullback gives, are changed; what changes of the answer is its reach.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy

from refllm.verify import plain
from refllm.verify.case import Case, Response

FACTOR = 1.37  # any number: what is multiplied with it is another


def reach(case: Case, function: FunctionType, *, values: bool) -> frozenset[str] | None:
    """The names of the outputs, or of the gradients, that change; None if that cannot be told."""
    calls, numbers = list[int](), list[Any]()
    before = plain.answer(case, "float64", {}, traced=False, values=values)
    changed = _changed(function, values, calls, numbers)
    after = plain.answer(case, "float64", {function: changed}, traced=False, values=values)
    if before is None or after is None or (calls and not numbers):  # ids and masks alone cannot be changed by a factor
        return None
    return differing(before, after, values=values) | _of_zeros(before, values=values)


def _of_zeros(response: Response, *, values: bool) -> frozenset[str]:
    """What a factor does not change, whoever makes it: zeros throughout."""
    held = response.outputs if values else response.gradients or {}
    return frozenset(name for name, x in held.items() if isinstance(x, numpy.ndarray) and x.size and not x.any())


def differing(one: Response, other: Response, *, values: bool) -> frozenset[str]:
    held = (one.outputs, other.outputs) if values else (one.gradients or {}, other.gradients or {})
    return frozenset(name for name, x in held[0].items() if name in held[1] and not _same(x, held[1][name]))


def _same(x: Any, y: Any) -> bool:
    if not isinstance(x, numpy.ndarray) or not isinstance(y, numpy.ndarray) or x.shape != y.shape:
        return False
    return bool(numpy.allclose(x, y, rtol=1e-9, atol=0, equal_nan=True))


def _changed(function: FunctionType, values: bool, calls: list[int], numbers: list[Any]) -> Callable[..., Any]:
    """The function with other numbers. `calls` and `numbers` are added its calls, and the numbers as they were."""

    def scaled(x: Any) -> Any:
        """Every number of a tree multiplied."""
        if isinstance(x, dict):
            return {name: scaled(branch) for name, branch in x.items()}
        if isinstance(x, list | tuple):
            return type(x)(map(scaled, x)) if type(x) in (list, tuple) else x
        if isinstance(x, numpy.ndarray | float) and getattr(x, "dtype", numpy.dtype(float)).kind == "f":
            numbers.append(x)
            return x * FACTOR
        return x

    def other(*arguments: Any, **keywords: Any) -> Any:
        calls.append(len(calls))
        found = function(*arguments, **keywords)
        with_back = isinstance(found, tuple) and len(found) == 2 and callable(found[1])
        if values:
            return (scaled(found[0]), found[1]) if with_back else scaled(found)
        if not with_back:
            raise ValueError(f"{function.__name__} has no pullback")
        value, back = found
        return value, lambda *dy: scaled(back(*dy))

    return other
