"""Which cases a mistake gets wrong, and in what: the figures behind the notes of the golden files.

    found = kills(mutants.MUTANTS, cases, "float64", C)
    found["ATT/unscaled"].cases, found["ATT/unscaled"].effect

The kill matrix stops at the first case of a level. A note needs them all: somebody who has no diagnosis at hand looks
for the mistake that every failing case lists and that no passing case lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from refllm.verify import runner
from refllm.verify.case import Case
from refllm.verify.imitations import Imitations
from refllm.verify.mutants import Mutant

_NO_ANSWER = "answer"  # the part that is wrong where the mutant raises


@dataclass(frozen=True)
class Kill:
    """The cases that a mistake gets wrong, by level, and the parts that are wrong in any of the lowest level: in a
    training step a wrong gradient is a wrong value."""

    cases: list[Case]
    parts: frozenset[str]  # of "value", "gradient", "answer"

    @property
    def level(self) -> int:
        """The lowest level on which it dies."""
        return min(case.level for case in self.cases)


def kills(bank: Iterable[Mutant], cases: Iterable[Case], dtype: str, C: float) -> dict[str, Kill]:
    """The kill of each mutant of `bank` that dies at all: all cases of the lowest level on which it does, or, where it
    cites a public report, those of every level. A mutant that asks for a precision of its own is run in that."""
    ordered = sorted((case for case in cases if case.operation != "resume" and case.level), key=lambda case: case.level)
    calling: dict[str, list[Case]] = {}
    known = Imitations()
    for case in ordered:
        for mutant in known.relevant(case):
            calling.setdefault(mutant.id, []).append(case)
    found = {}
    for mutant in bank:
        kill = _kill(mutant, calling.get(mutant.id, []), dtype if mutant.dtype == "float64" else mutant.dtype, C)
        if kill is not None:
            found[mutant.id] = kill
    return found


def _kill(mutant: Mutant, cases: list[Case], dtype: str, C: float) -> Kill | None:
    wrong: list[Case] = []
    parts: set[str] = set()
    for case in cases:
        if wrong and case.level > wrong[0].level and mutant.issue is None:
            break
        here = set(_wrong_parts(mutant, case, dtype, C))
        wrong += [case] if here else []
        parts |= here if case.level == (wrong or [case])[0].level else set()
    return Kill(wrong, frozenset(parts)) if wrong else None


def _wrong_parts(mutant: Mutant, case: Case, dtype: str, C: float) -> Iterator[str]:
    if runner.unfit_for(case, dtype, C) is not None:
        return
    response = Imitations().response(mutant, case, dtype)  # forgotten at once: all of them together take gigabytes
    if response is None:
        yield _NO_ANSWER
        return
    for verdict in runner.judge(case, response, dtype, C):
        if verdict.wrong:
            yield "gradient" if verdict.name.startswith("gradient") else "value"
