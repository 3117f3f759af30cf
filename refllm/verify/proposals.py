"""Which edits of the text are tried on a case, and in which order: what is written more often first.

Where a value is wrong, edits of what its forward pass runs; where gradients alone are, edits of pullbacks, of what
they call, and of a formula that the pullback has and the forward pass does not.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from types import FunctionType

from refllm.verify import bounded, plain
from refllm.verify.edits import Edit, edits, layered, source_of
from refllm.verify.edits.callers import sizes_read
from refllm.verify.edits.parameters import others_read
from refllm.verify.edits.partial import Partial
from refllm.verify.listed import of_pairs, with_each
from refllm.verify.observed import Observed, observed
from refllm.verify.reach import reach
from refllm.verify.runner import Result

WITH_CACHE = 0.2  # how much likelier an edit of the form with a cache is, where a cache is asked for
REACH = 0.3  # what it costs that a function has a say in all that is right too
STRANGE = 0.5  # what it costs that a name stands for one of another kind
OWN_PULLBACK = 0.25  # what it costs that a formula is another in the pullback alone
SOME_CALLS = 0.2  # and in some of the calls alone
LIKELY_COST = 1.4  # up to which single edits are tried before pairs
CHEAP = 1.3  # edits that are tried in some of the calls
NEAR = 25  # edits that bring the answer nearer, whose pairs are tried
BESIDE = 2000  # edits that are tried beside them
MAKING, CHOOSING = 0.3, 0.2  # the shares of the time that there is, which making the edits and weighing them may take
SOLVING = 0.1  # the share that solving for numbers of the text may take
LIKELY = 300  # edits whose pairs are tried at last
Edits = tuple[Edit, ...]
_NAME = re.compile(r"[A-Za-z]\w*")


class Made:
    """The single edits of a function, made when they are asked for. What was made stays, and the rest is made later."""

    def __init__(self, function: FunctionType) -> None:
        self.edits, self._more = list[Edit](), edits(function)

    def so_far(self) -> list[Edit]:
        """All of them; fewer where the time that there is for making them (`bounded.until`) is over before."""
        while not bounded.is_over() and (edit := next(self._more, None)) is not None:
            self.edits.append(edit)
        return self.edits


@cache
def made(function: FunctionType) -> Made:
    return Made(function)


class Proposals:
    """The edits for one case. Making them, and choosing among them, takes a share of the time until `end` at most:
    those of the operation itself come first, then those of what it calls."""

    def __init__(self, result: Result, *, values: bool, right: frozenset[str], end: float = math.inf) -> None:
        self.case, self.values, self.wrong = result.case, values, _wrong_tensors(result, values=values)
        self.reaches: dict[FunctionType, float | None] = {}
        self.listed: Callable[[], Sequence[Edits]] = tuple  # known mistakes, whose pairs are tried
        self.adding_up: Callable[[], Iterator[tuple[Edits, Edits]]] = lambda: iter(())  # what two of them come near
        self.solved: Callable[[Sequence[FunctionType]], Iterator[Edit]] = lambda functions: iter(())
        self.right, self.end = right, end
        now = bounded.now()
        with bounded.until(now + MAKING * (end - now), bounded.now):
            self.seen: Observed = observed(self.case)
            self.every = self._every(right)
            self.cut = bounded.is_over()  # whether there was no time for all
        with bounded.until(now + (MAKING + CHOOSING) * (end - now), bounded.now):
            self.whole = sorted([*self._of_lines_that_run(), *self._of_pullbacks_alone()], key=lambda edit: edit.cost)
            self.cut = self.cut or bounded.is_over()

    def _every(self, right: frozenset[str]) -> list[Edit]:
        """All single edits of what the operation is made of, the likeliest first; what is `right` by itself stays."""
        operation = self.case.operation
        functions = [f for f in plain.called(operation) if f.__name__ not in right or f.__name__ == operation]
        found = [
            (edit.cost + min(depth, 8) / 16, edit)
            for depth, f in enumerate(functions) if not bounded.is_over() and self._reaches(f) is not None
            for edit in made(f).so_far()
        ]  # fmt: skip
        every = [edit for _, edit in sorted(found, key=lambda pair: pair[0])]
        with_cache = [edit for f in plain.called_with_cache(self.case) for edit in made(f).so_far()]
        every += [replace(edit, cost=edit.cost - WITH_CACHE) for edit in with_cache]
        every += [
            edit for edit in sizes_read(tuple(functions), plain.calls_of) if self._reaches(edit.original) is not None
        ]
        return [*every, *others_read(self.case, plain.called(operation)[0])]

    def _of_lines_that_run(self) -> Iterator[Edit]:
        """Those that change what this case asks for, as likely as they are for it."""
        for edit in self.every:
            if bounded.is_over():
                return
            if self._fits(edit):
                yield self._weighed(edit)

    def _of_pullbacks_alone(self) -> Iterator[Edit]:
        """Edits of what the forward pass runs, in the pullback alone."""
        for edit in self.every if not self.values else ():
            if bounded.is_over():
                return
            if _may_have_own_pullback(edit) and self.seen.runs(edit, backward=False):
                yield from (self._weighed(inside) for inside in _in_the_pullback(edit))

    def _reaches(self, function: FunctionType) -> float | None:
        """The share of the tensors that are right and that the function has a say in; None if one that is wrong is
        none of those."""
        if function not in self.reaches:
            several = len(self.case.outputs if self.values else self.case.gradients) > 2
            found = reach(self.case, function, values=self.values) if several else None
            if found is None:
                self.reaches[function] = 0.0
            else:
                all_tensors = len(self.case.outputs if self.values else self.case.gradients)
                further = len(found - self.wrong) / all_tensors
                self.reaches[function] = further if self.wrong <= found else None
        return self.reaches[function]

    def _weighed(self, edit: Edit) -> Edit:
        """Dearer where it should have made more tensors wrong."""
        more = REACH * (self._reaches(edit.original) or 0.0) + (0 if self.seen.is_plausible(edit) else STRANGE)
        return replace(edit, cost=edit.cost + more) if more else edit

    def _fits(self, edit: Edit) -> bool:
        if layered.WORD in edit.changes[0][2] and not self.seen.is_in_layers(edit.original):
            return False
        forward = self.seen.runs(edit, backward=False)
        if self.values:
            return forward and not edit.in_pullback
        if edit.in_pullback or not forward:
            return self.seen.runs(edit, backward=True)
        return "constant(" in edit.changes[0][2]  # no value changes

    def all(self, near: list[tuple[float, Edit]], halves: list[Edit], *, pairs: bool) -> Iterator[Edits]:
        """Single edits, such pairs as are one mistake, unlikely single edits, and pairs of what came near. `near` and
        `halves` may grow as long as edits are tried."""
        unlikely = list[Edits]()
        yield from self._known_in_the_pullback()
        yield from ((edit,) for edit in self._numbers())
        for edit in heapq.merge(self.whole, self._of_some_calls(), key=lambda edit: edit.cost):
            if edit.cost <= LIKELY_COST:
                yield (edit,)
            else:
                unlikely.append((edit,))
        if not pairs:
            return
        yield from self._adding_up()
        yield from self._of_one_mistake(halves)
        yield from unlikely
        yield from self._adding_up()
        yield from self._of_one_statement()
        yield from of_pairs(self.listed())
        yield from self._of_two_mistakes([edit for _, edit in sorted(near, key=lambda pair: pair[0])])

    def _known_in_the_pullback(self) -> Iterator[Edits]:
        """Known mistakes of a formula that are made in the gradient alone."""
        for known in self.listed() if not self.values else ():
            if len(known) == 1 and _may_have_own_pullback(known[0]):
                yield (Partial.of(known[0], OWN_PULLBACK, backward=True, in_pullback=True),)

    def _numbers(self) -> list[Edit]:
        """Numbers of the text that are others, which the answer tells; those that a share of the time finds."""
        functions = [f for f in plain.called(self.case.operation) if self._reaches(f) is not None]
        own = [f for f in functions if f.__name__ not in self.right or f.__name__ == self.case.operation]
        now = bounded.now()
        with bounded.until(now + SOLVING * (self.end - now), bounded.now):
            return [edit for edit in self.solved(own) if self._fits(edit)]

    def _adding_up(self) -> Iterator[Edits]:
        """Two whose changes add up to what is wrong."""
        for one, other in self.adding_up():
            yield from with_each(one, [other])

    def with_one_more(self, edits: Edits) -> Iterator[Edits]:
        """What explains other cases, and one more edit, which shows in this one alone."""
        yield from with_each(edits, ((other,) for other in self.whole))

    def _of_some_calls(self) -> Iterator[Edit]:
        cheap = [edit for edit in self.whole if edit.cost <= CHEAP]
        wheres = {f: list(self.seen.wheres(f)) for f in {edit.original for edit in cheap}}
        for edit in cheap:
            for where in wheres[edit.original]:
                yield Partial.of(edit, SOME_CALLS, where=where)

    def _of_one_mistake(self, halves: list[Edit]) -> Iterator[Edits]:
        """One edit that gives the values and one of a pullback; both of one statement, or of lines that are alike."""
        alone = [edit for edit in halves[:8] if _has_pullback(edit.original)]
        yield from ((Partial.of(edit, OWN_PULLBACK, forward=True),) for edit in alone)
        if halves:
            inside = [edit for edit in self.whole if edit.in_pullback] + self.in_pullbacks()
            yield from _together(product(halves[:4], inside))
        yield from self._parallel()
        yield from self._alike("reshaped(")
        yield from self._alike("highest(")
        for dtype in ("float16", "bfloat16", "float32"):
            yield from self._alike(f'"{dtype}")')

    def in_pullbacks(self) -> list[Edit]:
        """The edits of pullbacks, which are not tried alone where values are wrong."""
        if not self.values or not self.case.gradients:
            return []
        return [edit for edit in self.every if edit.in_pullback and self.seen.runs(edit, backward=True)]

    def _of_two_mistakes(self, near: list[Edit]) -> Iterator[Edits]:
        first, likely = near[:NEAR], self.whole[:LIKELY]
        yield from _together(combinations(first, 2))
        places = product(range(len(first)), range(len(self.whole[:BESIDE])))
        by_rank = sorted(places, key=lambda pair: pair[0] * (BESIDE // NEAR) + pair[1])
        yield from _together((first[i], self.whole[j]) for i, j in by_rank)
        yield from _together((likely[i], likely[j]) for i, j in sorted(combinations(range(len(likely)), 2), key=sum))

    def _parallel(self) -> Iterator[Edits]:
        """The same done to two lines that are alike, as to keys and values."""
        groups: dict[tuple[FunctionType, str, str], list[Edit]] = {}
        for edit in self.whole:
            if edit.cost <= CHEAP and len(edit.changes) == 1:
                first, last, new = edit.changes[0]
                old = source_of(edit.original).encode()[first:last].decode()
                groups.setdefault((edit.original, _NAME.sub("_", old), _NAME.sub("_", new)), []).append(edit)
        for held in groups.values():
            yield from _together(combinations(held[:8], 2))

    def _alike(self, words: str) -> Iterator[Edits]:
        """Two edits that say the same words: a habit shows in more places than one."""
        held = [edit for edit in self.whole if words in edit.changes[0][2] and not _of_one_gradient(edit)]
        held.sort(key=lambda edit: not isinstance(edit, Partial))
        yield from _together(combinations(held[:60], 2))

    def _of_one_statement(self) -> Iterator[Edits]:
        by_line: dict[tuple[FunctionType, int], list[Edit]] = {}
        for edit in self.whole:
            if edit.cost <= 1.2 and not isinstance(edit, Partial):
                by_line.setdefault((edit.original, edit.line), []).append(edit)
        for held in by_line.values():
            yield from _together(combinations(held[:40], 2))


def _together(pairs: Iterator[tuple[Edit, Edit]]) -> Iterator[Edits]:
    for one, other in pairs:
        if one.original is not other.original:
            yield one, other
        elif both := one.beside(other):
            yield (both,)


def _of_one_gradient(edit: Edit) -> bool:
    return isinstance(edit, Partial) and edit.gradient is not None


@cache
def _has_pullback(function: FunctionType) -> bool:
    return any(name.endswith("_back") for name in function.__code__.co_varnames + function.__code__.co_cellvars)


def _wrong_tensors(result: Result, *, values: bool) -> frozenset[str]:
    """The outputs, or the gradients, that are wrong."""
    lead = "output " if values else "gradient of "
    return frozenset(v.name.removeprefix(lead) for v in result.verdicts if v.wrong and v.name.startswith(lead))


def _in_the_pullback(edit: Edit) -> Iterator[Partial]:
    """The edit in the pullback alone, and for one of its gradients alone."""
    yield Partial.of(edit, OWN_PULLBACK, backward=True, in_pullback=True)
    code = edit.original.__code__
    names = code.co_varnames[: code.co_argcount]
    if len(names) > 1 and edit.cost <= CHEAP and not any(name in ("p", "config") for name in names):
        for name in names:
            yield Partial.of(edit, OWN_PULLBACK + 0.1, backward=True, in_pullback=True, gradient=name)


def _may_have_own_pullback(edit: Edit) -> bool:
    return not edit.in_pullback and _has_pullback(edit.original)
