"""What does not count may hold anything: masked keys, padded steps, ignored targets, dropped tokens.

Which places these are, the text says: the gradient of a random sum is exactly 0 there, it is not once the mask is
lifted, and the answer stays the same, to the bit, when they hold huge numbers, or NaN.
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
from refllm.verify.laws.differences import compared
from refllm.verify.laws.trial import Base, Trial

PADDING = "places that do not count"
HUGE = {"float16": 2.0**9}  # squares of it are numbers of the dtype
_HUGE = 2.0**40

Places = dict[str, Array]  # of an input the places that do not count


def padding(base: Base) -> Iterator[Trial]:
    """Huge numbers where the text allows them, and NaN where it allows that."""
    case = base.case
    if not 1 <= case.level <= 3 or case.operation not in plain.operations() or base.declares:
        return
    candidates = _hidden(case)
    huge = HUGE.get(base.dtype, _HUGE)
    for value, said in ((huge, f"{huge:g}"), (numpy.nan, "NaN")):
        places = _unseen(case, candidates, value)
        if places:
            yield _trial(base, places, value, f"with {said} in {_listed(places)}, which do not count")


def _trial(base: Base, places: Places, value: float, done: str) -> Trial:
    """Another answer is wrong where they are huge. That NaN reaches it is a note: of right implementations, too, many
    multiply by the mask, and 0 times NaN is NaN."""
    finite = bool(numpy.isfinite(value))
    judge = compared(PADDING, done, base.case, base.response, base.dtype, base.C, bits=False)

    def judged(response: Response) -> Law | None:
        found = judge(response)
        return found if finite or found is None else Law(PADDING, False, found.message)

    return Trial(
        PADDING, _with(base.case, places, value), done, judged, refusable=not finite, about=f"{value} in {[*places]}"
    )


def _hidden(case: Case) -> Places:
    """The places of arrays, not of parameters, whose gradient is 0 with the masks of the case and not without them."""
    found = {
        name: truth.value == 0
        for name, truth in case.gradients.items()
        if "." not in name and case.inputs[name].dtype.kind == "f" and numpy.isfinite(case.inputs[name]).all()
        and (truth.value == 0).any()
    }  # fmt: skip
    if not found:
        return {}
    lifted = [plain.answer(other, "float64", {}, traced=False) for other in _lifted(case)]
    seen = [other.gradients for other in lifted if other is not None and other.gradients is not None]
    hidden = {
        name: places & numpy.any([gradients[name] != 0 for gradients in seen], axis=0)
        for name, places in found.items()
        if seen
    }
    return {name: places for name, places in hidden.items() if places.any()}


def _lifted(case: Case) -> Iterator[Case]:
    """The case without its masks, and with other numbers where whole numbers say what is left out."""
    ignored = case.keywords.get("ignore")
    masks: dict[str, Any] = {"causal": False, "ignore": None}
    lifted = {n: numpy.ones_like(x) if _is(x, "b") else masks.get(n, x) for n, x in case.keywords.items()}
    if ignored is not None:
        lifted = {n: numpy.where(x == ignored, 0, x) if _is(x, "i") else x for n, x in lifted.items()}
    yield replace(case, keywords=lifted)
    if "slots" in case.keywords:
        yield replace(case, keywords={n: numpy.roll(x, 1) if n == "slots" else x for n, x in case.keywords.items()})


def _is(x: Any, kind: str) -> bool:
    return isinstance(x, numpy.ndarray) and x.dtype.kind == kind


def _unseen(case: Case, candidates: Places, value: float) -> Places:
    """The places that the text does not see where they hold this value: of all inputs, or of those that can."""
    own = plain.answer(case, "float64", {}, traced=False) if candidates else None
    if own is None or _is_unseen(case, candidates, value, own):
        return candidates if own is not None else {}
    accepted: Places = {}
    for name, places in candidates.items():
        if _is_unseen(case, {**accepted, name: places}, value, own):
            accepted[name] = places
    return accepted


def _is_unseen(case: Case, places: Places, value: float, own: Response) -> bool:
    found = plain.answer(_with(case, places, value), "float64", {}, traced=False)
    if found is None or found.gradients is None or own.gradients is None:
        return False
    pairs = [(own.outputs[n], x) for n, x in found.outputs.items()]
    pairs += [(own.gradients[n], x) for n, x in found.gradients.items()]
    return all(numpy.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in pairs)


def _with(case: Case, places: Places, value: float) -> Case:
    inputs = {n: numpy.where(places[n], value, x) if n in places else x for n, x in case.inputs.items()}
    return replace(case, inputs=inputs)


def _listed(places: Places) -> str:
    parts = [f"{int(at.sum())} places of {name}" for name, at in places.items()]
    return " and ".join(parts[:3]) + (f" and of {len(parts) - 3} more inputs" if parts[3:] else "")
