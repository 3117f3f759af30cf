"""What a wrong answer is equal to: another convention, a known mistake, or the truth but for a factor or an order.

    diagnosed(results, "float32")   the results of a run, every wrong answer with its explanations, best first
    -> ["equal to attention without the 1/√d_k scale, to 3e-07 (ATT/no-scale)"]

Mutants are asked for their answer to the same input, in float64. One case may fit several of them, so all answers to
the operation are looked at: the best explains most of the wrong ones, and a right one that it would have got wrong
rules it out.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from refllm.verify import hints, mutants
from refllm.verify.candidates import Candidate, candidates, comparable, how_near
from refllm.verify.case import Answers, Case, Response
from refllm.verify.explanation import Explanation
from refllm.verify.found import Found
from refllm.verify.imitations import KNOWN, Imitations, distance, equal
from refllm.verify.listed import recognised
from refllm.verify.mutants import Edited, Mutant
from refllm.verify.noise import Noise
from refllm.verify.runner import Result, declare

if TYPE_CHECKING:
    pass

LINES = 3
UNKNOWN = "explained by no known mistake and by no single edit of the specification"
TRIED = "; all that is searched for was tried"
CUT = "; the time of the search was over before all was tried (--search 60 takes longer)"
PARTS = 3  # known mistakes that explain a part, beside which others are tried
ORDER = {mutant.id: order for order, mutant in enumerate(mutants.MUTANTS)}


def diagnosed(
    results: Iterable[Result],
    dtype: str,
    known: Imitations = KNOWN,
    among: Collection[str] | None = None,
    found: Mapping[str, Found] | None = None,
    lost: Mapping[str, Noise] | None = None,
    cut: Collection[str] = (),
) -> Iterator[Result]:
    """The same results, each wrong answer with its best explanations in words; none if nothing fits.

    `among` holds the ids of the mutants that are asked about, if not all are; `found` what the search found for each
    operation, None if there was none, `lost` by which form digits are lost, and `cut` for which the time was over
    before all was tried.
    """
    evidence = _Evidence(list(results), dtype, known, among, found, lost or {}, cut)
    for result in evidence.results:
        yield replace(result, diagnosis=evidence.lines(result)) if result.failed else result


def listed(results: Iterable[Result], dtype: str) -> tuple[set[str], dict[str, list[Edited]]]:
    """The operations all of whose wrong answers a known mistake with a diff explains: nothing is left to search for.
    And for the others the known mistakes that explain a part, beside which another is looked for."""
    evidence = _Evidence(list(results), dtype, KNOWN, None, None, {}, ())
    wrong: dict[str, list[Result]] = {}
    for result in evidence.results:
        if result.wrong and result.case.level > 0:
            wrong.setdefault(result.case.operation, []).append(result)
    whole = {operation for operation, held in wrong.items() if evidence.is_listed(held)}
    return whole, {operation: evidence.partly(held) for operation, held in wrong.items() if operation not in whole}


class _Evidence:
    """All answers of a run: what explains a wrong one must agree with the others to the same operation."""

    def __init__(
        self,
        results: list[Result],
        dtype: str,
        known: Imitations,
        among: Collection[str] | None,
        found: Mapping[str, Found] | None,
        lost: Mapping[str, Noise],
        cut: Collection[str],
    ) -> None:
        self.results, self.dtype, self.known, self.among = results, dtype, known, among
        self.found, self.lost, self.cut = found, lost, cut
        self.wrong = [r for r in results if r.status in ("fail", "convention") and r.response is not None]
        self.right = [r for r in results if r.right]
        self._candidates: dict[str, list[Candidate]] = {}
        self._weights: dict[tuple[str, str], dict[str, Any]] = {}
        self._in_single: dict[str, int] = {}
        self._right_digits: dict[str, int] = {}
        self._ties: dict[tuple[str, int], tuple[int, bool, int]] = {}

    def is_listed(self, wrong: list[Result]) -> bool:
        """Whether a known mistake that has a diff explains each of these answers, and no right one contradicts it."""
        case, got = wrong[0].case, wrong[0].response
        if got is None or not comparable(case, got):
            return False
        found = [self._weighed(case, candidate) for candidate in self._candidates_of(wrong[0])]
        return any(c.holds and c.mutant.diff and c.explained[0] >= len(wrong) for c in found)

    def partly(self, wrong: list[Result]) -> list[Edited]:
        """The known mistakes with a diff that explain some of these answers. Right ones may contradict them, where a
        condition tells these apart."""
        found: dict[bool, dict[Edited, int]] = {True: {}, False: {}}  # those that hold, and those that some contradict
        for result in wrong:
            if result.response is not None and comparable(result.case, result.response):
                for candidate in self._candidates_of(result):
                    weighed = self._weighed(result.case, candidate) if isinstance(candidate.mutant, Edited) else None
                    if weighed is not None and weighed.equal and weighed.sure and isinstance(weighed.mutant, Edited):
                        found[weighed.holds][weighed.mutant] = weighed.explained[0]
        return [m for those in found.values() for m in sorted(those, key=lambda m: -those[m])[:PARTS]]

    def lines(self, result: Result) -> list[str]:
        """The best explanations of a wrong answer."""
        case, got = result.case, result.response
        if result.status in ("dtype", "law") or got is None or case.level == 0 or not comparable(case, got):
            return []
        conventions = self._conventions(case, got)
        return [*conventions, *(self._zeros(result) or self._equal_to(result, case, got))][:LINES]

    def _equal_to(self, result: Result, case: Case, got: Response) -> list[str]:
        """The mistakes that the answer is that of; where there is none, what it has in common with the truth."""
        found = self._ranked(case, [self._weighed(case, candidate) for candidate in self._candidates_of(result)])
        best, single = self._causes(result, found), self._in_single_precision(result)
        if single and not any(2 * self._explains(line) > self._singles(case.operation) for line in best):
            return single
        if best or result.status == "convention":
            return best
        near = [str(s) for s in found if s.shared == "numbers"][: LINES - 1]
        if self.found is not None:
            near = [f"{UNKNOWN}{CUT if case.operation in self.cut else TRIED}"]
        return [*near, *hints.hints(case, got, self.dtype)]

    def _in_single_precision(self, result: Result) -> list[str]:
        """That the answer is right as far as float32 reaches, if not as the case asks then under a convention."""
        case, got = result.case, result.response
        if self.dtype != "float64" or result.status != "fail" or got is None:
            return []
        if single := hints.single_precision(result.verdicts, got, self.dtype, self._digits(case.operation)):
            return single
        for key, answers in case.alternatives.items():
            if equal(case, got, answers.response(), "float32"):
                return [f"right under the convention {key} as far as float32 reaches, not float64"]
        return []

    def _singles(self, operation: str) -> int:
        """How many wrong answers to the operation are right as far as float32 reaches: what explains no more than
        half of them is no better reason."""
        if operation not in self._in_single:
            wrong = [r for r in self.wrong if r.case.operation == operation]
            self._in_single[operation] = sum(bool(self._in_single_precision(r)) for r in wrong)
        return self._in_single[operation]

    def _digits(self, operation: str) -> int:
        """How many digits of all wrong answers to the operation are right."""
        if operation not in self._right_digits:
            wrong = [hints.right_digits(r.verdicts) for r in self.wrong if r.case.operation == operation and r.wrong]
            self._right_digits[operation] = min(wrong, default=0)
        return self._right_digits[operation]

    def _explains(self, line: str) -> int:
        """How many wrong answers to its operation a cause explains."""
        cause = line.cause if isinstance(line, Explanation) else None
        if isinstance(cause, Found | Noise):
            return len(cause.explained)
        counts = [w["explained"][0] for (name, _), w in self._weights.items() if cause and name == cause.id]
        return max(counts, default=0)

    def _causes(self, result: Result, ranked: list[Candidate]) -> list[str]:
        """What the answer is equal to: known mistakes, or the edit of the specification that explains more of them. An
        edit that explains as many as a known mistake is its diff."""
        holding = [c for c in _alone(ranked) if c.holds and not _is_by_chance(c, result)]
        holding = [
            c for c in holding if c.explained[0] >= holding[0].explained[0]
        ]  # the others are a part of the first
        edit = (self.found or {}).get(result.case.operation)
        if edit is not None and (not result.wrong or result.case.id not in edit.explained):
            edit = None
        if edit is not None and not edit.decided:
            undecided, edit = [_by_one_answer(edit) if edit.loose else _by_too_many(edit)], None
        else:
            undecided = []
        if edit is not None and not (holding and holding[0].explained[0] >= len(edit.explained)):
            return [Explanation.of(_by_search(edit), edit)]
        noise = self.lost.get(result.case.operation)
        if not holding and noise is not None and result.case.id in noise.explained:
            return [Explanation.of(_by_lost_digits(noise), noise)]
        return [Explanation.of(s, s.mutant, edit if n == 0 else None) for n, s in enumerate(holding)] or undecided

    def _zeros(self, result: Result) -> list[str]:
        """That the answer is zero by overflow, unless another is zero that cannot be so."""
        case, got = result.case, result.response
        if got is None or not _is_zero(result):
            return []
        alike = [r for r in self.wrong if r.case.operation == case.operation and _is_zero(r)]
        if not all(r.response and hints.without_numbers(r.case, r.response, self.dtype) for r in alike):
            return []
        return hints.without_numbers(case, got, self.dtype)

    def _candidates_of(self, wrong: Result) -> list[Candidate]:
        case, got = wrong.case, wrong.response
        if case.id not in self._candidates:
            found = [] if got is None else candidates(case, got, self.dtype, self.known, self.among)
            self._candidates[case.id] = found
        return self._candidates[case.id]

    def _ranked(self, case: Case, found: list[Candidate]) -> list[Candidate]:
        """Best first: what no right answer contradicts, and then what explains most of the wrong ones. Where the
        answers to the operation cannot tell two from each other, those to the others do."""

        def here(candidate: Candidate) -> tuple[bool, bool, float, int, bool]:
            far = 0.0 if candidate.equal else candidate.distance
            return not candidate.holds, bool(candidate.against), far, -candidate.explained[0], not candidate.nothing

        ranked: list[Candidate] = []
        for _, alike in itertools.groupby(sorted(found, key=here), key=here):
            tied = list(alike)
            if tied[1:] and len(ranked) < LINES:
                tied.sort(key=lambda candidate: self._anywhere(candidate.mutant, case.level))
            ranked += tied
        return ranked

    def _anywhere(self, mutant: Mutant, level: int) -> tuple[int, bool, int]:
        """The rank of a mutant by what it explains on a level, and by the right answers up to there."""
        if (mutant.id, level) not in self._ties:
            alike = self._alike(mutant, [r for r in self.wrong if r.case.level == level])
            against = self._contradiction(mutant, [r for r in self.right if r.case.level <= level])
            self._ties[mutant.id, level] = (-len(alike), bool(against), ORDER[mutant.id])
        return self._ties[mutant.id, level]

    def _weighed(self, case: Case, candidate: Candidate) -> Candidate:
        """A candidate with what the other answers to the operation say of it."""
        mutant, operation = candidate.mutant, case.operation
        if (mutant.id, operation) not in self._weights:
            wrong, right = ([r for r in held if r.case.operation == operation] for held in (self.wrong, self.right))
            alike = self._alike(mutant, wrong)
            self._weights[mutant.id, operation] = {
                "against": self._contradiction(mutant, right),
                "explained": (len(alike), len(wrong)),
                "sure": any(same.shared != "overflow" for same in alike),
            }
        return replace(candidate, **self._weights[mutant.id, operation])

    def _alike(self, mutant: Mutant, wrong: list[Result]) -> list[Candidate]:
        """The mutant beside each of these answers that is its own."""
        return [s for result in wrong for s in self._candidates_of(result) if s.equal and s.mutant is mutant]

    def _contradiction(self, mutant: Mutant, right: list[Result]) -> str:
        """The first of these cases whose right answer the mutant would not have given; "" if there is none."""
        return next((r.case.id for r in right if not self._agrees(r, mutant)), "")

    def _agrees(self, right: Result, mutant: Mutant) -> bool:
        if right.response is None or mutant not in self.known.relevant(right.case):
            return True
        return self.known.distance(right.case, right.response, mutant, self.dtype)[1] or self.known.overflows_alike(
            right.case, right.response, mutant, self.dtype
        )

    def _conventions(self, case: Case, got: Response) -> list[str]:
        """The alternatives of the case that the answer is equal to, and that no right answer contradicts; none of them
        asks for more than another."""
        lines, enough = list[str](), list[set[str]]()
        if equal(case, got, Answers(case.outputs, case.gradients).response(), self.dtype):
            return lines  # here nothing tells one from the other
        for key, answers in case.alternatives.items():
            far, same = distance(case, got, answers.response(), self.dtype)
            peers = (result for result in self.right if result.case.operation == case.operation)
            asked = set(key.split(","))
            if same and not any(less <= asked for less in enough) and all(self._follows(r, key) for r in peers):
                lines.append(declare(case, key, f", {how_near(far)}"))
                enough.append(asked)
        return lines

    def _follows(self, right: Result, key: str) -> bool:
        """Whether a right answer is right under this convention too."""
        if right.response is None or key not in right.case.alternatives:
            return True
        return equal(right.case, right.response, right.case.alternatives[key].response(), self.dtype)


def _is_by_chance(candidate: Candidate, result: Result) -> bool:
    """Whether a mistake explains the lesser part of answers that are choices alone: a few whole numbers fit many."""
    explained, wrong = candidate.explained
    case = result.case
    return (
        2 * explained < wrong and not case.gradients and all(t.value.dtype.kind != "f" for t in case.outputs.values())
    )


def _by_search(found: Found) -> str:
    """An edit of the specification in a sentence."""
    both = "this edit" if sum(edit.mistakes for edit in found.edits) == 1 else "these two edits"
    inside = all(edit.in_pullback for edit in found.edits)
    gradient = "" if found.traced or inside or not found.gradients else ", in the forward pass alone"
    gradient = ", in their values; not all gradients are those of the edit" if found.values else gradient
    count = f"{len(found.explained)} of {found.wrong} wrong answers are those"
    share = "the wrong answer is that" if found.wrong == 1 else count
    gradient += f", only where {found.where}" if found.where else ""
    others = f" ({found.others} other edits give the same)" if found.others > 1 else ""
    said = "".join(f": {words}" for words in [", and ".join(edit.said for edit in found.edits if edit.said)] if words)
    known, more = recognised(found.edits)
    listed = f"the listed mistake {known[0]} and {'another' if more else 'no other'}" if known else "no listed mistake"
    listed = f"the listed mistakes {' and '.join(known)} at once" if known[1:] else listed
    return f"{share} of the specification with {both}{gradient}{said}; found by search, {listed}{others}:"


def _by_one_answer(found: Found) -> str:
    """That an edit fits one answer, and others in its place as well, in a sentence."""
    lines = "; ".join(line for _, lines in found.diff for line in lines if line[:1] in "+-")
    return f"{UNKNOWN} that the answers tell from others; one alone fits this, as it does others: {lines}"


def _by_too_many(found: Found) -> str:
    """That the answers do not tell one edit from another, in a sentence."""
    answers = "the wrong answer" if found.wrong == 1 else f"{len(found.explained)} of {found.wrong} wrong answers"
    verb = "fits" if found.wrong == 1 else "fit"
    common = f", all of {found.common}" if found.common else ""
    return f"{answers} {verb} {found.rivals} or more different edits of the specification{common}: too many to name one"


def _by_lost_digits(noise: Noise) -> str:
    """A form that loses digits in a sentence."""
    share = f"{len(noise.explained)} of {noise.wrong} wrong answers lose"
    about = f"{share if noise.wrong > 1 else 'the answer loses'} digits as {noise.form.about} does"
    return f"{about}: the error grows with {noise.form.grows_with}; found by search, no listed mistake:"


def _alone(ranked: list[Candidate]) -> list[Candidate]:
    """Where nothing is summed every formula is 0 / 0: no other is named beside the one that is about that."""
    return ranked[:1] if ranked and ranked[0].nothing and ranked[0].holds else ranked


def _is_zero(result: Result) -> bool:
    return any(verdict.wrong == "zeros" for verdict in result.verdicts)
