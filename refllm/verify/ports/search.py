"""Which mistake gives the numbers of a port?

The search begins from the smallest input that is wrong, between the last value that is right and the first that is
not: a candidate is put into the text there, and what comes out is held against everything that the port gave. What an
input shows on which the port is right excuses no candidate: it must change nothing there. What is found is put into
the text for good, and if the port still differs the search goes on from there.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

import numpy

from refllm.backend import Array
from refllm.parameters import Tree, named_leaves
from refllm.verify import bounded
from refllm.verify.ports.candidates import Candidate, named, of_the_text, run_by
from refllm.verify.ports.evaluation import Change, EnoughError, Onlooker, evaluated
from refllm.verify.ports.judged import Compared, Judged
from refllm.verify.ports.program import Program, State

SECONDS = 60.0  # of this process's work: where others work beside it, it takes longer
LONGEST = 10.0  # and at most so many times as long
MISTAKES = 3  # that are sought one after the other
ENOUGH = 100  # candidates that are tried after one that explains all
FURTHER = 0.1  # how much more than what explains all the dearest candidate costs that is still tried
MARGIN = 2.0  # how much further than a right port from the text an edited text may be from the port
SHARE = 1e-3  # or, how much of the difference may stay unexplained, where a mistake makes rounding larger
IN_ALL = 0.6  # the share of the time for candidates that act in all their layers
SHOWN = 0.3  # how far a value must move so that a change is seen in it
LOUD = 300.0  # and how far, where what comes after it was right, so that it contradicts
NEARLY = 2.0  # how many times as far as the nearest another one may be that gives the same numbers
FEW = 4  # inputs on which it is looked for what a mistake changes first
MOST_ALIKE = 3  # further candidates that are named
STEPS = 200_000  # of the words of the text in one evaluation


@dataclass(frozen=True)
class Found:
    """A mistake, the steps that it is in, and others that give the same numbers."""

    candidate: Candidate
    places: tuple[int, ...]  # numbers of steps
    acting: tuple[int, ...]  # all that it could be in
    explains: int  # of how many inputs that are wrong everything is explained
    wrong: int
    first: str = ""  # the first value that it changes
    left: float = 0.0  # how far from the port the text with it still is, in what rounding may do
    others: tuple[Candidate, ...] = ()

    @property
    def everywhere(self) -> bool:
        return set(self.places) == set(self.acting)


@dataclass(frozen=True)
class Searched:
    """What was found, and whether it explains all that was given."""

    found: list[Found]
    complete: bool
    tried: int


Changes = dict[int, list[Change]]


def searched(
    program: Program, p: Tree, raw: Mapping[str, Array], answers: Sequence[Judged], seconds: float = SECONDS
) -> Searched:
    """The mistakes of a port by its answers to the inputs."""
    end = time.process_time() + seconds
    if not any(one.wrong for one in answers) or seconds <= 0:
        return Searched([], not any(one.wrong for one in answers), 0)
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
        self.named = named(program, p, raw)
        self.known: list[tuple[Change, tuple[int, ...]]] = []  # mistakes that were found, and the steps they are in
        self.of_text: dict[frozenset[FunctionType], list[Candidate]] = {}
        self.tried = 0
        self.dearest = self.last = math.inf  # cost and number of the last candidate that is tried

    def all(self) -> Searched:
        found = list[Found]()
        for _ in range(MISTAKES):
            one = self._next()
            if one is None:
                break
            change = one.candidate.changed()
            assert change is not None
            self.known.append((change, one.places))
            found.append(one)
            if all(self._explained(answer, {}) for answer in self.answers):
                return Searched(found, True, self.tried)
        return Searched(found, False, self.tried)

    # --- one more mistake ---------------------------------------------------------------------------------------------

    def _next(self) -> Found | None:
        primary, first = self._begin()
        if primary is None:
            return None
        low, high = self._range(primary, first)
        ran = run_by(self.program, self.p, primary.truth.input.arrays)
        phases: list[tuple[Callable[[], Iterable[Candidate]], float]] = [
            (lambda: self.named, 1.0), (lambda: self._of_text(ran), IN_ALL),
        ]  # fmt: skip
        for candidates, share in phases:
            best = self._best(self._in_all_steps(primary, low, high, ran, candidates(), share))
            if best is None and high > low:
                best = self._best(self._in_one_step(primary, low, high, ran, candidates()))
            if best is not None:
                return best
        return None

    def _begin(self) -> tuple[Judged | None, str]:
        """The smallest input that what is known does not explain, and the first value that differs there."""
        for answer in self.answers:
            first = self._first_difference(answer, {})
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
        for candidate in candidates:
            if time.process_time() > end or self._is_enough(candidate):
                return
            change = self._usable(candidate, ran)
            if change is None:
                continue
            acting = self._acting(candidate)
            inside = [n for n in acting if low <= n <= high]
            if not inside or (change.steps is None and not self._acts_rightly(primary, change, inside)):
                continue
            self.tried += 1
            if change.steps is None and not self._alike(primary, change, tuple(inside), until=high):
                continue
            for places in self._extents(acting, inside):
                if self._alike(primary, change, places):
                    yield from self._weighed(candidate, change, places, acting)
                    break
            else:
                if low == high and change.steps is None:
                    yield from self._weighed(candidate, change, tuple(inside), acting)

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
                if self._over() or self._is_enough(candidate):
                    return
                if low <= n <= high and len(acting) > 1 and self._acts_rightly(primary, change, [n]):
                    self.tried += 1
                    if self._alike(primary, change, (n,)):
                        yield from self._weighed(candidate, change, (n,), acting)

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
        wrong = [a for a in self.answers if self._first_difference(a, {})]
        here = {n: [change] for n in places}
        explained = [a for a in wrong if self._explained(a, here, change)]
        right = [a for a in self.answers if a not in wrong]
        if (not explained and len(places) > 1) or any(not self._explained(a, here, change) for a in right):
            return
        left = max((self._left(a, here, change) for a in explained), default=0.0)
        yield Found(
            candidate, places, tuple(acting), len(explained), len(wrong), self._first_change(change, places), left
        )

    def _left(self, answer: Judged, changes: Changes, change: Change) -> float:
        """How far the port is from the text with these changes."""
        left = 0.0

        def look(name: str, x: Array) -> Array:
            nonlocal left
            one = answer.compared.get(name)
            if one is not None and one.given is not None and x.shape == one.given.shape:
                left = max(left, replace(one.expected, value=x.astype("float64")).far(one.given))
            return x

        with contextlib.suppress(EnoughError):
            self._run(answer, changes, change=change, look=look)
        return left

    def _best(self, found: Iterable[Found]) -> Found | None:
        """The one that explains most; of equals the likeliest. What costs much more than it is not tried."""
        kept, self.dearest, self.last = list[Found](), math.inf, math.inf
        for one in found:
            kept.append(one)
            if one.explains == one.wrong and self.last == math.inf:
                self.dearest, self.last = one.candidate.cost + FURTHER, self.tried + ENOUGH
        if not kept:
            return None
        most = max(f.explains for f in kept)
        kept = [f for f in kept if f.explains == most]
        nearest = min(f.left for f in kept)
        kept = [f for f in kept if f.left <= NEARLY * max(nearest, SHOWN)]
        best = min(kept, key=lambda f: (not f.everywhere, f.candidate.cost))
        said = {_told(best.candidate)}
        alike = list[Candidate]()
        for f in kept:
            if f is not best and f.explains == best.explains and _told(f.candidate) not in said:
                said.add(_told(f.candidate))
                alike.append(f.candidate)
        return replace(best, others=tuple(alike[:MOST_ALIKE]))

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

    def _acts_rightly(self, primary: Judged, change: Change, inside: Sequence[int]) -> bool:
        """Whether a change shows on the input that is sought from, and shows nothing on those that are right. Of steps
        that are alike one is tried."""
        if self.known:
            return True
        alike = list({self._likeness(n): n for n in reversed(inside)}.values())
        if not any(self._moves(primary, change, n, inside=True) for n in alike):
            return False
        return not any(
            self._moves(answer, change, n) for answer in self.answers if answer.right for n in alike
            if self._tells(answer, n)
        )  # fmt: skip

    def _likeness(self, n: int) -> tuple[Any, ...]:
        """What tells a step from others of its kind: its window, and what parameters it has."""
        step = self.program.steps[n]
        windows = self.program.config.get("windows") if step.kind == "layer" else None
        tree = step.parameters(self.p) if step.kind.endswith("layer") else {}
        window = windows[int(step.own[-1])] if windows else None
        return (
            step.kind,
            step.place if step.kind == "output" else "",
            window,
            tuple(name for name, _ in named_leaves(tree)),
        )

    def _tells(self, answer: Judged, n: int) -> bool:
        """Whether a value at or after this step was given."""
        return any(self.program.step_of(name) >= n for name in answer.compared)

    def _moves(self, answer: Judged, change: Change, n: int, *, inside: bool = False) -> bool:
        """Whether a change moves the value of a step, or one that was given; with `inside`, any value within it. Not if
        it raises there."""
        moved, place = False, self.program.steps[n].place

        def look(name: str, x: Array) -> Array:
            nonlocal moved
            expected = answer.truth.values.get(name)
            if expected is not None and (inside or name == place or name in answer.compared):
                limit = SHOWN if inside else MARGIN if name in answer.compared else LOUD
                moved = numpy.shape(x) != expected.value.shape or expected.far(x) > limit
            if moved:
                raise EnoughError
            return x

        with contextlib.suppress(EnoughError):
            self._run(answer, {n: [change]}, begin=n, end=n + 1, look=look)
        return moved

    def _alike(self, answer: Judged, change: Change, places: tuple[int, ...], until: int | None = None) -> bool:
        return self._explained(answer, {n: [change] for n in places}, change, until=until)

    def _explained(
        self, answer: Judged, changes: Changes, change: Change | None = None, until: int | None = None
    ) -> bool:
        return not self._first_difference(answer, changes, change, until=until)

    def _first_difference(
        self, answer: Judged, changes: Changes, change: Change | None = None, until: int | None = None
    ) -> str:
        """The first value of the port that the text with these changes, and those that are known, does not give."""
        if not changes and not self.known and change is None:
            return answer.wrong[0] if answer.wrong else ""
        differs = ""

        def look(name: str, x: Array) -> Array:
            nonlocal differs
            one = answer.compared.get(name)
            if one is not None and not same(name, one, x):
                differs = name
                raise EnoughError
            return x

        try:
            self._run(answer, changes, change=change, end=None if until is None else until + 1, look=look)
        except EnoughError:
            return differs or "an exception"
        return ""

    def _first_change(self, change: Change, places: tuple[int, ...]) -> str:
        """The first value that a mistake changes, on any of the smallest inputs: where one bit is another."""
        found = list[str]()
        for answer in self.answers[:FEW]:
            before: dict[str, Array] = {}
            first = ""

            def keep(name: str, x: Array, before: dict[str, Array] = before) -> Array:
                before[name] = x
                return x

            def look(name: str, x: Array, before: dict[str, Array] = before) -> Array:
                nonlocal first
                if name not in before or not numpy.array_equal(before[name], x):
                    first = name
                    raise EnoughError
                return x

            with contextlib.suppress(EnoughError):
                self._run(answer, {}, look=keep)
                self._run(answer, {n: [change] for n in places}, change=change, look=look)
            found += [first] if first in answer.truth.values else []
        order = list(self.answers[0].truth.values)
        return min(found, key=order.index, default="")

    def _run(
        self, answer: Judged, changes: Changes, *, begin: int | None = None, end: int | None = None,
        change: Change | None = None, look: Onlooker | None = None,
    ) -> list[State]:  # fmt: skip
        """The states from the first step that is changed on. EnoughError if an edited text raises."""
        every = {n: list(held) for n, held in changes.items()}
        program = self.program
        for known, places in self.known:
            for n in places:
                every.setdefault(n, []).append(known)
        reordered = [c for held in every.values() for c in held if c.steps is not None]
        for other in reordered[:1]:
            assert other.steps is not None
            program = replace(program, steps=other.steps(program.steps))
        first = min(every, default=0) if begin is None else begin
        start = 0 if reordered or self.known else first
        state = answer.truth.states[start]
        try:
            with bounded.at_most(STEPS):
                return evaluated(
                    program, self.p, answer.truth.input.arrays, begin=(start, state), end=end, changes=every, look=look
                )
        except EnoughError:
            raise
        except Exception as error:  # whatever an edit makes of the text
            raise EnoughError from error

    def _part(self, share: float) -> float:
        now = time.process_time()
        return now + share * (self.end - now)

    def _is_enough(self, candidate: Candidate) -> bool:
        """Whether what was found explains all, and this one is less likely by far."""
        return candidate.cost > self.dearest or self.tried > self.last

    def _over(self) -> bool:
        return time.process_time() > self.end


def _told(candidate: Candidate) -> tuple[str, ...]:
    return tuple(line for _, lines in candidate.lines for line in lines)


def same(name: str, one: Compared, x: Array) -> bool:
    """Whether a value of an edited text is the port's."""
    if one.given is None or not isinstance(x, numpy.ndarray):
        return False
    if x.ndim == one.given.ndim == 4 and x.shape[1] and one.given.shape[1] % x.shape[1] == 0:
        x = numpy.repeat(x, one.given.shape[1] // x.shape[1], axis=1)  # keys that were given for each query head
    if x.shape != one.given.shape:
        return False
    text = replace(one.expected, value=x.astype("float64"))
    if text.far(one.given, times=MARGIN) <= 1:
        return True
    if not numpy.isfinite(x).all():
        return False
    counted = 1.0 if one.expected.counts is None else one.expected.counts
    left = (x - one.given) * counted
    whole = (one.expected.value - one.given) * counted
    return bool(
        numpy.isfinite(left).all() and (left * left).sum() <= SHARE**2 * (whole * whole).sum() and _is_large(one)
    )


def _is_large(one: Compared) -> bool:
    """Whether the difference to be explained is far above rounding."""
    return one.far > 10 / SHARE
