"""Answers to sized cases, watched for known mistakes and for plans that were not declared. The banks are loaded when
the first answer is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refllm.numbers.plans import Plan
from refllm.verify.case import Case, Response
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

    def look(self, sized: SizedCase, case: Case, response: Response, result: Result, text: Text) -> None:
        if result.right:
            self._right.append(sized)
        if result.status != "fail":
            return
        if self._recogniser is None:
            from refllm.verify.kernels.diagnosis import Recogniser

            self._recogniser = Recogniser(*self._how)
        self._recogniser.look(sized, case, response, result, text)
        self._plans.look(sized, case, response, result, text)

    def explained(self, results: list[Result]) -> list[Result]:
        """The results, each wrong one with what explains it."""
        if self._recogniser is None:
            return results
        return self._plans.explained(self._recogniser.explained(results, self._right))
