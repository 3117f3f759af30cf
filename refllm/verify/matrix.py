"""The kill matrix: which mutant dies of which case on which level, and whether the diagnosis knows it again.

    table = measure(cases, "float64", C, known=Imitations(), whole=True)
    print(as_text(table))      json.dumps(as_data(table))

Whether a mutant is known again is read where a user reads it: in the first diagnosis of the report on its answers.
"""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from refllm.verify import diagnosis, mutants, reference, report, runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Case
from refllm.verify.explanation import Explanation
from refllm.verify.imitations import Imitations
from refllm.verify.mutants import Mutant

LEVELS = (1, 2, 3, 4, 5, 7)


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
    none_here: list[str] = field(default_factory=list)  # what is no mistake in the precision of the run

    @property
    def survivors(self) -> list[str]:
        return [death.mutant.id for death in self.deaths if not death.first]

    def named(self, rank: int) -> int:
        return sum(death.rank == rank for death in self.deaths)


def measure(
    cases: Iterable[Case],
    dtype: str,
    C: float,
    *,
    known: Imitations,
    whole: bool,
    every: bool = True,
    asked: Collection[str] | None = None,
) -> Table:
    """Runs every mutant on the cases that call what it imitates; `dtype` where a mutant asks for none of its own.

    A mutant of which no case calls that survives; unless `every`, it is left out, as where the cases are a choice. One
    that is no mistake in `dtype` is not run.
    Without `whole` a mutant is left after the first level on which it dies. That is all that its diagnosis looks at;
    what is missing is whether the levels above would find it too.

    `asked` holds the ids of the mutants that the diagnosis is asked about, if not all are. The others are left at the
    first case that they get wrong, and named nothing.
    """
    trial = _Trial(known, cases, dtype, C)
    chosen = [mutant for mutant in mutants.MUTANTS if every or trial.relevant[mutant.id]]
    bank = [mutant for mutant in chosen if dtype not in mutant.no_mistake_in]
    wanted = {mutant.id for mutant in bank} if asked is None else set(asked)
    failing = {mutant.id: trial.failing(mutant, whole, mutant.id in wanted) for mutant in bank}
    levels = {identity: found[0].level if found else 0 for identity, found in failing.items()}
    deaths = []
    for mutant in bank:
        first: dict[int, str] = {}
        for case in failing[mutant.id]:
            first.setdefault(case.level, case.id)
        peers = {other for other, level in levels.items() if level == levels[mutant.id]}
        applies = Counter(case.level for case in trial.relevant[mutant.id])
        named = trial.named(mutant, levels[mutant.id], peers) if first and mutant.id in wanted else []
        deaths.append(Death(mutant, first, {level: applies[level] for level in LEVELS}, named))
    return Table(deaths, [mutant.id for mutant in chosen if dtype in mutant.no_mistake_in])


class _Trial:
    """The bank on the cases of one run."""

    def __init__(self, known: Imitations, cases: Iterable[Case], dtype: str, C: float) -> None:
        self.known, self.dtype, self.C = known, dtype, C
        self.relevant: dict[str, list[Case]] = defaultdict(list)  # the cases that call what a mutant imitates, by level
        self._calls: set[tuple[str, str]] = set()  # the same pairs of mutant and case
        self._on_level: dict[int, list[Case]] = defaultdict(list)
        self._unharmed: dict[tuple[str, str], runner.Result] = {}
        self._unfit: dict[tuple[str, str], bool] = {}
        for case in sorted(cases, key=lambda case: case.level):
            if case.level in LEVELS and case.operation != "resume":
                self._on_level[case.level].append(case)
                for mutant in known.relevant(case):
                    self.relevant[mutant.id].append(case)
                    self._calls.add((mutant.id, case.id))

    def failing(self, mutant: Mutant, whole: bool, all_of_the_first: bool) -> list[Case]:
        """The cases that the mutant gets wrong: all of the first level on which it dies, or one alone; if `whole`, then
        one of each level above."""
        found: list[Case] = []
        for case in self.relevant[mutant.id]:
            if found and case.level == found[0].level and not all_of_the_first:
                continue
            if found and case.level > found[0].level:
                if not whole:
                    break
                if case.level == found[-1].level:
                    continue
            if self._wrong(mutant, case):
                found.append(case)
        return found

    def _dtype(self, mutant: Mutant) -> str:
        return mutant.dtype if mutant.dtype != "float64" else self.dtype

    def _fits(self, case: Case, dtype: str) -> bool:
        if (case.id, dtype) not in self._unfit:
            self._unfit[case.id, dtype] = runner.unfit_for(case, dtype, self.C) is not None
        return not self._unfit[case.id, dtype]

    def _wrong(self, mutant: Mutant, case: Case) -> bool:
        dtype = self._dtype(mutant)
        if not self._fits(case, dtype):
            return False
        response = self.known.response(mutant, case, dtype)
        return response is None or runner.is_wrong(case, response, dtype, self.C)

    def named(self, mutant: Mutant, level: int, peers: set[str]) -> list[str]:
        """The mutants that the report on this one names, best first, in the first diagnosis that it prints.

        Asked about are the peers alone, which die on the same level, with the cases of that level. One that dies on a
        higher level gets these cases right. One that dies on a lower level explains no more of them than this one,
        and right answers on the lower level put it behind.
        """
        dtype = self._dtype(mutant)
        results = [self._result(mutant, case, dtype) for case in self._on_level[level]]
        printed = report.shown(diagnosis.diagnosed(results, dtype, self.known, peers))
        first = next((result.diagnosis for result in printed if result.diagnosis), [])
        causes = [line.cause for line in first if isinstance(line, Explanation)]
        return [cause.id for cause in causes if isinstance(cause, Mutant)]

    def _result(self, mutant: Mutant, case: Case, dtype: str) -> runner.Result:
        """What the report says of a mutant on a case."""
        if (mutant.id, case.id) in self._calls and self._fits(case, dtype):
            response = self.known.response(mutant, case, dtype)
            if response is None:
                return runner.Result(case, "error", "the mutant raised")
            return runner.judged(case, response, dtype, self.C)
        if (case.id, dtype) not in self._unharmed:
            own = Functions("refllm", reference.functions(), {})
            self._unharmed[case.id, dtype] = next(runner.run(own, [case], dtype, self.C))
        return self._unharmed[case.id, dtype]


def as_data(table: Table) -> dict[str, Any]:
    """For --json."""
    return {
        "mutants": len(table.deaths),
        "killed": len(table.deaths) - len(table.survivors),
        "named_first": table.named(1),
        "named_second": table.named(2),
        "survivors": table.survivors,
        "none_in_this_dtype": table.none_here,
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
    lines = [f"{'mutant':<42}L123457 first failing case"]
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
    lines += [f"no mistake in this precision: {identity}" for identity in table.none_here]
    return "\n".join(lines) + "\n"
