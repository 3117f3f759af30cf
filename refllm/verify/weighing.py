"""What a candidate of the search explains: which wrong answers are its own, and whether a right one contradicts it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from refllm.verify import bounded, plain
from refllm.verify.case import Case, Response
from refllm.verify.conditions import separating
from refllm.verify.edits import Edit
from refllm.verify.found import Edits, Found
from refllm.verify.imitations import equal_as_far_as_it_reaches, is_finite
from refllm.verify.runner import Result
from refllm.verify.telling import is_rounding

LATER = 0.5  # seconds after the end in which what was found is still held against the other cases
AGAINST = 24  # right answers that a candidate is held against


class Weighing:
    """The answers to one operation, against which candidates are held until the time is over."""

    def __init__(self, results: list[Result], dtype: str, end: float) -> None:
        self.operation = results[0].case.operation
        size = lambda result: sum(x.size for x in result.case.inputs.values())
        failing = [r for r in results if r.status == "fail" and not is_rounding(r, dtype)]
        self.wrong = sorted(failing, key=size)
        self.right = sorted((r for r in results if r.right), key=size)[:AGAINST]
        self.dtype, self.end = dtype, end
        self.cut = False  # whether the time was over before all was tried

    def _is_over(self, later: float = 0.0) -> bool:
        over = bounded.now() > self.end + later
        self.cut = self.cut or over
        return over

    def _dtypes(self, got: Response) -> tuple[str, ...]:
        """Float64, and where an answer is not finite the dtype of the run, in which a formula may overflow."""
        own = self.dtype if self.dtype in ("float32", "float64") else "float32"
        return ("float64",) if own == "float64" or is_finite(got) else ("float64", own)

    def _equal(
        self, case: Case, got: Response, other: Response | None, functions: Mapping[Any, Any], **how: bool
    ) -> bool:
        in_single = lambda: plain.answer(case, "float32", functions, **how)
        return equal_as_far_as_it_reaches(case, got, other, in_single, self.dtype)

    def _weighed(self, candidate: Edits, traced: bool) -> Found | None:
        """What a candidate explains; None if a right answer contradicts it that no property tells from those."""
        functions = functions_of(candidate)
        assert functions is not None
        if self._is_over(LATER):
            return None
        others = [r for r in self.right if not self._alike(functions, traced, r)]
        against = [r for r in others if not self._fails(functions, traced, r.case)]
        alike = [r for r in self.wrong if self._alike(functions, traced, r)]
        where = ""
        if against:
            found = separating([r.case for r in alike], [r.case for r in against]) if alike else None
            if found is None or 2 * len(alike) < len(self.wrong):
                return None
            where = found
        if self._is_over(LATER):  # what was asked last may have been cut short
            return None
        gradients = any(r.response is not None and r.response.gradients is not None for r in self.wrong)
        explained, guarded = frozenset(r.case.id for r in alike), len(others) - len(against)
        return Found(candidate, traced, explained, len(self.wrong), 0, guarded, gradients, where)

    def _fails(self, functions: Mapping[Any, Any], traced: bool, case: Case) -> bool:
        """Whether the edited text raises, or gives 0 / 0."""
        other = plain.answer(case, "float64", functions, traced=traced, values=not case.gradients)
        return other is None or not is_finite(other)

    def _alike(self, functions: Mapping[Any, Any], traced: bool, result: Result, *, values: bool = False) -> bool:
        """Whether an edited text gives this answer, or its values."""
        got, case = result.response, result.case
        if got is None:
            return False
        if values:
            got = Response(got.outputs, None)
        values = got.gradients is None or not case.gradients
        how = {"traced": traced, "values": values}
        answers = (plain.answer(case, d, functions, **how) for d in self._dtypes(got))
        return any(self._equal(case, got, other, functions, **how) for other in answers)


def functions_of(candidate: Edits) -> dict[Any, Any] | None:
    """The edited functions; None if one of them is not Python."""
    found = {edit.original: _compiled(edit) for edit in candidate}
    return None if None in found.values() else found


@cache
def _compiled(edit: Edit) -> Any:
    return edit.function()
