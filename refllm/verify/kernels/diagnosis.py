"""Which mistake gives the wrong answers to sized cases: one of the text with loops, or of the plain text, or the right
operation of wrong numbers.

    recogniser = Recogniser("float32", plan, seconds=10)
    results = list(judge.run(implementation, sized, "float32", plan, seen=recogniser.look))
    recogniser.explained(results, right)          the same results, each wrong one with its explanation
                                                  (`right` are cases whose answers were right)

`matching` says when a mistake explains a tensor. One that would have got a case wrong whose answer is right is named
with the condition that tells these cases apart ("in the cases where I > 1,024"), or not at all. How many right answers
are asked is no matter of time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy

from refllm.backend import Array
from refllm.numbers.plans import Plan
from refllm.verify import plain
from refllm.verify.case import Case, Response
from refllm.verify.explanation import Explanation
from refllm.verify.kernels import axes, conditions, matching, relations
from refllm.verify.kernels.causes import Cause, OfBank, causes
from refllm.verify.kernels.clock import Clock
from refllm.verify.kernels.matching import WAYS, Given, tensors
from refllm.verify.kernels.table import size
from refllm.verify.runner import Result
from refllm.verify.sized import judge
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.pattern import in_words
from refllm.verify.tolerance import UNIT

LARGEST = 6_000_000  # the work of a case that is still looked at (kernels.table.size)
SEARCHES = 3  # wrong answers to an operation for which all mistakes are tried, if those that were found do not fit
CASES = 12  # wrong answers that are held against what was found
RIGHT = 16  # right answers that are, and the work of all of them
BEST = 8  # mistakes that right answers are asked about
MORE = 60  # mistakes that are tried after one that explains an answer, and as many as before it
FACTS = 4  # wrong answers of which it is said what they have in common with the truth
MANY = 4  # answers that a loss of digits must explain to be named with a condition
MARGIN = 16.0  # times what is allowed that a mistake that loses digits must be off to be contradicted
UNKNOWN = "explained by no known mistake"


@dataclass(frozen=True)
class Match:
    """How a mistake explains a case: by tensor, of those that are wrong."""

    ways: dict[str, str]
    left: tuple[str, ...]  # wrong tensors that it does not explain

    @property
    def rank(self) -> tuple[int, int]:
        return len(self.left), max(WAYS.index(way) for way in self.ways.values())


@dataclass
class Looked:
    """A wrong answer that was looked at."""

    sized: SizedCase
    numbers: conditions.Numbers
    matches: dict[Cause, Match]
    where: str
    facts: list[str]


@dataclass
class _Operation:
    """What is known of the answers to an operation."""

    looked: dict[str, Looked] = field(default_factory=dict)
    searches: int = 0
    in_time: bool = True
    gradients: bool = True
    right: list[SizedCase] = field(default_factory=list)

    @property
    def causes(self) -> dict[Cause, None]:
        return {cause: None for each in self.looked.values() for cause in each.matches}


class Recogniser:
    def __init__(self, dtype: str, plan: Plan, seconds: float) -> None:
        self.dtype, self.plan, self.left = dtype, plan, seconds
        self.known: dict[str, _Operation] = {}

    def look(self, sized: SizedCase, case: Case, response: Response, result: Result, text: judge.Text) -> None:
        """Holds an answer against the mistakes, while its case has its tensors."""
        known = self.known.setdefault(case.operation, _Operation())
        if result.status != "fail" or len(known.looked) >= CASES or self.left <= 0:
            return
        if any(v.wrong in ("shape", "missing", "type") for v in result.verdicts):
            return
        clock, looker = Clock(self.left), _Looker(case, response, text, self.dtype, self.plan)
        known.gradients = response.gradients is not None
        matches = dict[Cause, Match]()
        if size(sized) <= LARGEST:
            matches = looker.matches(known.causes)
            if not any(match.rank < (1, 0) for match in matches.values()) and known.searches < SEARCHES:
                known.searches += 1
                clock.seconds = self.left * (0.7 if known.searches == 1 else 0.5)
                matches |= looker.search(case.operation, clock, set(known.causes))
                known.in_time = known.in_time and not clock.is_over
        facts = looker.facts() if len(known.looked) < FACTS and not matches else []
        known.looked[sized.id] = Looked(sized, axes.numbers(case), matches, looker.where, facts)
        self.left -= clock.used()

    def explained(self, results: list[Result], right: Iterable[SizedCase]) -> list[Result]:
        """The results, each wrong one with what explains its operation."""
        for sized in right:
            if sized.operation in self.known:
                self.known[sized.operation].right.append(sized)
        chosen = {operation: _Chosen(known, self) for operation, known in self.known.items() if known.looked}
        of_id = {result.case.id: result for result in results}
        for operation, known in self.known.items():
            for id, looked in known.looked.items():
                if id in of_id and of_id[id].status == "fail":
                    of_id[id] = replace(of_id[id], diagnosis=chosen[operation].said_of(looked))
        return [self._with(of_id[result.case.id], chosen.get(result.case.operation)) for result in results]

    def _with(self, result: Result, chosen: _Chosen | None) -> Result:
        """A wrong result that was not looked at, with what explains all that were."""
        if result.status != "fail" or chosen is None or result.case.id in chosen.known.looked:
            return result
        return replace(result, diagnosis=chosen.said_of_another(result))


class _Looker:
    """One answer, held against mistakes."""

    def __init__(self, case: Case, response: Response, text: judge.Text, dtype: str, plan: Plan) -> None:
        self.case, self.values = case, case.values_alone()
        given = tensors(response)
        known = {f"outputs.{n}" for n in case.outputs} | {f"gradients.{n}" for n in case.gradients}
        self.given = Given({n: x for n, x in given.items() if n in known}, text.of, dtype, plan)
        self.text = text

    @cached_property
    def wrong(self) -> dict[str, Array]:
        found = {n: self.given.wrong(n) for n in self.given.tensors}
        return {n: off for n, off in found.items() if off.any()}

    @cached_property
    def where(self) -> str:
        """Where the first wrong tensor is wrong, in words."""
        if not self.wrong:
            return ""
        off = next(iter(self.wrong.values()))
        return in_words(off, judge.axes_of(self.case, off.shape))

    def facts(self) -> list[str]:
        truths = {n: self.text.of(n).value for n in self.wrong}
        given, unit = self.given, UNIT[self.given.dtype]
        found = list(relations.lines_of(self.case, self.wrong, given.tensors, truths.__getitem__, unit))
        return list(dict.fromkeys(found))[:4]

    def search(self, operation: str, clock: Clock, tried: set[Cause]) -> dict[Cause, Match]:
        """All mistakes, until one explains everything and as many again were tried, or the time is over."""
        found, partly, full, last = dict[Cause, Match](), list[Cause](), False, 1 << 30
        for number, cause in enumerate(causes(operation)):
            if clock.is_over or number > last:
                break
            if cause not in tried and (match := self.match(cause)):
                found[cause] = match
                partly += [cause] if "partly" in match.ways.values() else []
                if not full and match.rank == (0, 0):
                    full, last = True, 2 * number + MORE
        for other in () if full else (other for cause in partly[:2] for other in getattr(cause, "variants", tuple)()):
            if match := self.match(other):
                found[other] = match
        return found

    def matches(self, among: Iterable[Cause]) -> dict[Cause, Match]:
        found = {cause: self.match(cause) for cause in among}
        return {cause: match for cause, match in found.items() if match is not None}

    def match(self, cause: Cause) -> Match | None:
        """How a mistake explains the answer: its values, and as many of its gradients as it does."""
        given = self.given.tensors
        outputs = [n for n in given if n.startswith("outputs.")]
        gradients = [n for n in given if n.startswith("gradients.")]
        wrong_outputs = [n for n in outputs if n in self.wrong]
        wrong_gradients = [n for n in gradients if n in self.wrong]
        if cause.gradients_alone and (wrong_outputs or not wrong_gradients):
            return None
        ways = {} if cause.gradients_alone else self._ways(cause, self.values, outputs)
        if ways is None:
            return None
        if wrong_gradients:
            of_gradients = self._ways(cause, self.case, gradients, some=bool(wrong_outputs) or cause.gradients_alone)
            if of_gradients is None and not wrong_outputs:
                return None
            ways |= of_gradients or {}
        ways = {n: way for n, way in ways.items() if n in self.wrong}
        left = tuple(n for n in self.wrong if n not in ways)
        return Match(ways, left) if ways else None

    def _ways(self, cause: Cause, case: Case, names: list[str], *, some: bool = False) -> dict[str, str] | None:
        """How it explains each of these tensors; None if one is not explained, unless some are enough."""
        exact = cause.answer(case, "float64")
        if exact is None:
            return None
        one, rough = tensors(exact), _Rough(cause, case)
        found = dict[str, str]()
        for name in names:
            narrows = getattr(cause, "narrows", False)
            way = matching.way(self.given, name, one[name], rough.of, narrows=narrows) if name in one else ""
            if way:
                found[name] = way
            elif not some and name in (one if name not in self.wrong else names):
                return None
        return found


class _Rough:
    """A mistake in float32, evaluated when it is asked for."""

    def __init__(self, cause: Cause, case: Case) -> None:
        self._how = cause, case

    @cached_property
    def _found(self) -> dict[str, Array]:
        cause, case = self._how
        response = cause.answer(case, "float32")
        return tensors(response) if response else {}

    def of(self, name: str) -> Array | None:
        return self._found.get(name)


class _Chosen:
    """What explains the wrong answers to an operation, after right ones were asked."""

    def __init__(self, known: _Operation, recogniser: Recogniser) -> None:
        self.known, self.how = known, recogniser
        self.conditions: dict[Cause, conditions.Condition | None] = {}
        self.order = sorted(self._named(), key=self._rank)

    def _named(self) -> list[Cause]:
        """Those that no right answer contradicts, or that a condition tells apart."""
        found = list[Cause]()
        for cause in sorted(self.known.causes, key=self._rank)[:BEST]:
            told = self._told(cause)
            if self._way(cause) == "digits" and 3 * told < 2 * len(self.known.looked):
                continue
            against = [sized for sized in self._asked if not self._is_right(cause, sized)]
            if against:
                own = [each.numbers for each in self.known.looked.values() if cause in each.matches]
                condition = conditions.separating(own, [axes.numbers(sized.case()) for sized in against])
                if condition is None or (self._way(cause) == "digits" and told < max(MANY, len(self.known.looked))):
                    continue
                self.conditions[cause] = condition
            found.append(cause)
        return found

    @cached_property
    def _asked(self) -> list[SizedCase]:
        """Right answers of all sizes, as many as their work allows."""
        held, work = list[SizedCase](), 0
        for sized in sorted(self.known.right, key=size):
            work += size(sized)
            if work <= LARGEST:
                held.append(sized)
        return held if len(held) <= RIGHT else [held[n * (len(held) - 1) // (RIGHT - 1)] for n in range(RIGHT)]

    def _told(self, cause: Cause) -> int:
        """How many of the answers that were looked at it explains."""
        return sum(cause in each.matches for each in self.known.looked.values())

    def _way(self, cause: Cause) -> str:
        ways = [
            w for each in self.known.looked.values() if cause in each.matches for w in each.matches[cause].ways.values()
        ]
        return max(ways, key=WAYS.index)

    def _rank(self, cause: Cause) -> tuple[object, ...]:
        """Those first that explain most answers, in full, without a condition, and are simple."""
        matched = [each.matches[cause] for each in self.known.looked.values() if cause in each.matches]
        sized = bool(getattr(cause, "sizes", ()))
        return (
            -sum(not match.left for match in matched), -len(matched), cause in self.conditions,
            max(match.rank for match in matched), sized,
        )  # fmt: skip

    def _is_right(self, cause: Cause, sized: SizedCase) -> bool:
        """Whether a mistake gets a case right: its value, and where it is one of gradients, these."""
        in_gradients = all(n.startswith("gradients.") for m in self._matches(cause) for n in m.ways)
        case = sized.case()
        case = case if in_gradients and self.known.gradients else case.values_alone()
        dtype = "float64" if self.how.dtype == "float64" or self._way(cause) != "digits" else "float32"
        found = cause.answer(case, dtype)
        if found is None:
            return not isinstance(cause, OfBank)
        plainly = plain.answer(replace(case, inputs=dict(case.inputs)), "float64", {}, traced=False)
        if plainly is not None and _alike(tensors(found), tensors(plainly)):
            return True
        text = judge.Text(case, self.how.plan, gradients=bool(case.cotangents))
        margin = MARGIN if self._way(cause) == "digits" else 1.0
        return not any(
            (judge.deviations(x, text.of(n), self.how.dtype, self.how.plan) > margin).any()
            for n, x in tensors(found).items()
        )

    def _matches(self, cause: Cause) -> list[Match]:
        return [each.matches[cause] for each in self.known.looked.values() if cause in each.matches]

    # --- in words

    def said_of(self, looked: Looked) -> list[str]:
        """The lines of an answer that was looked at."""
        causes = [cause for cause in self.order if cause in looked.matches]
        if not causes:
            late = "" if self.known.in_time else " that was tried in the time there was (--search)"
            return [f"{UNKNOWN} of {looked.sized.operation}{late}", *looked.facts]
        cause = causes[0]
        match = looked.matches[cause]
        alike = len({each.id for each in causes if looked.matches[each].rank == match.rank} - {cause.id})
        where = f", {looked.where}" if "partly" in match.ways.values() and looked.where else ""
        return [self._line(cause, match, where, alike)]

    def said_of_another(self, result: Result) -> list[str]:
        """What explains all that were looked at, if the condition holds here too."""
        if not self.order or any(not each.matches for each in self.known.looked.values()):
            return []
        cause = self.order[0]
        match, condition = self._matches(cause)[0], self.conditions.get(cause)
        if condition is not None or any(cause not in each.matches for each in self.known.looked.values()):
            return []
        return [self._line(cause, match, " (as are the smaller ones that were compared)", 0)]

    def _line(self, cause: Cause, match: Match, where: str, alike: int) -> Explanation:
        how = "loses digits as" if "digits" in match.ways.values() else "equal to"
        named = match.left or (cause.gradients_alone and not isinstance(cause, OfBank))
        of = ", ".join(relations.said(name) for name in match.ways) + ": " if named else ""
        condition = self.conditions.get(cause)
        only = f", in the cases where {condition.words}" if condition else ""
        others = f"; {alike} other known mistake{'s' if alike > 1 else ''} would give the same" if alike else ""
        return Explanation.of(f"{of}{how} {cause.about} ({cause.id}){where}{only}{others}", cause)


def _alike(one: dict[str, Array], other: dict[str, Array]) -> bool:
    """Whether two answers are the same but for roundings of float64."""
    return all(
        n in other and x.shape == other[n].shape
        and numpy.allclose(x, other[n], rtol=1e-9, atol=1e-9 * _largest(other[n]), equal_nan=True)
        for n, x in one.items()
    )  # fmt: skip


def _largest(x: Array) -> float:
    finite = x[numpy.isfinite(x)]
    return float(abs(finite).max(initial=0))
