"""A wrong answer explained without any list of mistakes: which edit of the specification gives the same answers?

    found = explained(results, "float32", seconds=10)
    found["attention"].diff          [("spec/attention.py:22", ["- s = q @ swap(k) / sqrt(D)", "+ s = q @ swap(k)"])]

Every single edit of the functions that an operation is made of is put to the smallest case that fails; what gives the
same answer there is put to the others, and to those that are right. Where no single edit explains anything, pairs of
the likeliest are tried until the time is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Any

from refllm.verify import plain
from refllm.verify.case import Answers, Case, Response
from refllm.verify.edits import Edit, edits
from refllm.verify.imitations import equal, is_finite
from refllm.verify.runner import Result

SECONDS = 10.0  # for a whole report
PRIMARY = 3  # failing cases that the search begins from
LIKELY = 250  # edits whose pairs are tried
AGAINST = 24  # right answers that a candidate is held against

Edits = tuple[Edit, ...]


@dataclass(frozen=True)
class Found:
    """An edit, or several, that give the answers that were given."""

    edits: Edits
    traced: bool  # whether the gradient is the true one of the edited formula; else the pullbacks were left as they are
    explained: frozenset[str]  # the cases whose wrong answers they are
    wrong: int  # how many answers to the operation are wrong
    others: int  # how many more edits give the same answers
    guarded: int  # right answers where the edited text fails or is not finite, which one may have guarded
    gradients: bool  # whether gradients were given

    @property
    def rank(self) -> tuple[int, bool, float]:
        """The best first."""
        return -len(self.explained), self.guarded > 0, sum(edit.cost for edit in self.edits) + len(self.edits)

    @property
    def diff(self) -> list[tuple[str, list[str]]]:
        return [(edit.place, edit.diff()) for edit in self.edits]


def explained(results: Iterable[Result], dtype: str, seconds: float = SECONDS) -> dict[str, Found]:
    """For every operation with wrong answers that an edit of the text explains: the best."""
    by_operation: dict[str, list[Result]] = {}
    for result in results:
        if result.response is not None and result.case.operation in plain.operations():
            by_operation.setdefault(result.case.operation, []).append(result)
    failing = [held for held in by_operation.values() if any(r.status == "fail" for r in held)]
    failing.sort(key=lambda held: held[0].case.level)
    right = frozenset(name for name, held in by_operation.items() if all(r.status == "pass" for r in held))
    end, found = time.perf_counter() + seconds, dict[str, Found]()
    for left, held in zip(range(len(failing), 0, -1), failing, strict=True):
        share = (end - time.perf_counter()) / left
        best = _Search(held, dtype, time.perf_counter() + share, right).best([f.edits for f in found.values()])
        if best is not None:
            found[held[0].case.operation] = best
    return found


def _values_differ(result: Result) -> bool:
    """Whether more than a gradient is wrong."""
    return any(v.wrong and not v.name.startswith("gradient") for v in result.verdicts)


def _is_rounding(result: Result, dtype: str) -> bool:
    """Whether an answer is the truth but for lost digits, which no other formula explains."""
    truth = Answers(result.case.outputs, result.case.gradients).response()
    return result.response is not None and equal(result.case, result.response, truth, dtype)


def _telling(results: list[Result]) -> Result:
    """The smallest case that is no degenerate one: a row of one number says little."""
    return next((r for r in results if all(x.size >= 4 for x in r.case.inputs.values())), results[0])


@cache
def _edits_of(operation: str, right: frozenset[str] = frozenset()) -> list[Edit]:
    """All single edits of what an operation is made of, the likeliest first; what is `right` by itself stays."""
    functions = [f for f in plain.called(operation) if f.__name__ not in right]
    found = [(edit.cost + depth / 8, edit) for depth, f in enumerate(functions) for edit in edits(f)]
    return [edit for _, edit in sorted(found, key=lambda pair: pair[0])]


class _Search:
    def __init__(self, results: list[Result], dtype: str, end: float, right: frozenset[str] = frozenset()) -> None:
        self.edits = _edits_of(results[0].case.operation, right)
        size = lambda result: sum(x.size for x in result.case.inputs.values())
        failing = [r for r in results if r.status == "fail" and not _is_rounding(r, dtype)]
        self.wrong = sorted(failing, key=size)
        self.right = sorted((r for r in results if r.status in ("pass", "value")), key=size)[:AGAINST]
        self.dtype, self.end = dtype, end
        self.operation = results[0].case.operation

    def best(self, known: Sequence[Edits] = ()) -> Found | None:
        """What explains most, at first among what explains an operation below this one. The search begins again from a
        case that the best so far leaves unexplained. None where nothing is wrong but digits."""
        if not self.wrong:
            return None
        of_this = set(plain.called(self.operation))
        below = [edits for edits in known if {edit.original for edit in edits} <= of_this]
        best = self._among(below, _telling(self.wrong)) if below else None
        if best is not None and len(best.explained) == best.wrong:
            return best
        singles = [(edit,) for edit in self.edits]
        for _ in range(PRIMARY):
            left = [r for r in self.wrong if best is None or r.case.id not in best.explained]
            if not left:
                break
            found = self._among(singles, _telling(left))
            if found is not None and (best is None or len(found.explained) > len(best.explained)):
                best = found
            elif found is None and best is not None:
                break
        return best or self._among(self._pairs(), _telling(self.wrong), enough=1)

    def _pairs(self) -> Iterator[Edits]:
        likely = self.edits[:LIKELY]
        for i, j in sorted(combinations(range(len(likely)), 2), key=sum):
            one, other = likely[i], likely[j]
            if one.original is not other.original:
                yield one, other
            elif both := one.beside(other):
                yield (both,)

    def _among(self, candidates: Iterable[Edits], primary: Result, enough: int = 0) -> Found | None:
        """The best of those that give the answer of this case, and of the others."""
        hits: list[tuple[Edits, bool]] = []
        values = _values_differ(primary)
        for candidate in candidates:
            if values and all(edit.in_pullback for edit in candidate):
                continue  # a pullback changes no value
            if time.perf_counter() > self.end or (enough and len(hits) >= enough):
                break
            traced = self._gives(candidate, primary)
            if traced is not None:
                hits.append((candidate, traced))
        found = [f for f in (self._weighed(candidate, traced) for candidate, traced in hits) if f is not None]
        found.sort(key=lambda f: f.rank)
        if not found:
            return None
        best = found[0]
        others = sum(f.explained == best.explained for f in found) - 1
        return replace(best, others=others)

    def _gives(self, candidate: Edits, result: Result) -> bool | None:
        """Whether an edit gives this answer: traced or not; None if it does not."""
        functions = _functions(candidate)
        case, got = result.case, result.response
        if functions is None or got is None:
            return None
        for dtype in self._dtypes(got):
            inside = all(edit.in_pullback for edit in candidate)
            if not inside and not self._equal(
                case, got, plain.answer(case, dtype, functions, traced=False, values=True)
            ):
                continue
            if got.gradients is None or not case.gradients:
                if not inside:
                    return False
                continue
            for traced in (False,) if inside else (True, False):
                if self._equal(case, got, plain.answer(case, dtype, functions, traced=traced)):
                    return traced
        return None

    def _dtypes(self, got: Response) -> tuple[str, ...]:
        """Float64, and where an answer is not finite the dtype of the run, in which a formula may overflow."""
        own = self.dtype if self.dtype in ("float32", "float64") else "float32"
        return ("float64",) if own == "float64" or is_finite(got) else ("float64", own)

    def _equal(self, case: Case, got: Response, other: Response | None) -> bool:
        return equal(case, got, other, self.dtype)

    def _weighed(self, candidate: Edits, traced: bool) -> Found | None:
        """What a candidate explains; None if a right answer contradicts it."""
        functions = _functions(candidate)
        assert functions is not None
        others = [r for r in self.right if not self._alike(functions, traced, r)]
        if not all(self._fails(functions, traced, r.case) for r in others):
            return None
        alike = frozenset(r.case.id for r in self.wrong if self._alike(functions, traced, r))
        gradients = any(r.response is not None and r.response.gradients is not None for r in self.wrong)
        return Found(candidate, traced, alike, len(self.wrong), 0, len(others), gradients)

    def _fails(self, functions: Mapping[Any, Any], traced: bool, case: Case) -> bool:
        """Whether the edited text raises, or gives 0 / 0."""
        other = plain.answer(case, "float64", functions, traced=traced, values=not case.gradients)
        return other is None or not is_finite(other)

    def _alike(self, functions: Mapping[Any, Any], traced: bool, result: Result) -> bool:
        got, case = result.response, result.case
        if got is None:
            return False
        values = got.gradients is None or not case.gradients
        answers = (plain.answer(case, d, functions, traced=traced, values=values) for d in self._dtypes(got))
        return any(self._equal(case, got, other) for other in answers)


def _functions(candidate: Edits) -> dict[Any, Any] | None:
    """The edited functions; None if one of them is not Python."""
    found = {edit.original: _compiled(edit) for edit in candidate}
    return None if None in found.values() else found


@cache
def _compiled(edit: Edit) -> Any:
    return edit.function()
