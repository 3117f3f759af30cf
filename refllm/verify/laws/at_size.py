"""Laws at the sizes of kernels, where races, tails that were never written and strides beyond one tile show.

The smallest sized case of each operation whose answer was right is put again, with its tensors made anew; the text
evaluated on it says how far two answers may be apart. The first whose answer was wrong is put a few times more: an
answer that changes is a race, or what an earlier call has left. Of operations that have no wrong answer three cases are
drawn anew, with other numbers and in other shapes (drawn.py).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy

from refllm.numbers.plans import Plan
from refllm.verify.case import Case, FaultError, Truth, UnsupportedError
from refllm.verify.law import Law
from refllm.verify.laws.arguments import other_arguments
from refllm.verify.laws.calls import AGAIN, again, between, layouts, poison, twice
from refllm.verify.laws.differences import named
from refllm.verify.laws.drawn import drawn, is_of_one_length
from refllm.verify.laws.neighbours import neighbours
from refllm.verify.laws.swallowed import swallowed
from refllm.verify.laws.trial import Base, Trial
from refllm.verify.laws.trying import OVER, TIME, Trying
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.evaluate import expected
from refllm.verify.sized.judge import EXACT, judged
from refllm.verify.sized.recipes import shape_of
from refllm.verify.sized.work import work
from refllm.verify.tolerance import SHARE, UNIT

if TYPE_CHECKING:
    from refllm.verify.runner import Implementation, Result

NEARLY = 1e-4  # the share of an answer by which what a call adds may be another than the right answer
CALLS = 8  # of a case whose answer was wrong: a race shows in some of them
BETWEEN_PROBES = "every element"  # of an answer in float64, of which probes and the sum are stored
OTHERS = 3  # calls of other shapes after which a wrong answer is asked for again
AFTER_OTHERS = ("called a second time with the same inputs", "called again with the same inputs after another call")
RIGHT_NOW = (
    "the case was answered wrongly, and called again with the same inputs rightly: it depends on "
    "earlier calls, or on chance"
)
LARGEST = 1_000_000  # the work of a case that is drawn anew beside the smallest (sized.work)
LEAST = 1000  # numbers of its answer that a case has: fewer are no size of a kernel
LAWS: tuple[Callable[[Base], Iterator[Trial]], ...] = (again, neighbours, swallowed, poison, between, twice, layouts)


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
    usable = [case for case in cases if case.id in right]
    chosen = {case.operation: case for case in sorted(usable, key=_order, reverse=True)}
    trying, found = Trying(implementation, dtype, until, casts), dict[str, list[Law]]()
    wrong = {result.case.id for result in results if result.status == "fail"}
    suspect = {case.operation: case for case in reversed(cases) if case.id in wrong}  # the first, which a report shows
    for case in suspect.values():
        others = [each for each in cases if each.operation == case.operation and each.id != case.id]
        others = sorted((each for each in others if work(each) <= LARGEST), key=work)
        found[case.id] = _unsteady(trying, case, (*others[-1:], *others[: OTHERS - 1]), dtype, plan)
    for case in chosen.values():
        found[case.id] = _found(trying, case, right[case.id], dtype, plan) if time.monotonic() < until else [_OVER]
    sound = {name: case for name, case in chosen.items() if name not in suspect}
    for case in [*sound.values(), *_further(usable, sound)]:
        if time.monotonic() < until:
            gradients = right[case.id].status != "value"
            smallest = sound.get(case.operation) is case
            found.setdefault(case.id, []).extend(_drawn(trying, case, dtype, plan, gradients, arguments=smallest))
    for result in results:
        laws = found.get(result.case.id, [])
        held = result.under_laws(laws)
        yield replace(held, alone=True) if any(law.message == RIGHT_NOW for law in laws) else held


_OVER = Law(TIME, False, OVER)


def _unsteady(
    trying: Trying, sized: SizedCase, others: Iterable[SizedCase], dtype: str, plan: Plan
) -> list[Law]:  # fmt: skip
    """Of a wrong answer: whether further calls with the same inputs give it again, and after calls of other shapes."""
    from refllm.verify.runner import Result, in_dtype, respond

    case = _with_truth(sized.case(), dtype, plan, gradients=bool(sized.cotangents))
    try:
        response = respond(trying.implementation, case, dtype)
    except (UnsupportedError, FaultError):
        return []
    if trying.casts:
        response, _ = in_dtype(case, response, dtype)
    if response.gradients is None:
        case = case.values_alone()
    if judged(sized, case, response, dtype, plan).status != "fail":  # as it was judged when it was wrong
        return [Law(AGAIN, True, RIGHT_NOW)]
    base = Base(Result(case, "fail", ""), response, dtype, 1.0, 0, declares=True)
    for _ in range(CALLS):
        if broken := [law for law in trying.first_of(again(base)) if law.broken]:
            added = _added(trying, case, dtype)
            return [replace(law, message=f"{law.message}{added}") for law in broken]
    return _after_others(trying, base, others, dtype)


def _after_others(trying: Trying, base: Base, others: Iterable[SizedCase], dtype: str) -> list[Law]:
    """Whether calls of other shapes change the answer: what it did not write itself is what they have left there."""
    from refllm.verify.runner import respond

    for other in others:
        with contextlib.suppress(UnsupportedError, FaultError):
            respond(trying.implementation, other.case(), dtype)
        for law in trying.first_of(again(base)):
            if law.broken:
                said = law.message.replace(*AFTER_OTHERS)
                return [replace(law, message=f"{said}: it depends on memory that the call did not write")]
    return []


def _added(trying: Trying, case: Case, dtype: str) -> str:
    """Whether each call adds its answer to what the call before left: their difference is the right answer."""
    from refllm.verify.runner import respond

    try:
        one, two = (respond(trying.implementation, case, dtype) for _ in range(2))
    except (UnsupportedError, FaultError):
        return ""
    groups = (("outputs", case.outputs), ("gradients", case.gradients))
    found = list[str]()
    for group, name, truth in ((group, name, truth) for group, truths in groups for name, truth in truths.items()):
        x, y = (numpy.asarray((getattr(each, group) or {}).get(name, 0)) for each in (one, two))
        if truth.condition is None or x.shape != truth.value.shape or numpy.array_equal(x, y):
            continue
        x, y = x.astype("float64"), y.astype("float64")
        with numpy.errstate(all="ignore"):
            size = abs(truth.value).max(initial=0) + abs(y).max(initial=0)
            if not (abs(y - x - truth.value) <= NEARLY * size).all():
                return ""
        found.append(named(group, name))
    return f": each call adds {' and '.join(found)} to what the call before left" if found else ""


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


def _drawn(
    trying: Trying, sized: SizedCase, dtype: str, plan: Plan, gradients: bool, *, arguments: bool
) -> list[Law]:  # fmt: skip
    """What comes of the case with other numbers, in other shapes, and with other arguments."""
    declared = trying.implementation.conventions
    if any(declared.get(name, own) != own for name, own in sized.conventions.items()):
        return []  # numbers that are drawn may meet a convention that those of the case do not

    def with_truth(case: Case) -> Case:
        return _with_truth(case, dtype, plan, gradients=gradients and bool(case.gradients))

    found = list[Law]()
    trials = [drawn(sized, with_truth, dtype, 1.0), *([other_arguments(sized, with_truth, dtype, 1.0)] * arguments)]
    for trial in chain.from_iterable(trials):
        if not any(law.broken and law.name == trial.law for law in found):  # what is known is not asked again
            found += trying.first_of([trial])
    return found


def _further(right: list[SizedCase], chosen: Mapping[str, SizedCase]) -> Iterator[SizedCase]:
    """Of each operation that has them a case of a middle size and a large one, beside the smallest."""
    for operation, smallest in chosen.items():
        others = sorted((c for c in right if c.operation == operation and c is not smallest), key=work)
        others = [case for case in others if work(case) <= LARGEST]
        others = [case for case in others if not is_of_one_length(case)] or others  # those can grow
        yield from {case.id: case for case in (others[len(others) // 2 : len(others) // 2 + 1] + others[-1:])}.values()


def _with_truth(case: Case, dtype: str, plan: Plan, *, gradients: bool) -> Case:
    """The case with the answers of the text, whose conditions are what the plan allows."""
    case = case if gradients else case.values_alone()
    found = expected(case, plan, gradients=gradients)
    allowed = plan.limit / (SHARE[dtype] * UNIT[dtype])
    truths = {
        name: Truth(x.value, allowed * x.deviation if x.value.dtype.kind == "f" else None) for name, x in found.items()
    }
    outputs, of_gradients = ({n: truths[f"{g}.{n}"] for n in getattr(case, g)} for g in ("outputs", "gradients"))
    return replace(case, outputs=outputs, gradients=of_gradients)


def _order(case: SizedCase) -> tuple[bool, bool, int]:
    """Those first that have a size: of their answer, or where no answer has one, as a loss, of what is given."""
    given = sum(math.prod(shape_of(recipe)) for recipe in case.inputs.values())
    size = sum(math.prod(shape) for shape in case.outputs.values())
    return size < LEAST, given < LEAST, size if size >= LEAST else given
