"""Laws at the sizes of kernels, where races, tails that were never written and strides beyond one tile show.

The smallest sized case of each operation whose answer was right is put again, with its tensors made anew; the text
evaluated on it says how far two answers may be apart. The first whose answer was wrong is put a few times more: an
answer that changes is a race, or what an earlier call has left.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from refllm.numbers.plans import Plan
from refllm.verify.case import Case, FaultError, Truth, UnsupportedError
from refllm.verify.law import Law
from refllm.verify.laws.calls import AGAIN, again, between, layouts, poison
from refllm.verify.laws.neighbours import neighbours
from refllm.verify.laws.swallowed import swallowed
from refllm.verify.laws.trial import Base, Trial
from refllm.verify.laws.trying import OVER, TIME, Trying
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.evaluate import expected
from refllm.verify.sized.judge import EXACT
from refllm.verify.tolerance import UNIT

if TYPE_CHECKING:
    from refllm.verify.runner import Implementation, Result

CALLS = 8  # of a case whose answer was wrong: a race shows in some of them
BETWEEN_PROBES = "every element"  # of an answer in float64, of which probes and the sum are stored
RIGHT_NOW = (
    "the case was answered wrongly, and called again with the same inputs rightly: it depends on "
    "earlier calls, or on chance"
)
LEAST = 1000  # numbers of its answer that a case has: fewer are no size of a kernel
LAWS: tuple[Callable[[Base], Iterator[Trial]], ...] = (again, neighbours, swallowed, poison, between, layouts)


def held_at_size(
    implementation: Implementation,
    cases: Iterable[SizedCase],
    results: Iterable[Result],
    dtype: str,
    plan: Plan,
    seconds: float,
    *,
    casts: bool = False,
) -> Iterator[Result]:
    """The results of sized cases, with what was found of the laws; they are tried for so many seconds in all."""
    cases, results, until = list(cases), list(results), time.monotonic() + seconds
    right = {result.case.id: result for result in results if result.right}
    usable = [case for case in cases if case.id in right and _size(case) >= LEAST]
    chosen = {case.operation: case for case in sorted(usable, key=_size, reverse=True)}
    trying, found = Trying(implementation, dtype, until, casts), dict[str, list[Law]]()
    wrong = {result.case.id for result in results if result.status == "fail"}
    suspect = {case.operation: case for case in reversed(cases) if case.id in wrong}  # the first, which a report shows
    for case in suspect.values():
        found[case.id] = _unsteady(trying, case, dtype, plan)
    for case in chosen.values():
        found[case.id] = _found(trying, case, right[case.id], dtype, plan) if time.monotonic() < until else _OVER
    for result in results:
        laws = found.get(result.case.id, [])
        held = result.under_laws(laws)
        yield replace(held, alone=True) if any(law.message == RIGHT_NOW for law in laws) else held


_OVER = [Law(TIME, False, OVER)]


def _unsteady(trying: Trying, sized: SizedCase, dtype: str, plan: Plan) -> list[Law]:
    """Of a wrong answer: whether further calls with the same inputs give it again."""
    from refllm.verify.runner import Result, judge, respond

    case = _with_truth(sized.case(), dtype, plan, gradients=bool(sized.cotangents))
    try:
        response = respond(trying.implementation, case, dtype)
    except (UnsupportedError, FaultError):
        return []
    if response.gradients is None:
        case = case.values_alone()
    if not any(verdict.wrong for verdict in judge(case, response, dtype, 1.0)):
        return [Law(AGAIN, True, RIGHT_NOW)]
    base = Base(Result(case, "fail", ""), response, dtype, 1.0, 0, declares=True)
    for _ in range(CALLS):
        if broken := [law for law in trying.first_of(again(base)) if law.broken]:
            return broken
    return []


def _found(trying: Trying, sized: SizedCase, result: Result, dtype: str, plan: Plan) -> list[Law]:
    from refllm.verify.runner import Result, judge, respond

    case = _with_truth(sized.case(), dtype, plan, gradients=bool(sized.cotangents) and result.status != "value")
    try:
        response = respond(trying.implementation, case, dtype)
    except (UnsupportedError, FaultError):
        return []
    wrong = [verdict.message for verdict in judge(case, response, dtype, 1.0) if verdict.wrong not in ("", "dtype")]
    if wrong and dtype in EXACT:  # where the case was judged by what is stored; here it is by every element
        return [Law(BETWEEN_PROBES, True, f"what is stored of the answer is right, but elsewhere {wrong[0]}")]
    if wrong:  # it was right when the case was run: this is the second call
        return [Law(AGAIN, True, f"called a second time with the same inputs, {wrong[0]}")]
    base = Base(Result(case, "pass", ""), response, dtype, 1.0, 0, declares=True)
    return [law for trials in LAWS for law in trying.first_of(trials(base))]


def _with_truth(case: Case, dtype: str, plan: Plan, *, gradients: bool) -> Case:
    """The case with the answers of the text, whose conditions are what the plan allows."""
    case = case if gradients else case.values_alone()
    found = expected(case, plan, gradients=gradients)
    allowed = plan.limit / UNIT[dtype]
    truths = {
        name: Truth(x.value, allowed * x.deviation if x.value.dtype.kind == "f" else None) for name, x in found.items()
    }
    outputs, of_gradients = ({n: truths[f"{g}.{n}"] for n in getattr(case, g)} for g in ("outputs", "gradients"))
    return replace(case, outputs=outputs, gradients=of_gradients)


def _size(case: SizedCase) -> int:
    return sum(math.prod(shape) for shape in case.outputs.values())
