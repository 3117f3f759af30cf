"""NaN in a row comes out of it: an answer of numbers alone hides that something was wrong before.

One element of the first input is NaN. Where the text answers with NaN, and would have answered otherwise with another
number there, an answer without any NaN is wrong if a whole row should have had it. Of one element alone it is a note,
and so it is of attention, where a fused kernel of PyTorch passes over NaN too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.case import Case, Response
from refllm.verify.law import Law
from refllm.verify.laws.trial import Base, Trial

SWALLOWED = "NaN in the inputs"
OPERATIONS = 1  # the level of single operations: what is composed of them may have a ReLU inside


def swallowed(base: Base) -> Iterator[Trial]:
    case = base.case.values_alone()
    name, x = next(((n, x) for n, x in case.inputs.items() if x.dtype.kind == "f" and x.size), ("", numpy.zeros(0)))
    if case.level != OPERATIONS or not name or case.operation not in plain.operations() or not numpy.isfinite(x).all():
        return
    at = numpy.unravel_index(x.size // 2, x.shape)
    lost = _lost(case, name, at)
    if not lost:
        return
    place = f"{name}[{', '.join(str(int(i)) for i in at)}]"
    fails = "attention" not in case.operation and any(places.sum() > 1 for places in lost.values())

    def judge(response: Response) -> Law | None:
        for output, places in lost.items():
            given = response.outputs.get(output)
            if given is None or given.shape != places.shape or numpy.isnan(given[places].astype("float64")).any():
                return None
        [first, *_] = lost
        count = int(lost[first].sum())
        where = "an element" if count == 1 else f"{count:,} elements"
        return Law(SWALLOWED, fails, f"with NaN at {place}, {where} of {first} should be NaN, and none is")

    yield Trial(SWALLOWED, _planted(case, name, at, numpy.nan), f"with NaN at {place}", judge, refusable=True)


def _planted(case: Case, name: str, at: tuple[Any, ...], value: Any) -> Case:
    x = case.inputs[name].copy()
    x[at] = value
    return replace(case, inputs={**case.inputs, name: x}, taps={}, alternatives={})


def _lost(case: Case, name: str, at: tuple[Any, ...]) -> dict[str, Array]:
    """Which elements of the outputs are NaN by the text, of those that a finite number at that place changes too."""
    values = [case.inputs[name][at], case.inputs[name][at] + 1, numpy.nan]
    answers = [plain.answer(_planted(case, name, at, value), "float64", {}, traced=False) for value in values]
    found: dict[str, Array] = {}
    if None not in answers:
        own, other, gone = (answer.outputs for answer in answers if answer is not None)
        for output, y in gone.items():
            if y.dtype.kind == "f" and (places := numpy.isnan(y) & (own[output] != other[output])).any():
                found[output] = places
    return found
