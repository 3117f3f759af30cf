"""Which edits of the text are tried on a case, and in which order: what is written more often first.

Where a value is wrong, edits of what its forward pass runs; where gradients alone are, edits of pullbacks, of what
they call, and of a formula that the pullback has and the forward pass does not.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from types import FunctionType

from refllm.verify import plain
from refllm.verify.edits import Edit, edits
from refllm.verify.edits.partial import Partial
from refllm.verify.observed import Observed, observed
from refllm.verify.reach import reach
from refllm.verify.runner import Result

REACH = 0.3  # what it costs that a function has a say in all that is right too
OWN_PULLBACK = 0.25  # what it costs that a formula is another in the pullback alone
SOME_CALLS = 0.3  # and in some of the calls alone
CHEAP = 1.45  # edits that are tried in some of the calls
NEAR = 25  # edits that bring the answer nearer, whose pairs are tried
BESIDE = 2000  # edits that are tried beside them
LIKELY = 300  # edits whose pairs are tried at last
Edits = tuple[Edit, ...]


@cache
def edits_of(operation: str, right: frozenset[str] = frozenset()) -> list[Edit]:
    """All single edits of what an operation is made of, the likeliest first; what is `right` by itself stays."""
    functions = [f for f in plain.called(operation) if f.__name__ not in right or f.__name__ == operation]
    found = [(edit.cost + min(depth, 8) / 16, edit) for depth, f in enumerate(functions) for edit in edits(f)]
    return [edit for _, edit in sorted(found, key=lambda pair: pair[0])]


class Proposals:
    """The edits for one case."""

    def __init__(self, result: Result, *, values: bool, right: frozenset[str]) -> None:
        case = result.case
        self.seen: Observed = observed(case)
        self.case, self.values, self.wrong = case, values, _wrong_tensors(result, values=values)
        self.reaches: dict[FunctionType, float | None] = {}
        every = [edit for edit in edits_of(case.operation, right) if self._reaches(edit.original) is not None]
        self.whole = [self._weighed(edit) for edit in every if self._fits(edit)]
        if not values:
            own = [edit for edit in every if _may_have_own_pullback(edit) and self.seen.runs(edit, backward=False)]
            self.whole += [self._weighed(edit) for edit in own for edit in _in_the_pullback(edit)]
        self.whole.sort(key=lambda edit: edit.cost)

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
        more = REACH * (self._reaches(edit.original) or 0.0)
        return replace(edit, cost=edit.cost + more) if more else edit

    def _fits(self, edit: Edit) -> bool:
        forward = self.seen.runs(edit, backward=False)
        if self.values:
            return forward and not edit.in_pullback
        if edit.in_pullback or not forward:
            return self.seen.runs(edit, backward=True)
        return "constant(" in edit.changes[0][2]  # no value changes

    def singles(self) -> Iterator[Edit]:
        """Every single edit, of all calls or of some."""
        return heapq.merge(self.whole, self._of_some_calls(), key=lambda edit: edit.cost)

    def _of_some_calls(self) -> Iterator[Edit]:
        cheap = [edit for edit in self.whole if edit.cost <= CHEAP]
        wheres = {f: list(self.seen.wheres(f)) for f in {edit.original for edit in cheap}}
        for edit in cheap:
            for where in wheres[edit.original]:
                yield Partial.of(edit, SOME_CALLS, where=where)

    def pairs(self, near: list[Edit], halves: list[Edit]) -> Iterator[Edits]:
        """Two edits: one that gives the values and one of a pullback; both of one statement; such as come near."""
        if halves:
            inside = [edit for edit in self.whole if edit.in_pullback]
            yield from _together(product(halves[:4], inside))
        yield from self._of_one_statement()
        yield from self._alike("reshaped(")
        for dtype in ("float16", "bfloat16", "float32"):
            yield from self._alike(f'"{dtype}")')
        first, likely = near[:NEAR], self.whole[:LIKELY]
        yield from _together(combinations(first, 2))
        places = product(range(len(first)), range(len(self.whole[:BESIDE])))
        by_rank = sorted(places, key=lambda pair: pair[0] * (BESIDE // NEAR) + pair[1])
        yield from _together((first[i], self.whole[j]) for i, j in by_rank)
        yield from _together((likely[i], likely[j]) for i, j in sorted(combinations(range(len(likely)), 2), key=sum))

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
