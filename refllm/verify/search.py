"""A wrong answer explained without any list of mistakes: which edit of the specification gives the same answers?

    found = explained(results, "float32", seconds=10)
    found["attention"].diff          [("spec/attention.py:22", ["- s = q @ swap(k) / sqrt(D)", "+ s = q @ swap(k)"])]

Every single edit of the functions that an operation is made of is put to the smallest case that fails; what gives the
same answer there is put to the others, and to those that are right. Where no single edit explains anything, pairs of
the likeliest are tried until the time is over.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from refllm.verify import bounded, listed, plain
from refllm.verify.additive import Effects
from refllm.verify.case import Case, Response
from refllm.verify.edits import Edit
from refllm.verify.edits.partial import Partial
from refllm.verify.found import Edits, Found, cost, rank
from refllm.verify.imitations import KNOWN, nearness
from refllm.verify.loose import is_invented, is_loose
from refllm.verify.mutants import Edited
from refllm.verify.proposals import Proposals
from refllm.verify.rivals import FEW, in_common, meanings
from refllm.verify.runner import Result
from refllm.verify.solved import numbers_solved
from refllm.verify.telling import is_off_in_numbers, numbers, telling, values_differ
from refllm.verify.weighing import LATER, Weighing, functions_of

SECONDS = 10.0  # for a whole report
PRIMARY = 3  # failing cases that the search begins from
FURTHER = 0.2  # how much more than what explains all the dearest edit costs that is still tried
HALVES = 12  # edits that give the values alone, of which one may be told
DEARER = 500  # candidates one after the other that cost more, after which no cheaper one is waited for
HALF, MOST = 0.5, 0.75  # the share of the wrong answers that one edit must explain, and that two must
ENOUGH = 4  # numbers that two edits must explain
LIKELIEST = 1.15  # what an edit may cost that is tried in the place of two known mistakes
CASES = 2  # wrong answers that an edit must explain which holds under a condition alone


def explained(
    results: Iterable[Result],
    dtype: str,
    seconds: float = SECONDS,
    partly: Mapping[str, Sequence[Edited]] | None = None,
    cut: set[str] | None = None,
) -> dict[str, Found]:
    """For every operation with wrong answers that an edit of the text explains: the best.

    `partly` has the known mistakes that explain a part of an operation's wrong answers: what explains the rest is
    looked for beside them. `cut` is added the operations whose search the time ended.
    """
    by_operation: dict[str, list[Result]] = {}
    for result in results:
        if result.response is not None and result.case.operation in plain.operations():
            by_operation.setdefault(result.case.operation, []).append(result)
    failing = [held for held in by_operation.values() if any(r.status == "fail" for r in held)]
    failing.sort(key=lambda held: held[0].case.level)
    right = frozenset(name for name, held in by_operation.items() if all(r.status in ("pass", "law") for r in held))
    bounded.begin()
    end, found = bounded.now() + seconds, dict[str, Found]()
    with (
        warnings.catch_warnings(action="ignore"),
        bounded.until(end + LATER, bounded.now),
    ):  # warnings of what edits do to numbers
        for left, held in zip(range(len(failing), 0, -1), failing, strict=True):
            share = (end - bounded.now()) / left
            known = [f.edits for f in found.values() if f.decided]
            search, operation = _Search(held, dtype, bounded.now() + share, right), held[0].case.operation
            best = search.best(known, (partly or {}).get(operation, ()))
            if best is not None:
                found[operation] = best
            if search.cut and cut is not None:
                cut.add(operation)
    return found


class _Search(Weighing):
    def __init__(self, results: list[Result], dtype: str, end: float, right: frozenset[str] = frozenset()) -> None:
        super().__init__(results, dtype, end)
        self.known_right = right
        self.values = True  # whether more than gradients is wrong in the case that is searched from
        self.near: list[tuple[float, Edit]] = []  # edits that bring the answer nearer, and how near
        self.far: dict[tuple[str, bool], float | None] = {}
        self.effects: Effects | None = None  # what edits change by themselves
        self.halves: list[Edit] = []  # edits that give the values, and not the gradients
        self.of_values: list[Edit] = []  # the same of every case that was searched from

    def best(self, known: Sequence[Edits] = (), partly: Sequence[Edited] = ()) -> Found | None:
        """What explains most, at first among what explains an operation below this one, then beside what known mistakes
        explain. The search begins again from a case that the best so far leaves unexplained. None where nothing is
        wrong but digits."""
        if not self.wrong:
            return None
        of_this = set(plain.called(self.operation))
        below = [edits for edits in known if {edit.original for edit in edits} <= of_this]
        best = self._among(below, telling(self.wrong)) if below else None
        if best is not None and len(best.explained) == best.wrong:
            return best
        known_in_part = self._parts(partly)
        parts, conditional = ([p for p in known_in_part if bool(p.where) is where] for where in (False, True))
        best = self._simpler(self._beside(parts, best))
        for _ in range(PRIMARY):
            if best is not None and len(best.explained) == best.wrong:
                break
            left = [r for r in self.wrong if best is None or r.case.id not in best.explained]
            if not left or self._is_over():
                break
            found = self._from(telling(left), best)
            if found is not None and (best is None or len(found.explained) > len(best.explained)):
                best = found
            elif best is None or 2 * len(best.explained) >= best.wrong:
                break
        best = self._beside(parts, best, late=True)
        best = self._of_values(best) or best
        most = max(conditional, key=lambda part: len(part.explained), default=None)
        if most is not None and (best is None or len(best.explained) < len(most.explained)):
            best = most  # a known mistake that is made under a condition
        if best is None or not self._is_convincing(best):
            return None
        return replace(best, loose=self._is_loose(best))

    def _of_values(self, best: Found | None) -> Found | None:
        """An edit that gives the values of the wrong answers, where it does not give their gradients too, nor does
        any other; or gives those of fewer."""
        candidates = self.of_values[:HALVES] if best is None else [e for e in self.of_values if best.edits == (e,)][:1]
        for edit in candidates:
            functions = functions_of((edit,))
            if functions is None or self._is_over(LATER):
                continue
            others = [r for r in self.right if not self._alike(functions, False, r, values=True)]
            if any(not self._fails(functions, False, r.case) for r in others):
                continue
            alike = [r for r in self.wrong if self._alike(functions, False, r, values=True)]
            explained = frozenset(r.case.id for r in alike)
            more = best is None or best.explained < explained
            if more and len(alike) >= MOST * len(self.wrong) and any(map(is_off_in_numbers, alike)):
                return Found((edit,), False, explained, len(self.wrong), 0, len(others), True, values=True)
        return None

    def _is_listed(self, found: Found) -> bool:
        """Whether this is one known mistake and nothing more."""
        names, others = listed.of_which(found.edits)
        return len(names) == 1 and not others and not any(isinstance(edit, Partial) for edit in found.edits)

    def _parts(self, partly: Sequence[Edited]) -> list[Found]:
        """Known mistakes, each with the answers that it explains and without the others."""
        ways = [(self._weighed(listed.as_edits(m), traced) for traced in (True, False)) for m in partly]
        found = [min((f for f in each if f is not None and f.explained), key=rank, default=None) for each in ways]
        return [part for part in found if part is not None and (part.where or len(part.explained) < part.wrong)]

    def _beside(self, parts: Sequence[Found], best: Found | None, *, late: bool = False) -> Found | None:
        """The best of what explains the rest together with a known mistake that explains a part: another known one, or
        any edit. That is tried late where the part is small."""
        for part in parts:
            explained = max(len(part.explained), 0 if best is None else len(best.explained))
            any_edit = late is (len(part.explained) < HALF * part.wrong)
            left = [r for r in self.wrong if r.case.id not in part.explained]
            if explained == part.wrong or self._is_over() or (late and not any_edit):
                continue
            primary = telling(left)
            others = [] if late else listed.of_case(primary.case, KNOWN)
            both = self._among(listed.with_each(part.edits, others), primary)
            if any_edit and (both is None or len(both.explained) < both.wrong):
                proposals = Proposals(primary, values=values_differ(primary), right=self.known_right, end=self.end)
                self.values = values_differ(primary)
                both = self._among(proposals.with_one_more(part.edits), primary) or both
            if both is not None and len(both.explained) > explained:
                best = both
        return best

    def _simpler(self, best: Found | None) -> Found | None:
        """One likely edit in the place of two known mistakes, if it explains as much: what a caller does not hand on,
        two of those that it calls do without."""
        if best is None or sum(edit.mistakes for edit in best.edits) < 2:
            return best
        primary = telling(self.wrong)
        self.values = values_differ(primary)
        proposals = Proposals(primary, values=self.values, right=self.known_right, end=self.end)
        likely = ((edit,) for edit in proposals.whole if edit.cost <= LIKELIEST)
        one = self._among(likely, primary)
        return one if one is not None and not one.where and one.explained >= best.explained else best

    def _is_loose(self, found: Found) -> bool:
        """Whether one answer alone says so, and that is a choice, which many a formula makes, or says as well that a
        number was another."""
        if len(found.explained) > 1 or len(self.right) < CASES:
            return False
        explained = [r for r in self.wrong if r.case.id in found.explained]
        if any(map(is_invented, found.edits)) and not any(map(is_off_in_numbers, explained)):
            return True

        def fits(edits: Edits) -> bool:
            functions = functions_of(edits)
            return functions is not None and all(self._alike(functions, found.traced, r) for r in explained)

        return is_loose(found.edits, fits)

    def _is_convincing(self, found: Found) -> bool:
        """Whether it cannot well be an accident: a few whole numbers, two edits, or an edit under a condition, fit many
        an answer."""
        share = len(found.explained) / found.wrong
        explained = [r for r in self.wrong if r.case.id in found.explained and r.response is not None]
        count = sum(numbers(r.response) for r in explained if r.response is not None)
        if found.where and len(explained) < CASES:
            return False
        if sum(edit.mistakes for edit in found.edits) > 1:
            return share >= MOST and count >= ENOUGH
        return share >= HALF and (count > 0 or share == 1)

    def _from(self, primary: Result, best: Found | None) -> Found | None:
        """The best edit, or pair of edits, that gives the answer to this case; beside the best so far if none explains
        more than that."""
        self.near, self.halves, self.values, self.effects = [], [], values_differ(primary), None
        proposals = Proposals(primary, values=self.values, right=self.known_right, end=self.end)
        self.cut = self.cut or proposals.cut
        proposals.listed = lambda: listed.of_case(primary.case, KNOWN)
        proposals.adding_up = lambda: self._adding_up(primary)
        proposals.solved = lambda functions: numbers_solved(primary, functions, values=self.values, dtype=self.dtype)
        pairs = best is None or 2 * len(best.explained) < best.wrong
        found = self._among(proposals.all(self.near, self.halves, pairs=pairs), primary)
        if best is None or (found is not None and len(found.explained) > len(best.explained)):
            return found
        return self._among(proposals.with_one_more(best.edits), primary) or found

    def _adding_up(self, primary: Result) -> Iterator[tuple[Edits, Edits]]:
        """Two edits whose changes of this answer add up to what is wrong, known mistakes among them."""
        effects = self.effects
        if effects is None:
            return
        if not effects.listed:
            for edits, response in listed.with_answers(primary.case, KNOWN):
                effects.add(edits, response, listed=True)
        yield from effects.pairs()
        yield from effects.pairs_of_listed()

    def _among(self, candidates: Iterable[Edits], primary: Result) -> Found | None:
        """The best of those that give the answer of this case, and of the others. What costs more than one that
        explains all is not tried."""
        found: list[Found] = []
        enough, whole, dearer = math.inf, False, 0
        for candidate in candidates:
            if self._is_over() or (whole and cost(candidate) > enough) or dearer > DEARER:
                break
            dearer = dearer + 1 if cost(candidate) > enough else 0
            if dearer:
                continue
            ways = [self._weighed(candidate, traced) for traced in self._gives(candidate, primary)]
            one = min((found for found in ways if found is not None), key=lambda f: f.rank, default=None)
            if one is not None and any(member.listed for edit in candidate for member in edit.members):
                one = self._without_idle(one)
            if one is None or (self._is_listed(one) and not one.where):
                continue
            found.append(one)
            certain = len(one.explained) == one.wrong and not one.guarded and not one.where
            enough, whole = min(enough, cost(candidate) + (FURTHER if certain else 3 * FURTHER)), whole or certain
        if not found:
            return None
        best = self._without_idle(min(found, key=rank))
        alike = [f for f in found if f.explained == best.explained and f.where == best.where]
        return self._beside_its_rivals(replace(best, others=len(alike) - 1), alike, primary)

    def _without_idle(self, found: Found) -> Found:
        """The same without what changes nothing of it: of several edits those that are needed."""
        members = [member for edit in found.edits for member in edit.members]
        for member in members if len(members) > 1 else ():
            rest = _put_together([other for other in members if other is not member])
            fewer = None if rest is None else self._weighed(rest, found.traced)
            if fewer is not None and fewer.explained >= found.explained and fewer.where == found.where:
                return self._without_idle(fewer)
        return found

    def _beside_its_rivals(self, best: Found, alike: list[Found], primary: Result) -> Found:
        """What is found, with what it has in common with edits of another meaning, where there are too many."""
        if len(alike) <= FEW:
            return best
        with bounded.until(bounded.now() + LATER, bounded.now):
            count = meanings(primary.case, [(f.edits, f.traced) for f in alike], functions_of)
        return best if count <= FEW else replace(best, rivals=count, common=in_common(f.edits for f in alike))

    def _gives(self, candidate: Edits, result: Result) -> list[bool]:
        """In which ways an edit gives this answer: traced or not."""
        functions = functions_of(candidate)
        case, got = result.case, result.response
        if functions is None or got is None:
            return []
        for dtype in self._dtypes(got):
            inside = all(edit.in_pullback for edit in candidate)
            if not inside and self.values:
                values = plain.answer(case, dtype, functions, traced=False, values=True)
                if not self._equal(case, got, values, functions, traced=False, values=True):
                    self._note(candidate, case, got, values)
                    continue
            if got.gradients is None or not case.gradients:
                if not inside:
                    return [False]
                continue
            gradients, ways = None, list[bool]()
            for traced in (False,) if inside else (True, False):
                gradients = plain.answer(case, dtype, functions, traced=traced)
                ways += [traced] if self._equal(case, got, gradients, functions, traced=traced) else []
            if ways:
                return ways
            if not inside and self.values and len(candidate) == 1:
                self.halves.append(candidate[0])
                self.of_values += [candidate[0]] if candidate[0].mistakes == 1 else []
            elif inside or not self.values:
                self._note(candidate, case, got, gradients)
        return []

    def _note(self, candidate: Edits, case: Case, got: Response, other: Response | None) -> None:
        """Remembers an edit that comes near: fewer tensors are off, or all by less than before."""
        if len(candidate) > 1 or candidate[0].mistakes > 1 or other is None:
            return
        if self.effects is None:
            text = plain.answer(case, "float64", {}, traced=False, values=other.gradients is None)
            self.effects = None if text is None else Effects(case, got, text)
        if self.effects is not None:
            self.effects.add(candidate, other)
        off = nearness(case, got, other, self.dtype)
        before = self._before(case, got, gradients=other.gradients is not None)
        if before is not None and off < before:
            self.near.append((off, candidate[0]))

    def _before(self, case: Case, got: Response, *, gradients: bool) -> float | None:
        """How far the text itself is from the answer."""
        key = (case.id, gradients)
        if key not in self.far:
            other = plain.answer(case, "float64", {}, traced=False, values=not gradients)
            self.far[key] = None if other is None else nearness(case, got, other, self.dtype)
        return self.far[key]


def _put_together(members: Sequence[Edit]) -> Edits | None:
    found: Edits | None = ()
    for member in members:
        found = None if found is None else listed.joined(found, (member,))
    return found
