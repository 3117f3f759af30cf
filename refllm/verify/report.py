"""The results of a run: how many are right, and what fails.

`report_text` shows them on a terminal, `report_data` gives them to programs, `pages` writes them into files.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from refllm.verify.law import Law
from refllm.verify.runner import Result

LEVELS = {
    0: "loader", 1: "operations", 2: "blocks", 3: "models", 4: "training", 5: "generation", 6: "resuming",
    7: "parallel shards",
}  # fmt: skip
KINDS = {
    "pass": "PASS", "value": "VALUE", "convention": "CONVENTION", "dtype": "DTYPE", "fail": "FAIL", "fault": "FAULT",
    "law": "LAW", "skip": "SKIP",
}  # fmt: skip  # the verdict on a case, for programs
_COUNTED = {"passed": ("pass",), "value_only": ("value",), "failed": ("fail", "fault", "law"), "dtype": ("dtype",),
            "convention": ("convention",), "skipped": ("skip",)}  # fmt: skip
COLUMNS = {"passed": "passed", "value_only": "value only", "failed": "failed", "dtype": "other dtype",
           "convention": "by convention", "skipped": "skipped"}  # fmt: skip
_SENTENCE = {"passed": "passed", "value_only": "passed in value, with no gradient given", "failed": "failed",
             "dtype": "of another dtype", "convention": "differ by a convention", "skipped": "skipped"}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """All results of a run, and what it was a run of."""

    implementation: str
    call: str  # the command line that names the implementation: "my_adapter.py", "--self"
    dtype: str
    C: float
    spec_version: str
    results: list[Result]
    flags: str = ""  # what else of the command line a repetition needs: " --values"
    chosen: str = ""  # what chose the cases: " --level 1"
    golden: str | None = None  # the folder of the golden files, if one was chosen
    declared: Mapping[str, str] = field(default_factory=dict)  # the conventions of the implementation

    @property
    def ran(self) -> int:
        """Cases of which something was judged, or tried."""
        return sum(result.status != "skip" for result in self.results)

    @property
    def worst(self) -> tuple[float, str] | None:
        """The largest finite error / tolerance and its case."""
        found = [(r.ratio, r.case.id) for r in self.results if r.ratio is not None and math.isfinite(r.ratio)]
        return max(found, default=None)

    def failures(self) -> dict[str, list[Result]]:
        """Failed results by operation, in the order of the levels; what is wrong before what differs otherwise."""
        found = by_operation(result for result in self.results if result.failed)
        return {name: sorted(results, key=_gravity) for name, results in found.items()}

    def levels(self) -> Iterator[tuple[str, str, list[Result]]]:
        """The levels that have results: L1, operations, and these."""
        for level, name in LEVELS.items():
            results = [result for result in self.results if result.case.level == level]
            if results:
                yield f"L{level}", name, results


def _gravity(result: Result) -> int:
    return {"fail": 0, "fault": 0, "law": 1, "dtype": 2}.get(result.status, 3)


def grouped(results: Iterable[Result], key: Callable[[Result], str]) -> dict[str, list[Result]]:
    """The results by something said of each, in the order in which it is said first."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(key(result), []).append(result)
    return found


def by_operation(results: Iterable[Result]) -> dict[str, list[Result]]:
    return grouped(results, lambda result: result.case.operation)


def counts(results: Iterable[Result]) -> dict[str, int]:
    """How many results there are of each kind; they add up to all."""
    found = Counter(result.status for result in results)
    return {name: sum(found[status] for status in kinds) for name, kinds in _COUNTED.items()}


def notes(results: Iterable[Result]) -> dict[str, list[tuple[Result, Law]]]:
    """What was seen of laws that fails no case, by law: the last bits of a second call, NaN where nothing counts."""
    found: dict[str, list[tuple[Result, Law]]] = {}
    for result in results:
        for law in result.laws:
            if not law.broken:
                found.setdefault(law.name, []).append((result, law))
    return found


def shown(results: Iterable[Result]) -> list[Result]:
    """The failures that the terminal shows in full: of each operation the first that is wrong, or else differs."""
    first: dict[str, Result] = {}
    for result in results:
        operation = result.case.operation
        if result.failed and (operation not in first or _gravity(result) < _gravity(first[operation])):
            first[operation] = result
    return list(first.values())


def sentence(report: Report) -> str:
    """583 cases: 570 passed, 13 skipped. What there is no function for is counted apart."""
    there = [result for result in report.results if not result.absent]
    parts = [f"{n} {_SENTENCE[key]}" for key, n in counts(there).items() if n or key == "passed"]
    absent = len(report.results) - len(there)
    rest = f" {absent} more are of operations that {report.implementation} does not have." if absent else ""
    return f"{len(there)} cases: {', '.join(parts)}.{rest}"
