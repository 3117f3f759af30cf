"""A wrong answer cut to the rows, or to the single numbers, in which it is wrong: an edit of the text that is made in
some of them alone gives all of these.

    cut(result, {"outputs.y": wrong})       the same answer to those rows of a case; None where none is cut

Rows are what the leading axes of the `Shapes:` line count; of an elementwise operation they are the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Case, Response, Truth
from refllm.verify.kernels import axes
from refllm.verify.runner import Result


def cut(result: Result, wrong: Mapping[str, Array]) -> Result | None:
    case, response = result.case, result.response
    names = axes.letters(case)
    name = next((n for n in wrong if n.startswith("outputs.")), "")
    led = _led(names.get(name, ()))
    if response is None or not led:
        return None
    off = wrong[name]
    rows = numpy.asarray(off.any(axis=tuple(range(led, off.ndim))))
    if not rows.any() or rows.all() or not _are_rows(case, names, rows, led):
        return None

    def taken(x: Any, own: str) -> Any:
        kept = not isinstance(x, numpy.ndarray) or _led(names.get(own, ())) != led or x.shape[:led] != rows.shape
        return x if kept else x[rows]

    def of(truth: Truth, own: str) -> Truth:
        condition = truth.condition if truth.condition is None else taken(truth.condition, own)
        return replace(truth, value=taken(truth.value, own), condition=condition)

    made = replace(
        case,
        inputs={n: taken(x, f"inputs.{n}") for n, x in case.inputs.items()},
        keywords={n: taken(x, f"keywords.{n}") for n, x in case.keywords.items()},
        outputs={n: of(truth, f"outputs.{n}") for n, truth in case.outputs.items()},
        gradients={},
        cotangents={},
        taps={},
    )
    outputs = {n: taken(x, f"outputs.{n}") for n, x in response.outputs.items()}
    of_outputs = [v for v in result.verdicts if v.name.startswith("output ")]
    return replace(result, case=made, response=Response(outputs, None), verdicts=of_outputs)


def _led(own: axes.Letters) -> int:
    """How many leading axes a tensor has."""
    return next((n for n, letter in enumerate(own) if letter), len(own))


def _are_rows(case: Case, names: Mapping[str, axes.Letters], rows: Array, led: int) -> bool:
    """Whether each tensor has a part for each of these rows, or none at all: a parameter, which all share."""

    def fits(x: Any, own: str) -> bool:
        count = _led(names.get(own, ()))
        return not isinstance(x, numpy.ndarray) or count == 0 or (count == led and x.shape[:led] == rows.shape)

    given: tuple[tuple[str, Mapping[str, Any], Callable[[Any], Any]], ...] = (
        ("inputs", case.inputs, lambda x: x),
        ("keywords", case.keywords, lambda x: x),
        ("outputs", case.outputs, lambda truth: truth.value),
    )
    return all(fits(of(x), f"{group}.{n}") for group, held, of in given for n, x in held.items())
