"""An edit of the plain text that gives the wrong answers to sized cases, where no listed mistake does.

It is the search of tiny reports (`refllm.verify.search`), put to the small cases: the text is evaluated in float64, and
what is allowed of an answer is what the plan allows. What it finds is a cause as the others are, and held against the
answers, element by element, as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from refllm.numbers.plans import Plan
from refllm.verify import plain, search
from refllm.verify.case import Case, Response, Truth
from refllm.verify.found import Found
from refllm.verify.imitations import SLACK
from refllm.verify.kernels.causes import Cause, OfBank
from refllm.verify.mutants import Edited
from refllm.verify.runner import Result
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.evaluate import Expected
from refllm.verify.sized.judge import Text
from refllm.verify.sized.work import work
from refllm.verify.tolerance import UNIT

LARGEST = 1_000_000  # the work of a case that is searched (sized.work)
WRONG, RIGHT = 6, 8  # cases that edits are held against while it is searched
FINE = "float32"  # what is allowed beside the plan are roundings of it, in every narrower dtype too


@dataclass(frozen=True, eq=False)
class BySearch:
    """What the search found, as a cause."""

    found: Found
    id: str = ""
    issue: str | None = None

    @property
    def about(self) -> str:
        said = ", and ".join(edit.said for edit in self.found.edits if edit.said)
        both = "this edit" if sum(edit.mistakes for edit in self.found.edits) == 1 else "these two edits"
        others = self.found.others
        alike = f" ({others} other edit{'s give' if others > 1 else ' gives'} the same)" if others else ""
        inside = self.found.traced or self.gradients_alone or not self.found.gradients
        way = "" if inside else ", in the forward pass alone"
        what = f"the specification with {both}{way}{f': {said}' if said else ''}"
        return f"{what}; found by search, no listed mistake{alike}"

    @property
    def diff(self) -> list[tuple[str, list[str]]]:
        return self.found.diff

    @property
    def gradients_alone(self) -> bool:
        return all(edit.in_pullback for edit in self.found.edits)

    @cached_property
    def _functions(self) -> dict[Any, Any]:
        return {edit.original: edit.function() for edit in self.found.edits}

    def answer(self, case: Case, dtype: str) -> Response | None:
        traced = self.found.traced and bool(case.cotangents)
        return plain.answer(case, dtype, self._functions, traced=traced, values=not case.cotangents)


def cause_of(what: object) -> Cause | None:
    """What explains tiny cases, as a cause of sized ones; None if it is no edit of the text."""
    if isinstance(what, Found):
        return BySearch(what)
    return OfBank(what) if isinstance(what, Edited) else None


def wrong_answer(case: Case, response: Response, result: Result, text: Text, dtype: str, plan: Plan) -> Result | None:
    """A wrong answer as the search takes it; None if there is nothing that it could tell from others."""
    if any(verdict.wrong == "zeros" for verdict in result.verdicts):  # which many an edit gives
        return None
    gradients = response.gradients is not None and bool(case.gradients)
    whole = _with_truth(case if gradients else case.values_alone(), text, dtype, plan)
    return None if whole is None else replace(result, case=whole, response=response)


def found(
    wrong: Sequence[Result], right: Iterable[SizedCase], dtype: str, plan: Plan, seconds: float, *, gradients: bool
) -> BySearch | None:
    """The edit that gives these wrong answers to an operation, and that none of the right ones contradicts."""
    if not wrong:
        return None
    small = sorted((sized for sized in right if work(sized) <= LARGEST), key=work)
    held = [r for sized in small[:RIGHT] if (r := _right_answer(sized, dtype, plan, gradients=gradients)) is not None]
    edits = search.explained([*wrong[:WRONG], *held], _fine(dtype), seconds)
    best = edits.get(wrong[0].case.operation)
    return BySearch(best) if best is not None and best.decided else None


def _right_answer(sized: SizedCase, dtype: str, plan: Plan, *, gradients: bool) -> Result | None:
    """A right answer, which is the truth."""
    case = sized.case()
    case = case if gradients else case.values_alone()
    whole = _with_truth(case, Text(case, plan, gradients=gradients), dtype, plan)
    if whole is None:
        return None
    outputs, slopes = ({n: t.value for n, t in held.items()} for held in (whole.outputs, whole.gradients))
    return Result(whole, "pass" if slopes else "value", "", response=Response(outputs, slopes or None))


def _with_truth(case: Case, text: Text, dtype: str, plan: Plan) -> Case | None:
    """The case with what the text answers, and with conditions so large that what the plan allows is allowed."""
    try:
        outputs, gradients = (
            {name: _truth(text.of(f"{group}.{name}"), dtype, plan) for name in getattr(case, group)}
            for group in ("outputs", "gradients")
        )
    except (KeyError, OverflowError):
        return None
    return replace(case, outputs=outputs, gradients=gradients)


def _truth(expected: Expected, dtype: str, plan: Plan) -> Truth:
    value, allowed = expected.value, plan.limit * expected.deviation
    if value.dtype.kind != "f":
        return Truth(value, None)
    if not (allowed < float("inf")).all():  # of numbers of which nothing can be said the search would take anything
        raise OverflowError
    return Truth(value, allowed / (SLACK * UNIT[_fine(dtype)]))


def _fine(dtype: str) -> str:
    return dtype if UNIT[dtype] <= UNIT[FINE] else FINE
