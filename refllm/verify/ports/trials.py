"""What becomes of the text when a mistake is put into it, and whether that is what the port gave."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.parameters import Tree, named_leaves
from refllm.verify import bounded
from refllm.verify.ports.evaluation import Change, EnoughError, Onlooker, evaluated
from refllm.verify.ports.judged import Compared, Judged
from refllm.verify.ports.program import Program, State

MARGIN = 2.0  # how much further than a right port from the text an edited text may be from the port
SHARE = 1e-3  # or, how much of the difference may stay unexplained, where a mistake makes rounding larger
SHOWN = 0.3  # how far a value must move so that a change is seen in it
LOUD = 300.0  # and how far, where what comes after it was right, so that it contradicts
FEW = 4  # inputs that are wrong on which it is looked for what a mistake changes first
STEPS = 200_000  # of the words of the text in one evaluation

Changes = Mapping[int, Sequence[Change]]  # by the number of a step


def at(places: Sequence[int], change: Change) -> Changes:
    """The change in each of these steps."""
    return {n: [change] for n in places}


class Trials:
    """The text with mistakes in it, held against the answers of a port. What is `known` is in every one of them."""

    def __init__(self, program: Program, p: Tree, answers: Sequence[Judged]) -> None:
        self.program, self.p, self.answers = program, p, answers
        self.known: list[tuple[Change, tuple[int, ...]]] = []  # mistakes that were found, and the steps they are in

    def explained(self, answer: Judged, changes: Changes, until: int | None = None) -> bool:
        """Whether the text with these changes gives all that the port gave, up to a step."""
        return not self.first_difference(answer, changes, until)

    def first_difference(self, answer: Judged, changes: Changes, until: int | None = None) -> str:
        """The first value of the port that the text with these changes, and those that are known, does not give."""
        if not changes and not self.known:
            return answer.wrong[0] if answer.wrong else ""
        differs = self._difference(answer, changes, until)
        if differs and self._may_ignore_padding(answer):
            return self._difference(answer, changes, until, unpadded=True) and differs
        return differs

    def _may_ignore_padding(self, answer: Judged) -> bool:
        """Whether a right port need not look at the mask: padding on the right is behind what a decoder reads."""
        mask = answer.truth.input.mask
        return not self.program.reads_both_sides and mask is not None and not mask.all()

    def _difference(self, answer: Judged, changes: Changes, until: int | None, *, unpadded: bool = False) -> str:
        """The first value of the port that the text does not give; with `unpadded`, as if there were no padding."""
        differs = ""

        def look(name: str, x: Array) -> Array:
            nonlocal differs
            one = answer.compared.get(name)
            if one is not None and not same(name, one, x):
                differs = name
                raise EnoughError
            return x

        try:
            end = None if until is None else until + 1
            self._run(answer, changes, end=end, look=look, unpadded=unpadded)
        except EnoughError:
            return differs or "an exception"
        return ""

    def left(self, answer: Judged, changes: Changes) -> tuple[float, bytes]:
        """How far the port is from the text with these changes; and what that text gives, as a digest."""
        found = self._left(answer, changes)
        if self._may_ignore_padding(answer):
            return min(found, self._left(answer, changes, unpadded=True), key=lambda one: one[0])
        return found

    def _left(self, answer: Judged, changes: Changes, *, unpadded: bool = False) -> tuple[float, bytes]:
        left, digest = 0.0, hashlib.sha256()

        def look(name: str, x: Array) -> Array:
            nonlocal left
            one = answer.compared.get(name)
            if one is not None and one.given is not None and x.shape == one.given.shape:
                digest.update(numpy.ascontiguousarray(x).tobytes())
                left = max(left, replace(one.expected, value=x.astype("float64")).far(one.given))
            return x

        with contextlib.suppress(EnoughError):
            self._run(answer, changes, look=look, unpadded=unpadded)
        return left, digest.digest()

    def first_change(self, changes: Changes) -> str:
        """The first value that these change, on any of the smallest inputs: where one bit is another. Of layers in
        another order, the first that is another one."""
        for change in (one for held in changes.values() for one in held):
            if change.steps is not None:
                other = replace(self.program, steps=change.steps(self.program.steps))
                return self.program.steps[_first_other(self.program, other)].place
        found = list[str]()
        wrong = [answer for answer in self.answers if answer.wrong]
        for answer in (wrong or self.answers)[:FEW]:
            before: dict[str, Array] = {}
            first = ""

            def keep(name: str, x: Array, before: dict[str, Array] = before) -> Array:
                before[name] = x
                return x

            def look(name: str, x: Array, before: dict[str, Array] = before, told: Any = answer.truth.values) -> Array:
                nonlocal first
                if name in told and (name not in before or not numpy.array_equal(before[name], x)):
                    first = name
                    raise EnoughError
                return x

            with contextlib.suppress(EnoughError):
                self._run(answer, {}, look=keep)
                self._run(answer, changes, look=look)
            found += [first] if first else []
        order = list(self.answers[0].truth.values)
        return min(found, key=order.index, default="")

    def acts_rightly(self, primary: Judged, change: Change, inside: Sequence[int]) -> bool:
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

    def places_by_values(self, change: Change, acting: Sequence[int], first: int) -> tuple[int, ...]:
        """In which steps from `first` on a change is, by what the port gave: one step after the other with it and
        without it, up to one that neither explains. Where both do, it is taken to be there."""
        places, states = list[int](), [self._before(answer, first) for answer in self.answers]
        for n in range(first, len(self.program.steps)):
            without = self._stepped(states, n, {})
            with_it = self._stepped(states, n, at([n], change)) if n in acting else None
            if with_it is not None and not _all_alike(without, with_it):
                places.append(n)
                without = with_it
            if without is None:
                break
            states = without
        return tuple(places)

    def _before(self, answer: Judged, n: int) -> State:
        """The state before a step."""
        if not self.known or n == 0:
            return answer.truth.states[n]
        return self._run(answer, {}, end=n)[-1]

    def _stepped(self, states: Sequence[State], n: int, changes: Changes) -> list[State] | None:
        """The states of all inputs after one more step; None if the port gave other values in it."""
        found = list[State]()

        for answer, state in zip(self.answers, states, strict=True):

            def look(name: str, x: Array, compared: Mapping[str, Compared] = answer.compared) -> Array:
                if name in compared and not same(name, compared[name], x):
                    raise EnoughError
                return x

            try:
                found += self._run(answer, changes, begin=n, end=n + 1, look=look, state=state)
            except EnoughError:
                return None
        return found

    def _run(
        self, answer: Judged, changes: Changes, *, begin: int | None = None, end: int | None = None,
        look: Onlooker | None = None, state: State | None = None, unpadded: bool = False,
    ) -> list[State]:  # fmt: skip
        """The states from the first step that is changed on, or from that of which the state before it is given.
        EnoughError if an edited text raises."""
        every = {n: list(held) for n, held in changes.items()}
        program = self.program
        for known, places in self.known:
            for n in places:
                every.setdefault(n, []).append(known)
        reordered = [c for held in every.values() for c in held if c.steps is not None]
        first = min(every, default=0) if begin is None else begin
        for other in reordered[:1]:
            assert other.steps is not None
            program = replace(program, steps=other.steps(program.steps))
            first = _first_other(self.program, program)
        start = 0 if (self.known and state is None) or unpadded else first
        state = answer.truth.states[start] if state is None else state
        given = answer.truth.input.arrays
        if unpadded:
            given = {**given, "mask": numpy.ones_like(given["mask"])}
            state = {**state, **given}
        try:
            with bounded.at_most(STEPS):
                return evaluated(program, self.p, given, begin=(start, state), end=end, changes=every, look=look)
        except EnoughError:
            raise
        except Exception as error:  # whatever an edit makes of the text
            raise EnoughError from error


def _all_alike(one: Sequence[State] | None, other: Sequence[State]) -> bool:
    """Whether a step gives the same bits on every input."""
    return one is not None and all(
        all(numpy.array_equal(a[name], b[name]) for name in a if isinstance(a[name], numpy.ndarray))
        for a, b in zip(one, other, strict=True)
    )


def _first_other(program: Program, other: Program) -> int:
    """The first step that is another one."""
    both = zip(program.steps, other.steps, strict=False)
    return next((n for n, (a, b) in enumerate(both) if a.own != b.own or a.kind != b.kind), 0)


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
