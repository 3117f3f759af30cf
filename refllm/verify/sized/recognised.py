"""Answers to sized cases, watched for known mistakes and for plans that were not declared. The banks are loaded when
the first answer is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from refllm.numbers.plans import Plan
from refllm.own_threads import one_thread_of_blas
from refllm.verify.by_laws import with_laws
from refllm.verify.case import Case, Response
from refllm.verify.explanation import NOT_TRIED, Explanation, of_earlier_calls, unexplained
from refllm.verify.kernels import axes
from refllm.verify.kernels.properties import Numbers
from refllm.verify.runner import Result
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.other_plans import OtherPlans

if TYPE_CHECKING:
    from refllm.verify.kernels.diagnosis import Recogniser
    from refllm.verify.sized.judge import Text


class Recognised:
    """What `judge.run` shows its answers to; `seconds` is how long they may be held against mistakes."""

    def __init__(self, dtype: str, plan: Plan, seconds: float) -> None:
        self._how = (dtype, plan, seconds)
        self._recogniser: Recogniser | None = None
        self._plans = OtherPlans(dtype, plan, seconds)
        self._right: list[SizedCase] = []
        self._tells: dict[str, Numbers] = {}
        self._failed: dict[str, str] = {}

    def look(self, sized: SizedCase, case: Case, response: Response, result: Result, text: Text) -> None:
        if any(truth.value.size for truth in case.outputs.values()):  # an answer without numbers is right anyway
            self._tells[sized.id] = axes.numbers(case) | axes.largest(case)
        if result.right:
            self._right.append(sized)
        if result.status != "fail":
            return
        if self._recogniser is None:
            from refllm.verify.kernels.diagnosis import Recogniser

            self._recogniser = Recogniser(*self._how, right=self._right)
        try:
            with one_thread_of_blas():
                self._recogniser.look(sized, case, response, result, text)
                self._plans.look(sized, case, response, result, text)
        except Exception as error:  # whatever it is, no report is lost for want of an explanation
            self._failed[sized.id] = unexplained(error)

    @property
    def left(self) -> float:
        """Seconds that are left for explanations."""
        return self._how[2] if self._recogniser is None else max(0.0, self._recogniser.left)

    def gives(self, operation: str, cause: object) -> bool:
        """Whether what explains the tiny cases of an operation gives its wrong answers to sized ones too."""
        return self._recogniser is None or self._recogniser.gives(operation, cause)

    def explained(self, results: list[Result]) -> list[Result]:
        """The results, each wrong one with what explains it."""
        if self._recogniser is None:
            return _of_earlier_calls(results)
        try:
            with one_thread_of_blas():
                self._recogniser.leave_out(result.case.id for result in results if result.alone)
                found = self._plans.explained(self._recogniser.explained(results, self._right, self._tells))
        except Exception as error:
            self._failed |= {result.case.id: unexplained(error) for result in results if result.wrong}
            found = results
        found = _of_earlier_calls(found)
        found = list(with_laws(found))
        return [
            replace(result, diagnosis=[self._failed[result.case.id]])
            if result.case.id in self._failed and not result.diagnosis
            else result
            for result in found
        ]


def _of_earlier_calls(results: list[Result]) -> list[Result]:
    """What does not come again alone is explained by that, and by no mistake; nor are the other wrong answers to the
    operation that were not tried alone."""
    changing = {result.case.operation for result in results if result.alone and result.wrong}
    found = list[Result]()
    for result in results:
        said = [line for line in result.diagnosis if not isinstance(line, Explanation)]
        if result.alone and result.wrong:
            result = replace(result, diagnosis=of_earlier_calls(said, result.after))
        elif result.wrong and result.alone is None and result.case.operation in changing:
            result = replace(result, diagnosis=[NOT_TRIED, *said])
        found.append(result)
    return found
