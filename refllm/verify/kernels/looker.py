"""One answer to a sized case, held against mistakes: which of them explains which of its tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import numpy

from refllm.backend import Array
from refllm.numbers.plans import Plan
from refllm.verify.case import Case, Response
from refllm.verify.kernels import matching, quantities, relations, stages, tails
from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.causes import Cause, OfBank, causes, in_other_sizes
from refllm.verify.kernels.clock import Clock
from refllm.verify.kernels.known import Match
from refllm.verify.kernels.matching import Given, tensors
from refllm.verify.kernels.ratios import Scaled
from refllm.verify.kernels.screens import Screen
from refllm.verify.sized import judge
from refllm.verify.sized.pattern import in_words
from refllm.verify.tolerance import UNIT

VARIED = 4  # mistakes that explain an answer partly, of which other sizes and numbers are tried
DOUBTED = 1000  # mistakes that are tried after one that right answers contradict
FAR = 2000  # mistakes that are tried after one that explains an answer and gets right gradients wrong
MORE = 250  # mistakes that are tried after one that explains an answer, and a quarter of those before it
FEWER = 3.0  # bits than the dtype has that an answer has which loses digits


class Looker:
    """One answer, held against mistakes."""

    def __init__(self, case: Case, response: Response, text: judge.Text, dtype: str, plan: Plan) -> None:
        self.case, self.values = case, case.values_alone()
        given = tensors(response)
        known = {f"outputs.{n}" for n in case.outputs} | {f"gradients.{n}" for n in case.gradients}
        self.given = Given({n: x for n, x in given.items() if n in known}, text.of, dtype, plan)
        self.text = text
        self._apart: dict[str, float] = {}  # of the mistake in hand
        self._lost: dict[str, None] = {}  # and the right gradients that it gets wrong

    @cached_property
    def loses_digits(self) -> bool:
        """Whether the errors of a wrong tensor are small beside its numbers."""
        return any(matching.is_small_error(self.given, name) for name in self.wrong)

    @cached_property
    def has_nan(self) -> bool:
        """Whether there is NaN among the wrong numbers."""
        return any(bool(numpy.isnan(self.given.tensors[name][off]).any()) for name, off in self.wrong.items())

    @cached_property
    def is_zero(self) -> bool:
        """Whether all wrong numbers are 0."""
        return not any(self.given.tensors[name][off].any() for name, off in self.wrong.items())

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

    def search(
        self, operation: str, clock: Clock, tried: set[Cause], start: int = 0,
        contradicted: Callable[[Cause], bool] = lambda cause: False,
    ) -> tuple[dict[Cause, Match], int]:  # fmt: skip
        """All mistakes, until one explains everything and some more were tried, or the time is over; and how many
        have been tried so far. It begins where that of another answer stopped for want of time. One that right answers
        contradict may hold under a condition alone: then many more are tried."""
        found, partly, last = dict[Cause, Match](), list[Cause](), 1 << 30
        full: Cause | None = None
        doubtful = False  # whether right answers speak against it
        everything, reached = causes(operation), start
        start = start if start < len(everything) else 0
        for number, cause in enumerate(everything[start:] + everything[:start]):
            if clock.is_over or number > last:
                break
            reached = max(reached, min(start + number + 1, len(everything)))
            if cause not in tried and (match := self.match(cause)):
                cause, match = self._on_both_ways(cause, match)
                found[cause] = match
                partly += [cause] if "partly" in match.ways.values() else []
                if match.rank == (0, 0):
                    doubts = contradicted(cause)
                    more = FAR if match.spared else DOUBTED if doubts else MORE
                    if full is None or (doubtful and more == MORE):
                        full, doubtful, last = cause, more > MORE, number + number // 4 + more
        if full is not None:
            return found | self._in_other_sizes(operation, full, clock, found), reached
        for other in _variants(partly[:VARIED]):
            if clock.is_over:
                break
            if match := self.match(other):
                found[other] = match
        return found, reached

    def _on_both_ways(self, cause: Cause, match: Match) -> tuple[Cause, Match]:
        """A mistake of the value, with the gradient of what it computes where that explains more."""
        other = getattr(cause, "with_true_gradient", None)
        if match.left and other is not None and not cause.gradients_alone and not getattr(cause, "of_digits", False):
            found = self.match(other)
            return (other, found) if found is not None and len(found.left) < len(match.left) else (cause, match)
        return cause, match

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
        alone = cause.gradients_alone and not self._gives_lse(cause)
        if alone and (wrong_outputs or not wrong_gradients):
            return None
        if not self._may(cause):
            return None
        self._apart, self._lost = {}, {}
        ways = {} if alone else self._ways(cause, self.values, outputs)
        if ways is None:
            return None
        if wrong_gradients:
            of_gradients = self._ways(cause, self.case, gradients, some=bool(wrong_outputs) or alone)
            if of_gradients is None and not wrong_outputs:
                return None
            ways |= of_gradients or {}
        ways = {n: way for n, way in ways.items() if n in self.wrong}
        left = tuple(n for n in self.wrong if n not in ways)
        apart = max((self._apart.get(n, 0.0) for n, way in ways.items() if way == "digits"), default=0.0)
        return Match(ways, left, apart, (*self._lost, *self._spared(cause, gradients))) if ways else None

    def _may(self, cause: Cause) -> bool:
        """Whether a mistake may explain the answer, as far as can be said before it is evaluated."""
        if getattr(cause, "of_digits", False) and not self.loses_digits:
            return False
        if getattr(cause, "of_nan", False) and not self.has_nan:
            return False
        if isinstance(cause, OfBank) and isinstance(cause.mistake, Mistake):
            return (cause.narrows and self.loses_digits) or self.screen.may(cause.mistake, cause.sizes)
        may = getattr(cause, "may", None)
        return may is None or bool(may(self.case, self.wrong))

    def _gives_lse(self, cause: Cause) -> bool:
        """Whether the log-sum-exp that is edited is given back, and not read by the gradient alone."""
        mistake = cause.mistake if isinstance(cause, OfBank) and isinstance(cause.mistake, Mistake) else None
        return self.case.operation == "attention_with_lse" and mistake is not None and mistake.edits_lse

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
            elif name in one and name not in self.wrong:
                self._lost[name] = None
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
