"""Whether a wrong answer to a sized case is right under a plan that was not declared.

others = OtherPlans("bfloat16", plan, seconds=10)
results = list(judge.run(implementation, sized, "bfloat16", plan, seen=others.look))
others.explained(results)            the same results; of those that another plan fits, with a line that says so
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from refllm.numbers import plans
from refllm.numbers.plans import Plan
from refllm.verify.case import Case, Response
from refllm.verify.runner import Result
from refllm.verify.sized import judge
from refllm.verify.sized.cases import SizedCase

NARROW = ("bfloat16", "float16")
NARROW_SAYS = "which adds up over rows and by index in the narrow type and keeps the mean of a row in it"
ADDED_IN_IT = {"stored": {"*": "dtype"}, "accumulate": "dtype", "factors": "dtype"}
_OTHERWISE_WRONG = ("shape", "missing", "type", "zeros")  # which no plan makes right


class OtherPlans:
    def __init__(self, dtype: str, plan: Plan, seconds: float) -> None:
        self.dtype, self.plan, self.left = dtype, plan, seconds
        self._fits: dict[str, tuple[str, bool]] = {}  # by the id of a case: the line, and whether digits are lost

    def look(self, sized: SizedCase, case: Case, response: Response, result: Result, text: judge.Text) -> None:
        """Judges a wrong answer under the other plans, while its case has its tensors."""
        if result.status != "fail" or self.left <= 0 or any(v.wrong in _OTHERWISE_WRONG for v in result.verdicts):
            return
        start = time.monotonic()
        for plan, line, loses in self._others():
            if judge.judged(sized, case, response, self.dtype, plan).right:
                self._fits[sized.id] = line, loses
                break
        self.left -= time.monotonic() - start

    def explained(self, results: list[Result]) -> list[Result]:
        return [self._with(result) for result in results]

    def _with(self, result: Result) -> Result:
        line, loses = self._fits.get(result.case.id, ("", False))
        if not line or (loses and result.diagnosis):  # a known mistake says more than a plan that allows nearly all
            return result
        return replace(result, diagnosis=[*result.diagnosis, line])

    def _others(self) -> Iterator[tuple[Plan, str, bool]]:
        eager = plans.plan("eager", self.dtype)
        if self.plan != eager:
            yield eager, 'right under the plan eager: say PLAN = "eager" if that is meant', False
        if self.dtype in NARROW:
            own = plans.plan("narrow", self.dtype)
            if self.plan != own:
                yield own, f'right under the plan narrow, {NARROW_SAYS}: say PLAN = "narrow" if that is meant', True
            narrow = plans.plan(ADDED_IN_IT, self.dtype)
            said = '{"stored": {"*": "dtype"}, "accumulate": "dtype", "factors": "dtype"}'
            lost = f"right only where sums are added up in {self.dtype}, which loses digits that float32 keeps"
            yield narrow, f"{lost}: say PLAN = {said} if that is meant", True
