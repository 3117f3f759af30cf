"""The kill matrix: which mutant dies of which case on which level, and whether the diagnosis knows it again.

    table = measure(cases, "float64", C)      print(as_text(table))      json.dumps(as_data(table))

A mutant is known again blindly: its answers, computed in float32, are compared with what every mutant of the bank
answers in float64, and the mutants are ranked by how many of the wrong answers they explain, and how many of the right
answers they would have got wrong.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from refllm.verify import mutants, runner
from refllm.verify.case import Case
from refllm.verify.imitations import Imitations
from refllm.verify.mutants import Mutant

LEVELS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Death:
    """Where a mutant dies, level -> the first case that fails; and what the diagnosis takes it for, best first."""

    mutant: Mutant
    first: dict[int, str]
    applies: dict[int, int]  # level -> cases that call what the mutant imitates
    named: list[str]

    @property
    def rank(self) -> int | None:
        """1 if the diagnosis names the mutant first; None if it is not among those named."""
        return self.named.index(self.mutant.id) + 1 if self.mutant.id in self.named else None


@dataclass(frozen=True)
class Table:
    deaths: list[Death]

    @property
    def survivors(self) -> list[str]:
        return [death.mutant.id for death in self.deaths if not death.first]

    def named(self, rank: int) -> int:
        return sum(death.rank == rank for death in self.deaths)


def measure(cases: Iterable[Case], dtype: str, C: float) -> Table:
    """Runs every mutant on the cases that call what it imitates; `dtype` where a mutant asks for none of its own."""
    known = Imitations()
    relevant = _relevant(known, cases)
    failing = {mutant.id: _failing(known, mutant, relevant[mutant.id], dtype, C) for mutant in mutants.MUTANTS}
    levels = {identity: min((c.level for c in found), default=0) for identity, found in failing.items()}
    deaths = []
    for mutant in mutants.MUTANTS:
        wrong, on = failing[mutant.id], relevant[mutant.id]
        first: dict[int, str] = {}
        for case in wrong:
            first.setdefault(case.level, case.id)
        peers = [m for m in mutants.MUTANTS if levels[m.id] == levels[mutant.id]]
        named = _named(known, mutant, peers, failing, relevant) if wrong else []
        deaths.append(Death(mutant, first, {level: sum(c.level == level for c in on) for level in LEVELS}, named))
    return Table(deaths)


def survivors(cases: Iterable[Case], dtype: str, C: float) -> list[str]:
    """The mutants that no case tells from refllm. As `measure`, but it leaves a mutant at its first death."""
    known = Imitations()
    relevant = _relevant(known, cases)
    found = []
    for mutant in mutants.MUTANTS:
        used = mutant.dtype if mutant.dtype != "float64" else dtype
        fit = (case for case in relevant[mutant.id] if runner.unfit_for(case, used, C) is None)
        if not any(_wrong(known, mutant, case, used, C) for case in fit):
            found.append(mutant.id)
    return found


def _relevant(known: Imitations, cases: Iterable[Case]) -> dict[str, list[Case]]:
    """The cases that call what a mutant imitates, in the order of their levels."""
    relevant: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.level):
        if case.level in LEVELS and case.operation != "resume":
            for mutant in known.relevant(case):
                relevant[mutant.id].append(case)
    return relevant


def _failing(known: Imitations, mutant: Mutant, cases: list[Case], dtype: str, C: float) -> list[Case]:
    """The cases that the mutant gets wrong: all of the first level on which it dies, then one of each level above."""
    found: list[Case] = []
    used = mutant.dtype if mutant.dtype != "float64" else dtype
    for case in cases:
        if found and case.level > found[0].level and any(c.level == case.level for c in found):
            continue
        if runner.unfit_for(case, used, C) is None and _wrong(known, mutant, case, used, C):
            found.append(case)
    return found


def _wrong(known: Imitations, mutant: Mutant, case: Case, dtype: str, C: float) -> bool:
    response = known.response(mutant, case, dtype)
    return response is None or any(verdict.wrong for verdict in runner.judge(case, response, dtype, C))


def _named(
    known: Imitations, mutant: Mutant, peers: list[Mutant], failing: dict[str, list[Case]],
    relevant: dict[str, list[Case]],
) -> list[str]:  # fmt: skip
    """The mutants that explain the answers of this one, best first.

    A mutant that dies on a lower level is none: its cases there have passed. One that dies on a higher level is none:
    it gets these cases right.
    """
    level = failing[mutant.id][0].level
    wrong = [case for case in failing[mutant.id] if case.level == level]
    right = {case.id for case in relevant[mutant.id] if case.level == level} - {case.id for case in wrong}
    ranked = []
    for order, peer in enumerate(peers):
        on = {case.id for case in relevant[peer.id]}
        explained = 0
        for case in wrong:
            if case.id in on and (got := known.response(mutant, case, "float32")) is not None:
                explained += known.equal(case, got, peer, "float32")
        contradicted = sum(case.id in right for case in failing[peer.id])
        if explained:
            ranked.append((-explained, contradicted, order, peer.id))
    return [identity for *_, identity in sorted(ranked)]


def as_data(table: Table) -> dict[str, Any]:
    """For --json."""
    return {
        "mutants": len(table.deaths),
        "killed": len(table.deaths) - len(table.survivors),
        "named_first": table.named(1),
        "named_second": table.named(2),
        "survivors": table.survivors,
        "equivalent": {e.id: {"about": e.about, "proof": e.proof} for e in mutants.EQUIVALENT},
        "matrix": {death.mutant.id: _entry(death) for death in table.deaths},
    }


def _entry(death: Death) -> dict[str, Any]:
    return {
        "about": death.mutant.about,
        "issue": death.mutant.issue,
        "dtype": death.mutant.dtype,
        "first_failing": {f"L{level}": case for level, case in death.first.items()},
        "named": death.named[:2],
    }


def as_text(table: Table) -> str:
    """A line a mutant: x dies, o lives, . no case calls it; then the first case that fails and what it is taken for."""
    lines = [f"{'mutant':<42}L12345 first failing case"]
    for death in table.deaths:
        marks = "".join("x" if level in death.first else "o" if death.applies[level] else "." for level in LEVELS)
        lines.append(f"{death.mutant.id:<43}{marks} {next(iter(death.first.values()), 'SURVIVES')}")
        if death.rank != 1:
            lines.append(f"{'':<43}taken for {' or '.join(death.named[:2]) or 'nothing'}")
    lines += ["", "equivalent: changes that are no mistakes"]
    for same in mutants.EQUIVALENT:
        lines += textwrap.wrap(f"{same.id}: {same.about}. {same.proof}", 80, subsequent_indent="  ")
    killed = len(table.deaths) - len(table.survivors)
    lines += ["", f"{len(table.deaths)} mutants, {killed} killed"]
    lines.append(f"the diagnosis names {table.named(1)} first and {table.named(2)} second")
    lines += [f"survivor: {identity}" for identity in table.survivors]
    return "\n".join(lines) + "\n"
