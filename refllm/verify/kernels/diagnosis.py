"""Which mistake gives the wrong answers to sized cases: one of the text with loops, or of the plain text.

    recogniser = Recogniser("float32", plan, seconds=10)
    results = list(judge.run(implementation, sized, "float32", plan, seen=recogniser.look))
    recogniser.explained(results, right)          the same results, each wrong one with its explanation
                                                  (`right` are cases whose answers were right)

A mistake explains an answer that is its own at every element, within the spread of a right one. Memory that the mistake
leaves unwritten may hold anything. A mistake that loses digits explains an answer whose errors are as large as its own,
in the same tensors. One that would have got a case wrong whose answer is right explains nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy

from refllm.backend import Array
from refllm.numbers.plans import Plan
from refllm.verify import mutants, plain, runner
from refllm.verify.case import Case, FaultError, Response, UnsupportedError
from refllm.verify.explanation import Explanation
from refllm.verify.kernels import bank
from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.mistakes import MISTAKES
from refllm.verify.kernels.table import size
from refllm.verify.mutants import Edited
from refllm.verify.runner import Result
from refllm.verify.sized import judge
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.evaluate import Expected
from refllm.verify.tolerance import UNIT

LARGEST = 6_000_000  # the work of a case that is still looked at (kernels.table.size)
CASES = 4  # wrong answers to an operation that are looked at, and right ones
SECONDS = 3.0  # for the first wrong answer to an operation; later ones are held against what was found alone
SIZES = ({"TILE": 64}, {"TILE": 16}, {"TILE": 128}, {"BLOCK": 1024}, {"BLOCK": 128}, {"BLOCK": 64})
DIGITS = 64.0  # roundings of an element that may differ between two implementations of one mistake
ROUGH = 8.0  # times what a mistake loses in float32 that an answer may lose
LOSS = 0.1  # the share of the truth that errors may be which are lost digits
FACTOR = 4.0  # how far apart the errors of two that lose the same digits may be


@dataclass(frozen=True, eq=False)
class Cause:
    """A mistake, with tiles or blocks of a size that is not the text's where `sizes` says so."""

    mistake: Mistake | Edited
    sizes: tuple[tuple[str, int], ...] = ()

    @property
    def id(self) -> str:
        return self.mistake.id

    @property
    def issue(self) -> str | None:
        return self.mistake.issue

    @property
    def about(self) -> str:
        return self.mistake.about + "".join(f", with {name.lower()}s of {n:,}" for name, n in self.sizes)

    @property
    def diff(self) -> list[tuple[str, list[str]]]:
        return self.mistake.diff

    def answer(self, case: Case, dtype: str) -> Response | None:
        """None if it raises."""
        if isinstance(self.mistake, Edited):
            how = {"traced": self.mistake.traced, "values": not case.cotangents}
            return plain.answer(case, dtype, self.mistake.functions, **how)
        try:
            return runner.respond(bank.implementation(self.mistake, **dict(self.sizes)), case, dtype)
        except (FaultError, UnsupportedError):
            return None


@dataclass
class _Operation:
    """What is known of the answers to an operation."""

    causes: list[Cause]  # that explain all wrong answers which were looked at
    looked_at: list[str] = field(default_factory=list)
    unlike: set[str] = field(default_factory=set)  # of these, those that no cause explains
    gradients: bool = True  # whether some are given
    by_noise: set[Cause] = field(default_factory=set)
    unwritten: set[Cause] = field(default_factory=set)  # those that may hold anything somewhere
    right: list[SizedCase] = field(default_factory=list)


class Recogniser:
    def __init__(self, dtype: str, plan: Plan, seconds: float) -> None:
        self.dtype, self.plan, self.left = dtype, plan, seconds
        self.known: dict[str, _Operation] = {}

    def look(self, sized: SizedCase, case: Case, response: Response, result: Result, text: judge.Text) -> None:
        """Holds an answer against the mistakes, while its case has its tensors."""
        known = self.known.setdefault(case.operation, _Operation([]))
        if result.status != "fail" or len(known.looked_at) >= CASES or size(sized) > LARGEST or self.left <= 0:
            return
        if any(v.wrong == "shape" for v in result.verdicts):
            return
        known.gradients = response.gradients is not None
        first, start = not known.causes, time.monotonic()
        end = start + min(self.left, SECONDS)
        given = _tensors(response)
        found = list[Cause]()
        for cause in _candidates(case.operation) if first else known.causes:
            if time.monotonic() > end:
                break
            if way := self._explains(cause, case, given, text):
                found.append(cause)
                known.by_noise |= {cause} if way == "digits" else set()
                known.unwritten |= {cause} if way == "unwritten" else set()
        self.left -= time.monotonic() - start
        known.looked_at.append(sized.id)
        if found:
            known.causes = found
        else:
            known.unlike.add(sized.id)

    def explained(self, results: list[Result], right: Iterable[SizedCase]) -> list[Result]:
        """The results, each wrong one with what explains its operation."""
        for sized in right:
            if sized.operation in self.known:
                self.known[sized.operation].right.append(sized)
        chosen = {operation: self._chosen(known) for operation, known in self.known.items() if known.causes}
        return [self._with(result, chosen.get(result.case.operation, [])) for result in results]

    def _with(self, result: Result, causes: list[Cause]) -> Result:
        if result.status != "fail" or not causes or result.case.id in self.known[result.case.operation].unlike:
            return result
        cause, known = causes[0], self.known[result.case.operation]
        how = "loses digits as" if cause in known.by_noise else "equal to"
        here = "" if result.case.id in known.looked_at else " (as are the smaller ones that were compared)"
        alike = len({each.id for each in causes}) - 1
        others = f"; {alike} other known mistake{'s' if alike > 1 else ''} would give the same" if alike else ""
        return replace(result, diagnosis=[Explanation.of(f"{how} {cause.about} ({cause.id}){here}{others}", cause)])

    def _chosen(self, known: _Operation) -> list[Cause]:
        """Those that no right answer contradicts: equal ones before those that lose as many digits."""
        left = list(known.causes) if 2 * len(known.unlike) < len(known.looked_at) else []
        for sized in sorted(known.right, key=size)[:CASES]:
            left = [cause for cause in left if size(sized) > LARGEST or self._is_right(cause, sized, known.gradients)]
        return sorted(left, key=lambda cause: (cause in known.by_noise, cause in known.unwritten, bool(cause.sizes)))

    def _is_right(self, cause: Cause, sized: SizedCase, gradients: bool) -> bool:
        """Whether a mistake gets a case right: its value, and its gradients where some were given."""
        case = sized.case()
        response = cause.answer(case, self._single)
        if response is None:
            return False
        text = judge.Text(case, self.plan, gradients=response.gradients is not None)
        given = _tensors(response if gradients else replace(response, gradients=None))
        return not any(self._wrong(x, text.of(n)).any() for n, x in given.items())

    @property
    def _single(self) -> str:
        """The dtype in which a mistake is run whose digits are those of the answers."""
        return "float64" if self.dtype == "float64" else "float32"

    def _explains(self, cause: Cause, case: Case, given: dict[str, Array], text: judge.Text) -> str:
        """`equal`, `unwritten` or `digits`, if it does."""
        exact, rough = (cause.answer(case, dtype) for dtype in ("float64", "float32"))
        if exact is None or rough is None:
            return ""
        one, other = _tensors(exact), _tensors(rough)
        if not all(n in one and x.shape == one[n].shape for n, x in given.items()):
            return ""
        if all(self._is_equal(x, one[n], other[n], text.of(n)) for n, x in given.items()):
            return "unwritten" if any(numpy.isnan(one[n]).any() for n in given) else "equal"
        digits = self.dtype == "float32" and all(self._loses_alike(x, other[n], text.of(n)) for n, x in given.items())
        return "digits" if digits else ""

    def _wrong(self, x: Array, truth: Expected) -> Array:
        return judge.deviations(x, truth, self.dtype, self.plan) > 1

    def _is_equal(self, x: Array, other: Array, rough: Array, truth: Expected) -> bool:
        """Whether an answer is that of a mistake, as far as the dtype of the run reaches; `rough` is that of the
        mistake in float32, whose rounding may be another than that of the truth."""
        x, other = x.astype("float64"), other.astype("float64")
        wrong, mistaken = self._wrong(x, truth), self._wrong(other, truth)
        unwritten = numpy.isnan(other) & numpy.isfinite(truth.value)
        written = unwritten & ~wrong & (x != 0)  # memory of zeros is right where the truth is nearly 0
        left = not unwritten.any() or wrong[unwritten].any()
        if not left or 2 * written.sum() > unwritten.sum() or 2 * mistaken.sum() < wrong.sum():
            return False
        with numpy.errstate(all="ignore"):
            lost = numpy.nan_to_num(abs(rough - other), posinf=0.0)
            lost = lost.max(axis=-1, keepdims=True, initial=0) if lost.ndim else lost
            allowed = self.plan.limit * truth.deviation + DIGITS * UNIT[self.dtype] * abs(other)
            allowed = allowed + ROUGH * UNIT[self.dtype] / UNIT["float32"] * lost
            same = (abs(x - other) <= allowed) | (x == other) | (numpy.isnan(x) & numpy.isnan(other))
        return bool((same | unwritten | numpy.isposinf(truth.deviation)).all())

    def _loses_alike(self, x: Array, other: Array, truth: Expected) -> bool:
        """Whether an answer is off where a mistake is that loses digits, by about as much."""
        if not numpy.array_equal(numpy.isfinite(x), numpy.isfinite(other)):
            return False
        mine, theirs = (self._wrong(y, truth) for y in (x, other))
        if mine.any() != theirs.any():
            return False
        a, b = (_error(y, truth.value) for y in (x, other))
        return not mine.any() or (max(a, b) <= FACTOR * min(a, b) and b < LOSS * _error(truth.value, 0 * truth.value))


def _candidates(operation: str) -> Iterator[Cause]:
    """The mistakes of an operation: those of the text with loops, of the plain text, and the former in other sizes."""
    of_loops = [m for m in MISTAKES if operation in bank.OPERATIONS and m.reaches(operation)]
    yield from (Cause(m) for m in of_loops)
    called = set(plain.called(operation)) if operation in plain.operations() else set()
    for mutant in mutants.MUTANTS:
        if isinstance(mutant, Edited) and mutant.dtype == "float64" and set(mutant.originals) <= called:
            yield Cause(mutant)
    for sizes in SIZES:
        yield from (Cause(m, tuple(sizes.items())) for m in of_loops if _has(m, *sizes))


def _has(mistake: Mistake, name: str) -> bool:
    """Whether the mistaken lines depend on a size."""
    return any(name in each.edit.source for each in mistake.rewritten)


def _tensors(response: Response) -> dict[str, Array]:
    found = {f"outputs.{n}": x for n, x in response.outputs.items()}
    return found | {f"gradients.{n}": x for n, x in (response.gradients or {}).items() if x is not None}


def _error(x: Array, truth: Array) -> float:
    """The root of the mean square of what can be compared."""
    there = numpy.isfinite(x) & numpy.isfinite(truth)
    return math.sqrt(float(((x[there].astype("float64") - truth[there]) ** 2).mean())) if there.any() else 0.0
