"""Which mistake gives the numbers of a port?

The search begins from the smallest input that is wrong, between the last value that is right and the first that is
not: a candidate is put into the text there, and what comes out is held against everything that the port gave. What an
input shows on which the port is right excuses no candidate: it must change nothing there. What is found is put into
the text for good, and if the port still differs the search goes on from there.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import FunctionType

import numpy

from refllm.backend import Array
from refllm.parameters import Tree
from refllm.verify import bounded
from refllm.verify.ports import fitted
from refllm.verify.ports.candidates import Candidate, named, of_the_text, run_by
from refllm.verify.ports.evaluation import NOTHING, Change
from refllm.verify.ports.found import NOTHING_SOUGHT, Found, Searched, unlike
from refllm.verify.ports.judged import Judged
from refllm.verify.ports.program import Program
from refllm.verify.ports.trials import SHOWN, Changes, Trials, at

SECONDS = 60.0  # of this process's work: where others work beside it, it takes longer
LONGEST = 10.0  # and at most so many times as long
MISTAKES = 3  # that are sought one after the other
ENOUGH = 100  # candidates that are tried after one that explains all
FURTHER = 0.1  # how much more than what explains all the dearest candidate costs that is still tried
ORDERS = 0.2  # the share of the time for layers in another order, of which each is a run of all layers
IN_ALL = 0.6  # the share of the time for candidates that act in all their layers
NEARLY = 2.0  # how many times as far as the nearest another one may be that gives the same numbers
MOST_ALIKE = 3  # further candidates that are named


def searched(
    program: Program, p: Tree, raw: Mapping[str, Array], answers: Sequence[Judged], seconds: float = SECONDS
) -> Searched:
    """The mistakes of a port by its answers to the inputs. An interrupt ends the search, and what was found stays.
    Nothing is sought where what the model answers is no array of finite numbers of the right shape."""
    end = time.process_time() + seconds
    if any(program.answer in one.unfit for one in answers):
        return NOTHING_SOUGHT
    right, answers = not any(one.wrong for one in answers), [one.fit for one in answers]
    if not any(one.wrong for one in answers) or seconds <= 0:
        return Searched([], right, 0, "" if right else "time")
    with (
        warnings.catch_warnings(action="ignore"),
        numpy.errstate(all="ignore"),
        bounded.until(time.perf_counter() + LONGEST * seconds),
    ):
        return _Search(program, p, raw, answers, end).all()


class _Search:
    def __init__(
        self, program: Program, p: Tree, raw: Mapping[str, Array], answers: Sequence[Judged], end: float
    ) -> None:
        self.program, self.p, self.end = program, p, end
        self.answers = sorted((a for a in answers if not a.fault), key=lambda a: a.truth.input.tokens)
        self.raw, self.named = raw, list[Candidate]()
        self.trials = Trials(program, p, self.answers)
        self.of_text: dict[frozenset[FunctionType], list[Candidate]] = {}
        self.tried = 0
        self.ended = ""
        self.found = list[Found]()
        self.dearest = self.last = math.inf  # cost and number of the last candidate that is tried

    def all(self) -> Searched:
        complete = False
        try:
            complete = self._all()
        except KeyboardInterrupt:
            self.ended = "interrupted"
        found = self.found if complete else self._standing()
        return Searched(found, complete, self.tried, "" if complete else self.ended)

    def _standing(self) -> list[Found]:
        """Of mistakes that do not explain everything, the first ones that leave nothing but what comes in later layers:
        whatever else leaves a rest may be no mistake of the port."""
        known, self.trials.known = self.trials.known, []
        kept = list[Found]()
        for one, (change, places) in zip(self.found, known, strict=False):
            if not self._moves_on([a for a in self.answers if self.trials.first_difference(a, {})], at(places, change)):
                break
            kept.append(one)
            self.trials.known.append((change, places))
        return kept

    def _all(self) -> bool:
        """Finds mistakes until they explain everything; whether they do."""
        known = [*named(self.program, self.p, self.raw), *fitted.numbers(self.program, self.answers)]
        self.named = sorted(known, key=lambda one: one.cost)
        while len(self.found) < MISTAKES and self.ended != "interrupted":
            one = self._next()
            if one is None:
                break
            change = one.candidate.changed()
            assert change is not None
            self.trials.known.append((change, one.places))
            self.found.append(one)
            if one.candidate.edit is None and one.candidate.change is NOTHING:
                return True  # it is what fits all answers
            if all(self.trials.explained(answer, {}) for answer in self.answers):
                return True
        return False

    # --- one more mistake ---------------------------------------------------------------------------------------------

    def _next(self) -> Found | None:
        self.ended = ""
        primary, first = self._begin()
        if primary is None:
            return None
        low, high = self._range(primary, first)
        ran = run_by(self.program, self.p, primary.truth.input.arrays)
        best = self._of(primary, low, high, ran, lambda: self.named, 1.0)
        if best is not None or self.ended == "interrupted":
            return best
        head = self._head()
        if head is not None:  # whatever it is, it is in the output layer
            low = high = head.places[0]
        best = None if self._over(self.end) else self._of(primary, low, high, ran, lambda: self._of_text(ran), IN_ALL)
        return best or head

    def _of(
        self, primary: Judged, low: int, high: int, ran: frozenset[FunctionType],
        candidates: Callable[[], Iterable[Candidate]], share: float,
    ) -> Found | None:  # fmt: skip
        """The best of these candidates, in all their steps or in one."""
        best = self._best(self._in_all_steps(primary, low, high, ran, candidates(), share))
        if best is None and high > low and self.ended != "interrupted":
            best = self._best(self._in_one_step(primary, low, high, ran, candidates()))
        return best

    def _head(self) -> Found | None:
        """That the weights of the output layer are others, where nothing else was found to be wrong."""
        other = None if self.found else fitted.other_head(self.program, self.p, self.answers)
        if other is None or any(set(answer.wrong) - {self.program.answer} for answer in self.answers):
            return None
        place = self.program.index(self.program.answer)
        wrong = sum(bool(answer.wrong) for answer in self.answers)
        return Found(other, (place,), (place,), wrong, wrong, self.program.answer)

    def _begin(self) -> tuple[Judged | None, str]:
        """The smallest input that what is known does not explain, and the first value that differs there."""
        for answer in self.answers:
            first = self.trials.first_difference(answer, {})
            if first:
                return answer, first
        return None, ""

    def _range(self, answer: Judged, first: str) -> tuple[int, int]:
        """The steps between the last value that is right and the first that is not."""
        names = list(answer.compared)
        before = names[: names.index(first)]
        high = self.program.step_of(first)
        if not before:
            return 0, high
        last = self.program.step_of(before[-1])
        whole = before[-1] == self.program.steps[last].place
        return min(last + whole, high), high

    def _in_all_steps(
        self, primary: Judged, low: int, high: int, ran: frozenset[FunctionType], candidates: Iterable[Candidate],
        share: float,
    ) -> Iterator[Found]:  # fmt: skip
        """Candidates in every step that they can act in."""
        end = self.end if low == high else self._part(share)
        until = self._part(ORDERS)
        for candidate in candidates:
            if self._over(end) or self._is_enough(candidate):
                return
            change = self._usable(candidate, ran)
            if change is None or (change.steps is not None and time.process_time() > until):
                continue
            acting = self._acting(candidate)
            inside = [n for n in acting if low <= n <= high]
            if not inside or (change.steps is None and not self.trials.acts_rightly(primary, change, inside)):
                continue
            self.tried += 1
            if change.steps is None and not self.trials.explained(primary, at(inside, change), until=high):
                continue
            yield from self._where(primary, candidate, change, acting, inside, alone=low == high)

    def _in_one_step(
        self, primary: Judged, low: int, high: int, ran: frozenset[FunctionType], candidates: Iterable[Candidate]
    ) -> Iterator[Found]:
        """Candidates in one of several steps, none of whose values was given."""
        for candidate in candidates:
            change = self._usable(candidate, ran)
            if change is None or change.steps is not None:
                continue
            acting = self._acting(candidate)
            for n in acting:
                if self._over(self.end) or self._is_enough(candidate):
                    return
                if low <= n <= high and len(acting) > 1 and self.trials.acts_rightly(primary, change, [n]):
                    self.tried += 1
                    if self.trials.explained(primary, at([n], change)):
                        yield from self._weighed(candidate, change, (n,), acting)

    def _where(
        self, primary: Judged, candidate: Candidate, change: Change, acting: Sequence[int], inside: Sequence[int], *,
        alone: bool,
    ) -> Iterator[Found]:  # fmt: skip
        """The candidate in the steps in which it explains most. With `alone` what is sought is in one step, so that it
        may be found there whatever comes after it."""
        found = list[Found]()
        for places in self._extents(acting, inside):
            if self.trials.explained(primary, at(places, change)):
                found += self._weighed(candidate, change, places, acting)
                if found and found[-1].explains == found[-1].wrong:
                    break
        else:
            if change.steps is None and (alone or found):
                own = self.trials.places_by_values(change, acting, inside[0])
                found += self._weighed(candidate, change, own or tuple(inside), acting)
        if found:
            yield max(found, key=lambda one: one.explains)

    def _extents(self, acting: Sequence[int], inside: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """In which steps a mistake may be: in all of them, in one kind, from the first wrong one on, in that alone."""
        ways = [tuple(acting), tuple(n for n in acting if n >= inside[0])]
        kind = self.program.steps[inside[0]].kind
        ways.append(tuple(n for n in acting if self.program.steps[n].kind == kind))
        for step in (2, 3):
            ways.append(tuple(n for n in acting if (n - inside[0]) % step == 0 and n >= inside[0]))
        ways += [tuple(inside), (inside[0],)]
        yield from dict.fromkeys(ways)

    def _weighed(
        self, candidate: Candidate, change: Change, places: tuple[int, ...], acting: Sequence[int]
    ) -> Iterator[Found]:
        """What a candidate explains; nothing if an answer that is right contradicts it."""
        wrong = [a for a in self.answers if self.trials.first_difference(a, {})]
        here = at(places, change)
        explained = [a for a in wrong if self.trials.explained(a, here)]
        right = [a for a in self.answers if a not in wrong]
        if any(not self.trials.explained(a, here) for a in right) or not (explained or self._moves_on(wrong, here)):
            return
        first = self.trials.first_change(here)
        if not first:
            return
        found = [self.trials.left(a, here) for a in explained]
        left, gives = max((far for far, _ in found), default=0.0), tuple(digest for _, digest in found)
        yield Found(candidate, places, tuple(acting), len(explained), len(wrong), first, left, gives)

    def _moves_on(self, wrong: Sequence[Judged], changes: Changes) -> bool:
        """Whether all that is left is in a later step than what was wrong, on every input."""
        for answer in wrong:
            before, after = self.trials.first_difference(answer, {}), self.trials.first_difference(answer, changes)
            if after and (after not in answer.compared or self.program.step_of(after) <= self.program.step_of(before)):
                return False
        return True

    def _best(self, found: Iterable[Found]) -> Found | None:
        """The one that explains most; of equals the likeliest. What costs much more than it is not tried."""
        kept, self.dearest, self.last = list[Found](), math.inf, math.inf
        try:
            for one in found:
                kept.append(one)
                if one.explains == one.wrong and self.last == math.inf:
                    self.dearest, self.last = one.candidate.cost + FURTHER, self.tried + ENOUGH
        except KeyboardInterrupt:
            self.ended = "interrupted"
        if not kept:
            return None
        most = max(f.explains for f in kept)
        kept = [f for f in kept if f.explains == most]
        nearest = min(f.left for f in kept)
        kept = [f for f in kept if f.left <= NEARLY * max(nearest, SHOWN)]
        best = min(kept, key=lambda f: (not f.everywhere, f.candidate.cost))
        alike = unlike([best, *(f for f in kept if f is not best and f.explains == best.explains)])
        return replace(best, others=tuple(f.candidate for f in alike[1 : MOST_ALIKE + 1]))

    def _of_text(self, ran: frozenset[FunctionType]) -> Iterator[Candidate]:
        """Every edit of what the text runs for this input; formed when the first is asked for."""
        if ran not in self.of_text:
            self.of_text[ran] = of_the_text(self.program, ran)
        yield from self.of_text[ran]

    # --- one candidate ------------------------------------------------------------------------------------------------

    def _usable(self, candidate: Candidate, ran: frozenset[FunctionType]) -> Change | None:
        if candidate.edit is not None and candidate.edit.original not in ran:
            return None
        return candidate.changed()

    def _acting(self, candidate: Candidate) -> list[int]:
        return [n for n, step in enumerate(self.program.steps) if candidate.acts(step)]

    def _part(self, share: float) -> float:
        now = time.process_time()
        return now + share * (self.end - now)

    def _is_enough(self, candidate: Candidate) -> bool:
        """Whether what was found explains all, and this one is less likely by far."""
        return candidate.cost > self.dearest or self.tried > self.last

    def _over(self, end: float) -> bool:
        over = time.process_time() > end or bounded.is_over()
        if over:
            self.ended = "time"
        return over
