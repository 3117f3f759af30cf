"""What the axes of a case are called: the letters of the `Shapes:` line of its text.

letters(case)["inputs.W"]      ("I", "O") of a linear map; "" where an axis is a leading one, "*" where it is a formula
sizes(case)                    {"I": 1025, "O": 35}
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy

from refllm.backend import Array
from refllm.shapes import ShapesError, parse, sections
from refllm.verify import plain
from refllm.verify.case import Case
from refllm.verify.keywords import KEYWORDS, own_name

Letters = tuple[str, ...]
MASKS = ("valid", "allowed", "keep")  # keywords of the golden files that are one, or None


@cache
def _declared(operation: str) -> tuple[dict[str, Letters], list[Letters]]:
    """The dimensions of the arguments by name, and those of the results in their order."""
    function = plain.text().get(own_name(operation))
    line = sections(function.__doc__ or "").get("Shapes", "") if function else ""
    try:
        inputs, outputs = parse(operation, line)
    except ShapesError:
        return {}, []
    return {each.name: each.dimensions for each in inputs}, [each.dimensions for each in outputs]


def letters(case: Case) -> dict[str, Letters]:
    """By "inputs.x", "keywords.ids", "outputs.y": a name for every axis, "*" where it is a formula, as T+S-1."""
    inputs, outputs = _declared(case.operation)
    found = {}
    for name, x in case.inputs.items():
        found[f"inputs.{name}"] = _of(x.shape, inputs.get(name.rpartition(".")[2], ()))
    for name, value in case.keywords.items():
        if isinstance(value, numpy.ndarray):
            found[f"keywords.{name}"] = _of(value.shape, inputs.get(KEYWORDS.get(name, name), ()))
    for (name, truth), dimensions in zip(case.outputs.items(), outputs, strict=False):
        found[f"outputs.{name}"] = _of(truth.value.shape, dimensions)
    return found


def _of(shape: tuple[int, ...], dimensions: Letters) -> Letters:
    """The names of the last axes; those before have none."""
    own = [d if d.isalpha() else "*" for d in dimensions if d != "..."][-len(shape) :] if shape else []
    return tuple([""] * (len(shape) - len(own)) + own)


def sizes(case: Case) -> dict[str, int]:
    """How long each axis is that has a name."""
    found: dict[str, int] = {}
    names = letters(case)
    for name, x in case.inputs.items():
        for letter, n in zip(names[f"inputs.{name}"], x.shape, strict=True):
            if letter.isalpha():
                found.setdefault(letter, n)
    return found


def numbers(case: Case) -> dict[str, Any]:
    """What cases of an operation differ in: the lengths of their axes, how many rows and numbers there are, and their
    keywords that are no arrays."""
    found: dict[str, Any] = dict(sizes(case))
    first: Array = next(iter(case.inputs.values()))
    if first.ndim > 1:
        found["the number of rows"] = first.size // max(1, first.shape[-1])
    if first.ndim > 2:
        found["the number of leading axes"] = first.ndim - 1
    found["the number of elements"] = first.size
    found |= {n: x for n, x in case.keywords.items() if x is None or isinstance(x, bool | int | float | str)}
    return found | there(case)


def there(case: Case) -> dict[str, bool]:
    """What a case may have: places that are masked, rows of a mask without one, targets that do not count."""
    found = {}
    for name, value in case.keywords.items():
        if name in MASKS:
            mask = value if isinstance(value, numpy.ndarray) and value.dtype.kind == "b" else numpy.ones(1, bool)
            found[f"there are places with {name} = false"] = not mask.all()
            if mask.ndim > 1 or value is None:
                found[f"there are rows of {name} without a true place"] = not mask.any(axis=-1).all()
    if "targets" in case.keywords and "ignore" in case.keywords:
        ignored = case.keywords["targets"] == case.keywords["ignore"]
        found["there are targets that do not count"] = bool(numpy.any(ignored))
    return found


def largest(case: Case) -> dict[str, float]:
    """The largest number of each input and of all, without its sign."""
    found = {}
    for name, x in case.inputs.items():
        finite = abs(x[numpy.isfinite(x)]) if x.dtype.kind == "f" else numpy.zeros(0)
        if finite.size:
            found[f"the largest number of {name}"] = float(finite.max())
    return found | {"the largest number of the inputs": max(found.values(), default=0.0)}
