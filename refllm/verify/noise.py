"""Answers that are wrong by lost digits: recognised by where the digits go, for no two implementations lose the same.

A form that loses digits (a variance as E[x²] - E[x]², a sum in a narrow type, the logarithm of a softmax) is the text
with an edit that is none in exact arithmetic. In the dtype of the run it is off by about as much as the answer, on the
same cases and nowhere else, while the text itself is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy

from refllm.verify import plain
from refllm.verify.case import Response
from refllm.verify.edits import Unstable, unstable_forms
from refllm.verify.runner import Result, judged

FACTOR = 8.0  # how far apart two errors by the same lost digits may be: their roundings differ
LEAST = 2  # cases that a form must explain, or all that are wrong


@dataclass(frozen=True)
class Noise:
    """A form whose errors are those of the answers."""

    form: Unstable
    explained: frozenset[str]
    wrong: int

    @property
    def diff(self) -> list[tuple[str, list[str]]]:
        return [(self.form.place, self.form.diff())]


def recognised(results: Iterable[Result], dtype: str, C: float) -> dict[str, Noise]:
    """For every operation whose wrong answers have the errors of an unstable form: that form."""
    by_operation: dict[str, list[Result]] = {}
    for result in results:
        if result.response is not None and result.case.operation in plain.operations():
            by_operation.setdefault(result.case.operation, []).append(result)
    if dtype not in ("float32", "float64"):
        return {}
    failing = {name: held for name, held in by_operation.items() if any(r.status == "fail" for r in held)}
    found = {name: _best(name, held, dtype, C) for name, held in failing.items()}
    return {name: best for name, best in found.items() if best is not None}


def _best(operation: str, held: list[Result], dtype: str, C: float) -> Noise | None:
    wrong = [r for r in held if r.status == "fail"]
    right = [r for r in held if r.right]
    found = list[Noise]()
    for function in plain.called(operation):
        for form in unstable_forms(function):
            alike = frozenset(r.case.id for r in wrong if _as_wrong(form, r, dtype, C))
            enough = len(alike) >= min(LEAST, len(wrong)) and 2 * len(alike) > len(wrong)
            if enough and not any(_wrong(form, r, dtype, C) for r in right):
                found.append(Noise(form, alike, len(wrong)))
    return max(found, key=lambda noise: len(noise.explained), default=None)


def _as_wrong(form: Unstable, result: Result, dtype: str, C: float) -> bool:
    """Whether the form is off in the same tensors as the answer, by about as much."""
    other = _judged(form, result, dtype, C)
    if other is None:
        return False
    mine, theirs = ({v.name: v for v in r.verdicts} for r in (result, other))
    for name, verdict in mine.items():
        beside = theirs.get(name)
        if beside is None or bool(verdict.wrong) != bool(beside.wrong):
            return False
        if verdict.wrong and not _near(verdict.ratio, beside.ratio):
            return False
    return _lost_alike(result, other)


def _lost_alike(result: Result, other: Result) -> bool:
    """Whether two answers are not finite in the same places."""
    mine, theirs = (_tensors(r.response) for r in (result, other) if r.response is not None)
    return all(
        numpy.array_equal(numpy.isfinite(x), numpy.isfinite(theirs[name]))
        for name, x in mine.items()
        if name in theirs and isinstance(x, numpy.ndarray) and x.dtype.kind == "f"
    )


def _tensors(response: Response) -> dict[str, Any]:
    gradients = response.gradients or {}
    return {f"output {n}": x for n, x in response.outputs.items()} | {f"gradient {n}": x for n, x in gradients.items()}


def _near(a: float, b: float) -> bool:
    if not (numpy.isfinite(a) and numpy.isfinite(b)):
        return bool(numpy.isfinite(a) == numpy.isfinite(b))
    return max(a, b) <= FACTOR * min(a, b)


def _wrong(form: Unstable, result: Result, dtype: str, C: float) -> bool:
    found = _judged(form, result, dtype, C)
    return found is None or found.wrong


def _judged(form: Unstable, result: Result, dtype: str, C: float) -> Result | None:
    """What the form would be told of the case, with gradients if the answer has some."""
    function, case = form.function(), result.case
    if function is None:
        return None
    values = not case.gradients or result.response is None or result.response.gradients is None
    response = plain.answer(case, dtype, {form.original: function}, traced=True, values=values)
    return None if response is None else judged(case, response, dtype, C)
