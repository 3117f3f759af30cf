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

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

from refllm.backend import Array
from refllm.numbers.plans import Plan
from refllm.verify.case import Case, Response
from refllm.verify.kernels import axes, matching, properties, quantities, relations, searched, stages, tails
from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.causes import Cause, OfBank, causes, in_other_sizes
from refllm.verify.kernels.chosen import Chosen, Looked, Match, Operation
from refllm.verify.kernels.clock import Clock
from refllm.verify.kernels.matching import WAYS, Given, tensors
from refllm.verify.kernels.ratios import Scaled
from refllm.verify.kernels.screens import Screen
from refllm.verify.runner import Result
from refllm.verify.sized import judge
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.pattern import in_words
from refllm.verify.sized.work import work
from refllm.verify.tolerance import UNIT

LARGEST = 6_000_000  # the work of a case that is still looked at (sized.work)
SEARCHES = 6  # wrong answers to an operation for which all mistakes are tried, if those that were found do not fit
CASES = 12  # wrong answers that are held against what was found
VARIED = 4  # mistakes that explain an answer partly, of which other sizes and numbers are tried
MORE = 250  # mistakes that are tried after one that explains an answer, and as many as before it
SMALL, LATER = 300_000, 8  # the work of an answer that is held against what is found later, and of how much of it
WAIT, WAITING = 1_000_000, 3  # the work of an answer that waits for a smaller one, and how many do
MANY, FEW_LEFT = 16, 6  # mistakes that the second answer is held against, and those that follow
FEW = 3  # mistakes that such an answer is held against
DIGITS = (0, WAYS.index("digits"))  # of a match: everything is explained, as lost digits
FEWER = 3.0  # bits than the dtype has that an answer has which loses digits
FACTS = 4  # wrong answers of which it is said what they have in common with the truth
RESERVED = 0.3  # the share of the time that is kept for edits of the plain text, once all mistakes were tried in vain


class Recogniser:
    def __init__(self, dtype: str, plan: Plan, seconds: float) -> None:
        self.dtype, self.plan, self.left = dtype, plan, seconds
        self._reserved, self._pace = RESERVED * seconds, 1.0
        self.known: dict[str, Operation] = {}
        self._kept: dict[str, list[tuple[Looked, _Looker]]] = {}  # small answers, for what is found later
        self._all: dict[str, list[tuple[Looked, _Looker]]] = {}  # and those that are held against an edit of the text
        self._wrong: dict[str, list[Result]] = {}  # those from which such an edit is searched
        self._waiting: dict[str, list[tuple[Looked, _Looker]]] = {}  # large ones, until small ones are searched

    def look(self, sized: SizedCase, case: Case, response: Response, result: Result, text: judge.Text) -> None:
        """Holds an answer against the mistakes, while its case has its tensors."""
        known = self.known.setdefault(case.operation, Operation())
        if result.status == "fail":
            known.numbers[sized.id] = axes.numbers(case)
        if result.status != "fail" or len(known.looked) >= CASES or self.left <= 0:
            return
        if any(v.wrong in ("shape", "missing", "type") for v in result.verdicts):
            return
        if work(sized) > LARGEST and known.looked:
            return
        clock, looker = Clock(self.left), _Looker(case, response, text, self.dtype, self.plan)
        known.gradients = response.gradients is not None
        most = MANY if len(known.looked) < 2 else FEW_LEFT
        matches = looker.matches(known.likely(most)) if work(sized) <= LARGEST else {}
        waits = WAIT < work(sized) <= LARGEST and len(self._waiting.get(case.operation, ())) < WAITING
        if work(sized) <= LARGEST and not waits:
            matches = self._searched(case.operation, looker, matches, clock)
        facts = looker.facts() if len(known.looked) < FACTS else []
        looked = Looked(
            sized, axes.numbers(case), matches, looker.where, facts, looker.count, looker.starts, looker.bits,
            looker.factors(), steps=looker.steps() if len(known.looked) < FACTS else [],
        )  # fmt: skip
        known.looked[sized.id] = looked
        kept = self._kept.setdefault(case.operation, [])
        for earlier, its in kept:
            best = sorted(matches, key=lambda cause: matches[cause].rank)
            new = [cause for cause in best if cause not in earlier.matches]
            earlier.matches.update(its.matches(new[:LATER]))
        if work(sized) <= SMALL:
            kept.append((looked, looker))
        if work(sized) <= WAIT or waits:
            self._all.setdefault(case.operation, []).append((looked, looker))
        if work(sized) <= searched.LARGEST and len(self._wrong.setdefault(case.operation, [])) < searched.WRONG:
            own = searched.wrong_answer(case, response, result, text, self.dtype, self.plan)
            self._wrong[case.operation] += [own] if own is not None else []
        if waits:
            self._waiting.setdefault(case.operation, []).append((looked, looker))
        self.left -= clock.used()

    def _searched(
        self, operation: str, looker: _Looker, matches: dict[Cause, Match], clock: Clock
    ) -> dict[Cause, Match]:
        """What explains an answer, of all mistakes if those that are known do not."""
        known = self.known[operation]
        if any(match.rank < DIGITS for match in matches.values()) or known.searches >= SEARCHES:
            return matches
        known.searches += 1
        clock.seconds = max(0.0, self.left - (self._reserved if known.searches > 1 else 0.0)) * 0.5
        matches = matches | looker.search(operation, clock, set(known.causes))
        self._pace = clock.pace
        known.in_time = known.in_time and not clock.is_over
        return matches

    def _look_again(self) -> None:
        """Holds the large answers against what smaller ones have shown, or all mistakes where that is nothing."""
        for operation, waiting in self._waiting.items():
            for looked, looker in sorted(waiting, key=lambda each: work(each[0].sized)):
                clock = Clock(self.left)
                looked.matches.update(looker.matches(self.known[operation].likely(FEW, looked.matches)))
                if self.left > 0:
                    looked.matches.update(self._searched(operation, looker, looked.matches, clock))
                self.left -= clock.used()
        self._waiting.clear()

    def _search_the_text(self, chosen: dict[str, Chosen]) -> None:
        """Where known mistakes explain no more than half of the answers to an operation, an edit of its text may."""
        for operation, wrong in self._wrong.items():
            known = self.known[operation]
            if not wrong or self.left <= 0 or 2 * chosen[operation].most_told > len(known.looked):
                continue
            clock = Clock(self.left)
            wrong.sort(key=lambda result: sum(x.size for x in result.case.inputs.values()))
            seconds = self.left * (1 - RESERVED) * self._pace
            edit = searched.found(wrong, known.right, self.dtype, self.plan, seconds, gradients=known.gradients)
            for looked, looker in self._all[operation] if edit is not None else ():
                looked.matches.update(looker.matches([edit]))
            if edit is not None:
                chosen[operation] = Chosen(known, self.dtype, self.plan)
            self.left -= clock.used()

    def explained(
        self, results: list[Result], right: Iterable[SizedCase], tells: Mapping[str, properties.Numbers] | None = None
    ) -> list[Result]:
        """The results, each wrong one with what explains its operation. `tells`: what cases differ in, by their ids."""
        self._look_again()
        for sized in right:
            if sized.operation in self.known:
                self.known[sized.operation].right.append(sized)
        for result in results:
            if result.case.operation in self.known and result.case.id in (tells or {}):
                known = self.known[result.case.operation]
                (known.tell_right if result.right else known.tell_wrong).append((tells or {})[result.case.id])
        chosen = {
            operation: Chosen(known, self.dtype, self.plan) for operation, known in self.known.items() if known.looked
        }
        self._search_the_text(chosen)
        of_id = {result.case.id: result for result in results}
        for operation, known in self.known.items():
            for id, looked in known.looked.items():
                if id in of_id and of_id[id].status == "fail":
                    of_id[id] = replace(of_id[id], diagnosis=chosen[operation].said_of(looked))
        return [self._with(of_id[result.case.id], chosen.get(result.case.operation)) for result in results]

    def _with(self, result: Result, chosen: Chosen | None) -> Result:
        """A wrong result that was not looked at, with what explains all that were."""
        if result.status != "fail" or chosen is None or result.case.id in chosen.known.looked:
            return result
        return replace(result, diagnosis=chosen.said_of_another(result.case.id))


class _Looker:
    """One answer, held against mistakes."""

    def __init__(self, case: Case, response: Response, text: judge.Text, dtype: str, plan: Plan) -> None:
        self.case, self.values = case, case.values_alone()
        given = tensors(response)
        known = {f"outputs.{n}" for n in case.outputs} | {f"gradients.{n}" for n in case.gradients}
        self.given = Given({n: x for n, x in given.items() if n in known}, text.of, dtype, plan)
        self.text = text
        self._apart: dict[str, float] = {}  # of the mistake in hand

    @cached_property
    def loses_digits(self) -> bool:
        """Whether the errors of a wrong tensor are small beside its numbers."""
        return any(matching.is_small_error(self.given, name) for name in self.wrong)

    @cached_property
    def bits(self) -> float:
        """How many significant bits the first wrong tensor has, where its errors are lost digits; 0 elsewhere."""
        for name in self.wrong:
            if matching.is_small_error(self.given, name):
                bits = matching.bits_left(self.given.tensors[name], self.given.truth(name).value)
                return bits if bits < -math.log2(UNIT[self.given.dtype]) - FEWER else 0.0
        return 0.0

    @cached_property
    def wrong(self) -> dict[str, Array]:
        found = {n: self.given.wrong(n) for n in self.given.tensors}
        return {n: off for n, off in found.items() if off.any()}

    @cached_property
    def screen(self) -> Screen:
        return Screen(self.case, self.given, self.wrong)

    @cached_property
    def where(self) -> str:
        """Where the first wrong tensor is wrong, in words."""
        if not self.wrong:
            return ""
        off = next(iter(self.wrong.values()))
        return in_words(off, judge.axes_of(self.case, off.shape))

    @cached_property
    def starts(self) -> tails.Starts:
        """From where on the first wrong tensor is wrong up to the end."""
        off = next(iter(self.wrong.values()), None)
        return {} if off is None else tails.starts(off, judge.axes_of(self.case, off.shape))

    @cached_property
    def count(self) -> int:
        """How many elements are wrong."""
        return sum(int(off.sum()) for off in self.wrong.values())

    def factors(self) -> dict[str, Scaled]:
        unit, has = UNIT[self.given.dtype], quantities.of(self.case)
        found = relations.factors(self.wrong, self.given.tensors, lambda name: self.text.of(name).value, unit)
        return {name: Scaled(factor, has, elements) for name, (factor, elements) in found.items()}

    def facts(self) -> list[str]:
        truths = {n: self.text.of(n).value for n in self.wrong}
        given, unit = self.given, UNIT[self.given.dtype]
        found = list(relations.lines_of(self.case, self.wrong, given.tensors, truths.__getitem__, unit))
        return list(dict.fromkeys(found))[:4]

    def steps(self) -> list[str]:
        """At which step an answer of attention goes wrong."""
        return list(stages.lines_of(self.case, self.screen, self.given.tensors, self.wrong))

    def search(self, operation: str, clock: Clock, tried: set[Cause]) -> dict[Cause, Match]:
        """All mistakes, until one explains everything and as many again were tried, or the time is over."""
        found, partly, last = dict[Cause, Match](), list[Cause](), 1 << 30
        full: Cause | None = None
        for number, cause in enumerate(causes(operation)):
            if clock.is_over or number > last:
                break
            if cause not in tried and (match := self.match(cause)):
                found[cause] = match
                partly += [cause] if "partly" in match.ways.values() else []
                if full is None and match.rank == (0, 0):
                    full, last = cause, 2 * number + MORE
        if full is not None:
            return found | self._in_other_sizes(operation, full, clock, found)
        for other in _variants(partly[:VARIED]):
            if clock.is_over:
                break
            if match := self.match(other):
                found[other] = match
        return found

    def _in_other_sizes(
        self, operation: str, full: Cause, clock: Clock, found: dict[Cause, Match]
    ) -> dict[Cause, Match]:
        """What explains all in tiles or blocks of other sizes, so that the size is said that fits."""
        more = dict[Cause, Match]()
        for other in in_other_sizes(operation, full):
            if other not in found and not clock.is_over and (match := self.match(other)):
                more[other] = match
        return more

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
        if getattr(cause, "of_digits", False) and not self.loses_digits:
            return None
        if isinstance(cause, OfBank) and isinstance(cause.mistake, Mistake):
            narrows = cause.narrows and self.loses_digits
            if not narrows and not self.screen.may(cause.mistake, cause.sizes):
                return None
        self._apart = {}
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
        apart = max((self._apart.get(n, 0.0) for n, way in ways.items() if way == "digits"), default=0.0)
        return Match(ways, left, apart, self._spared(cause, gradients)) if ways else None

    def _spared(self, cause: Cause, gradients: list[str]) -> tuple[str, ...]:
        """Gradients that are right where all are, and that a mistake of the value gets wrong."""
        if cause.gradients_alone or not gradients or any(n in self.wrong for n in gradients):
            return ()
        found = cause.answer(self.case, "float64")
        made = tensors(found) if found else {}
        return tuple(n for n in gradients if n in made and self._is_wrong(n, made[n]))

    def _is_wrong(self, name: str, made: Array) -> bool:
        same_shape = made.shape == self.given.tensors[name].shape
        return same_shape and bool(self.given.wrong(name, made.astype("float64")).any())

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
            if way and not (way == "digits" and getattr(cause, "pointwise", False)):
                found[name] = way
                if way == "digits" and (other := rough.of(name)) is not None:
                    self._apart[name] = matching.bits_apart(self.given, name, other)
            elif not some and name in (one if name not in self.wrong else names):
                return None
        return found


def _variants(causes: Iterable[Cause]) -> Iterator[Cause]:
    return (other for cause in causes for other in getattr(cause, "variants", tuple)())


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
