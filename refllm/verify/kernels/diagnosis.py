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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from refllm.numbers.plans import Plan
from refllm.verify.case import Case, Response
from refllm.verify.explanation import NOT_COMPARED
from refllm.verify.kernels import axes, properties, searched
from refllm.verify.kernels.causes import Cause, causes
from refllm.verify.kernels.chosen import Chosen
from refllm.verify.kernels.clock import Clock
from refllm.verify.kernels.cut import cut
from refllm.verify.kernels.known import Looked, Match, Operation
from refllm.verify.kernels.looker import Looker
from refllm.verify.kernels.matching import WAYS
from refllm.verify.kernels.right import Right
from refllm.verify.runner import Result
from refllm.verify.sized import judge
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.work import work

LARGEST = 6_000_000  # the work of a case that is still looked at (sized.work)
SEARCHES = 6  # wrong answers to an operation for which all mistakes are tried, if those that were found do not fit
CASES = 12  # wrong answers that are held against what was found
SMALL, LATER = 300_000, 8  # the work of an answer that is held against what is found later, and of how much of it
WAIT, WAITING = 1_000_000, 3  # the work of an answer that waits for a smaller one, and how many do
MANY, FEW_LEFT = 16, 6  # mistakes that the second answer is held against, and those that follow
LEAST = 3  # right answers that are asked while mistakes are tried
FEW = 3  # mistakes that such an answer is held against
DIGITS = (0, WAYS.index("digits"))  # of a match: everything is explained, as lost digits
FACTS = 4  # wrong answers of which it is said what they have in common with the truth
RESERVED, LITTLE = 0.3, 0.15  # the shares of the time that are kept for edits of the plain text: once all mistakes were
# tried in vain, and before that


class Recogniser:
    def __init__(self, dtype: str, plan: Plan, seconds: float, right: Sequence[SizedCase] = ()) -> None:
        self._right = right  # cases that were answered rightly so far, of all operations
        self._asked: dict[str, list[Right]] = {}
        self.dtype, self.plan, self.left = dtype, plan, seconds
        self._seconds, self._pace = seconds, 1.0
        self.known: dict[str, Operation] = {}
        self._kept: dict[str, list[tuple[Looked, Looker]]] = {}  # small answers, for what is found later
        self._all: dict[str, list[tuple[Looked, Looker]]] = {}  # and those that are held against an edit of the text
        self._wrong: dict[str, list[Result]] = {}  # those from which such an edit is searched
        self._cut: dict[str, list[Result]] = {}  # and these of the rows alone that are wrong
        self._waiting: dict[str, list[tuple[Looked, Looker]]] = {}  # large ones, until small ones are searched

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
        clock, looker = Clock(self.left), Looker(case, response, text, self.dtype, self.plan)
        known.gradients = response.gradients is not None
        most = MANY if len(known.looked) < 2 else FEW_LEFT
        matches = looker.matches(known.likely(most)) if work(sized) <= LARGEST else {}
        waits = WAIT < work(sized) <= LARGEST and len(self._waiting.get(case.operation, ())) < WAITING
        if work(sized) <= LARGEST and not waits:
            matches = self._searched(case.operation, looker, matches, clock)
        facts = looker.facts() if len(known.looked) < FACTS else []
        looked = Looked(
            sized, axes.numbers(case), matches, looker.where, facts, looker.count, looker.starts, looker.bits,
            looker.factors(), zeros=looker.is_zero, steps=looker.steps() if len(known.looked) < FACTS else [],
        )  # fmt: skip
        known.looked[sized.id] = looked
        kept = self._kept.setdefault(case.operation, [])
        for earlier, its in kept:
            best = sorted(matches, key=lambda cause: (matches[cause].rank, cause in known.doubted))
            new = [cause for cause in best if cause not in earlier.matches]
            earlier.matches.update(its.matches(new[:LATER]))
        if work(sized) <= SMALL:
            kept.append((looked, looker))
        if work(sized) <= WAIT or waits:
            self._all.setdefault(case.operation, []).append((looked, looker))
        if work(sized) <= searched.LARGEST and len(self._wrong.setdefault(case.operation, [])) < searched.WRONG:
            own = searched.wrong_answer(case, response, result, text, self.dtype, self.plan)
            self._wrong[case.operation] += [own] if own is not None else []
            part = cut(own, looker.wrong) if own is not None else None
            self._cut.setdefault(case.operation, []).extend([part] if part is not None else [])
        if waits:
            self._waiting.setdefault(case.operation, []).append((looked, looker))
        self.left -= clock.used()

    def _searched(
        self, operation: str, looker: Looker, matches: dict[Cause, Match], clock: Clock
    ) -> dict[Cause, Match]:
        """What explains an answer, of all mistakes if those that are known do not."""
        known = self.known[operation]
        if any(match.rank < DIGITS for match in matches.values()) or known.searches >= SEARCHES:
            return matches
        known.searches += 1
        all_tried = known.tried >= len(causes(operation))
        reserved = (RESERVED if all_tried else LITTLE) * self._seconds if known.searches > 1 else 0.0
        clock.seconds = max(0.0, self.left - reserved) * 0.5
        found, known.tried = looker.search(
            operation, clock, set(known.causes), known.tried, lambda cause: self._is_contradicted(operation, cause)
        )
        self._pace = clock.pace
        return matches | found

    def _is_contradicted(self, operation: str, cause: Cause) -> bool:
        """Whether it would have got one of the smallest cases wrong whose answers are right so far."""
        if operation not in self._asked:
            right = sorted((x for x in self._right if x.operation == operation and work(x) <= SMALL), key=work)
            kept = [right[n * (len(right) - 1) // max(1, LEAST - 1)] for n in range(min(LEAST, len(right)))]
            self._asked[operation] = [Right(sized.case(), self.dtype, self.plan) for sized in kept]
        gradients = cause.gradients_alone and self.known[operation].gradients
        if all(each.is_right(cause, gradients=gradients, digits=False) for each in self._asked[operation]):
            return False
        self.known[operation].doubted.add(cause)
        return True

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

    def leave_out(self, ids: Iterable[str]) -> None:
        """Forgets the answers to these cases, which depend on earlier calls."""
        for id in ids:
            for operation, known in self.known.items():
                if known.looked.pop(id, None) is not None:
                    held = (self._kept, self._waiting, self._all)
                    for each in held:
                        each[operation] = [(one, it) for one, it in each.get(operation, ()) if one.sized.id != id]
                for results in (self._wrong, self._cut):
                    results[operation] = [r for r in results.get(operation, ()) if r.case.id != id]

    def gives(self, operation: str, cause: object) -> bool:
        """Whether what explains the tiny cases of an operation gives most of its wrong answers too, or may do so: none
        was small enough to be kept."""
        made = searched.cause_of(cause)
        kept = sorted(self._all.get(operation, ()), key=lambda each: work(each[0].sized))[:FEW]
        told = sum(looker.match(made) is not None for _, looker in kept) if made is not None else 0
        return not kept or 2 * told > len(kept)

    def _search_the_text(self, chosen: dict[str, Chosen]) -> None:
        """Where known mistakes explain no more than half of the answers to an operation, an edit of its text may."""
        for operation, wrong in self._wrong.items():
            known = self.known[operation]
            if self.left <= 0 or operation not in chosen or chosen[operation].explains_most:
                continue
            clock = Clock(self.left)
            wrong.sort(key=lambda result: sum(x.size for x in result.case.inputs.values()))
            seconds = self.left * (1 - RESERVED) * self._pace
            cuts = self._cut.get(operation, [])
            share = 2 if 2 * len(cuts) > len(wrong) else 1  # of the time, where most are wrong in some rows alone
            how = {"gradients": known.gradients}
            edit = searched.found(wrong, known.right, self.dtype, self.plan, seconds / share, **how)
            if edit is None and share > 1:
                edit = searched.found(cuts, (), self.dtype, self.plan, seconds / share, gradients=False)
            all_kept = self._all.get(operation, [])
            for answer, looker in all_kept if edit is not None else ():
                answer.matches.update(looker.matches([edit] if edit is not None else []))
            self.left -= clock.used()
            if edit is None and all_kept and known.tried < len(causes(operation)):
                self._go_on(operation, *min(all_kept, key=lambda each: work(each[0].sized)))
            chosen[operation] = Chosen(known, self.dtype, self.plan)

    def _go_on(self, operation: str, answer: Looked, looker: Looker) -> None:
        """Tries the mistakes that there was no time for, on the smallest answer, and what is found on the others."""
        clock, known = Clock(self.left), self.known[operation]
        found, known.tried = looker.search(operation, clock, set(known.causes), known.tried)
        answer.matches.update(found)
        for other, its in self._all[operation]:
            if other is not answer and not clock.is_over:
                other.matches.update(its.matches([cause for cause in found if cause not in other.matches][:LATER]))
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
                tell = (tells or {})[result.case.id]
                (known.tell_right if result.right else known.tell_wrong)[result.case.id] = tell
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
        said = chosen.said_of_another(result.case.id)
        return replace(result, diagnosis=said or ([NOT_COMPARED] if chosen.order or chosen.by_factor else []))
