"""Edits that give the same answers as the one that is found: how many differ in meaning, and what they have in common.

Two edits mean the same if they give the same answers to inputs that nobody chose: the numbers of a case in another
order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy

from refllm.verify import plain
from refllm.verify.case import Case, Response
from refllm.verify.edits import Edit

Edits = tuple[Edit, ...]
FEW = 3  # edits of different meaning, beyond which none of them is an explanation
LOOKED_AT = 40  # edits whose meaning is looked at
DIGITS = 9
PROBES = {"f": 1, "whole": 12}  # a real number tells more than a choice


def meanings(
    case: Case, candidates: Sequence[tuple[Edits, bool]], functions: Callable[[Edits], Mapping[Any, Any] | None]
) -> int:
    """How many of these, edits and whether they are traced, differ in meaning."""
    seen = set[Any]()
    for edits, traced in candidates[:LOOKED_AT]:
        known = functions(edits)
        if known is not None:
            answers = (plain.answer(probe, "float64", known, traced=traced) for probe in probes(case))
            seen.add(tuple(_signature(answer) for answer in answers))
    return len(seen)


def in_common(candidates: Iterable[Edits]) -> str:
    """The function, or the file, that all of these edits are in; "" if there is none."""
    edits = [edit for candidate in candidates for edit in candidate]
    names = {edit.original.__name__ for edit in edits}
    if len(names) == 1:
        return f"`{names.pop()}` ({edits[0].place.partition(':')[0]})"
    files = {edit.place.partition(":")[0] for edit in edits}
    return files.pop() if len(files) == 1 else ""


def probes(case: Case) -> tuple[Case, ...]:
    """The case with its numbers in other orders."""
    known = _probes.get(case.id)
    if known is None or known[0] is not case:
        known = _probes[case.id] = (case, tuple(_made(case)))
    return known[1]


_probes: dict[str, tuple[Case, tuple[Case, ...]]] = {}


def _made(case: Case) -> Iterable[Case]:
    draw = numpy.random.default_rng(0)
    whole = all(truth.value.dtype.kind != "f" for truth in case.outputs.values())
    for n in range(PROBES["whole" if whole else "f"]):
        mixed = {name: _mixed(x, draw) for name, x in case.inputs.items()}
        yield replace(case, id=f"{case.id} mixed {n}", inputs=mixed)


def _mixed(x: Any, draw: numpy.random.Generator) -> Any:
    if not isinstance(x, numpy.ndarray) or x.dtype.kind != "f":
        return x
    return draw.permutation(x.reshape(-1)).reshape(x.shape) * draw.uniform(0.75, 1.25)


def _signature(answer: Response | None) -> Any:
    if answer is None:
        return None
    arrays = {**answer.outputs, **{f"d{name}": x for name, x in (answer.gradients or {}).items()}}
    return tuple((name, _rounded(x)) for name, x in sorted(arrays.items()))


def _rounded(x: Any) -> Any:
    if not isinstance(x, numpy.ndarray):
        return repr(x)
    if x.dtype.kind != "f":
        return x.tobytes()
    scale = float(numpy.abs(x[numpy.isfinite(x)]).max(initial=0)) or 1.0
    return (numpy.round(x / scale, DIGITS) + 0.0).tobytes()
