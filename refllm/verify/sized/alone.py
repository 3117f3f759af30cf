"""Whether wrong answers to sized cases come again where their case is the only one that is asked, and if not, after
which earlier call.

    tried_alone(results, cases, implementation.fresh, "float32", plan)

A mistake gives its answers whenever it is asked. An answer that depends on an earlier call, as one from a mask that was
kept by too few sizes, may be equal to that of a mistake which is not there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from refllm.errors import UserError
from refllm.numbers.plans import Plan
from refllm.verify.case import FaultError, UnsupportedError
from refllm.verify.report import shown
from refllm.verify.runner import Implementation, Result
from refllm.verify.sized import judge
from refllm.verify.sized.cases import SizedCase

SECONDS = 30.0  # that trying them may take in all, and finding the earlier call; those beyond are left untried
FEW = 3  # wrong answers to an operation that are tried, all of them where one of these does not come again
HANGS = "(--timeout)"
Fresh = Callable[[float], AbstractContextManager[Implementation]]


def tried_alone(
    results: Sequence[Result], cases: Iterable[SizedCase], fresh: Fresh, dtype: str, plan: Plan, *,
    casts: bool = False, values: bool = False,
) -> list[Result]:  # fmt: skip
    """The same results; of some wrong answers to each operation, the first that is shown among them, it is known
    whether they come again alone, and of the first that does not, after which call they do."""
    known = {case.id: case for case in cases}
    trial = _Trial(fresh, dtype, plan, time.monotonic() + SECONDS, casts=casts, values=values)
    found = {result.case.id: result for result in results}
    for first in shown(results):
        wrong = [r for r in results if r.case.operation == first.case.operation and _can_be_tried(r)]
        wrong.sort(key=lambda result: result.case.id != first.case.id)
        few, more = wrong[: FEW - 1] + wrong[FEW - 1 :][-1:], wrong[FEW - 1 : -1]
        tried = {r.case.id: trial.is_right([known[r.case.id]]) for r in few}
        if not any(tried.values()):
            found |= {id: replace(found[id], alone=right) for id, right in tried.items()}
            continue
        last = next(id for id, right in tried.items() if right)
        before = [known[r.case.id] for r in results if r.status != "skip"]
        before = before[: next((n for n, case in enumerate(before) if case.id == last), 0)]
        trial.end = time.monotonic() + SECONDS
        after = trial.earlier(known[last], [case for case in before if case.operation == first.case.operation])
        tried |= {r.case.id: trial.is_right([known[r.case.id]]) for r in more}
        found |= {id: replace(found[id], alone=right) for id, right in tried.items()}
        found[last] = replace(found[last], after=after)
    return [found[result.case.id] for result in results]


def _can_be_tried(result: Result) -> bool:
    return result.status in ("fail", "fault") and HANGS not in result.reason and result.alone is not True


class _Trial:
    """Calls in a process that has answered nothing yet."""

    def __init__(self, fresh: Fresh, dtype: str, plan: Plan, end: float, *, casts: bool, values: bool) -> None:
        self.fresh, self.dtype, self.plan, self.end = fresh, dtype, plan, end
        self._casts, self._values = casts, values

    def is_right(self, cases: Sequence[SizedCase]) -> bool | None:
        """Whether the last of these is answered rightly, called after the others; None if that cannot be tried."""
        *before, last = cases
        left = self.end - time.monotonic()
        if left <= 0:
            return None
        try:
            with self.fresh(left) as implementation:
                for case in before:
                    made = case.case().values_alone() if self._values else case.case()
                    with contextlib.suppress(UnsupportedError, FaultError):
                        implementation.respond(made, self.dtype)
                    if time.monotonic() > self.end:
                        return None
                how = (implementation, [last], self.dtype, self.plan)
                [result] = judge.run(*how, casts=self._casts, values=self._values)
        except UserError:  # it cannot be started again
            return None
        return None if HANGS in result.reason else result.status in ("pass", "value")

    def earlier(self, case: SizedCase, before: Sequence[SizedCase]) -> str:
        """The id of an earlier call after which alone the case is answered wrongly; "" if none is found in time."""
        left = list(before)
        while len(left) > 1:
            half = left[len(left) // 2 :]
            right = self.is_right([*half, case])
            if right is None:
                return ""
            left = left[: len(left) // 2] if right else half
        return left[0].id if left and self.is_right([left[0], case]) is False else ""
