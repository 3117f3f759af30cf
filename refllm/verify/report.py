"""Results as text for a terminal and as data for programs."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from refllm.verify.runner import Result
from refllm.verify.verdict import Verdict

WIDTH = 80
LEVELS = {
    0: "loader", 1: "operations", 2: "blocks", 3: "models", 4: "training", 5: "generation", 6: "resuming",
}  # fmt: skip
_DETAILS = 4  # wrong tensors of a case that the terminal shows


@dataclass(frozen=True)
class Report:
    """All results of a run, and what it was a run of."""

    implementation: str
    call: str  # the command line that names the implementation: "my_adapter.py", "--self"
    dtype: str
    C: float
    spec_version: str
    results: list[Result]

    def count(self, *status: str) -> int:
        return sum(result.status in status for result in self.results)

    @property
    def ran(self) -> int:
        """Cases of which something was judged, or tried."""
        return sum(result.status != "skip" or bool(result.verdicts) for result in self.results)

    @property
    def worst(self) -> tuple[float, str] | None:
        """The largest finite error / tolerance and its case."""
        found = [(r.ratio, r.case.id) for r in self.results if r.ratio is not None and math.isfinite(r.ratio)]
        return max(found, default=None)

    def failures(self) -> dict[str, list[Result]]:
        """Failed results by operation, in the order of the levels."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            if result.failed:
                found.setdefault(result.case.operation, []).append(result)
        return found

    def skipped(self) -> dict[str, list[Result]]:
        """Skipped results by their reason."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            if result.status == "skip":
                found.setdefault(result.reason, []).append(result)
        return found


def shown(results: Iterable[Result]) -> Iterator[Result]:
    """The failures that the terminal shows in full: the first of each operation."""
    seen = set[str]()
    for result in results:
        if result.failed and result.case.operation not in seen:
            seen.add(result.case.operation)
            yield result


def as_data(report: Report) -> dict[str, Any]:
    """The report for programs. A ratio is null where none could be formed: NaN, a wrong shape, nothing judged."""
    return {
        "implementation": report.implementation,
        "dtype": report.dtype,
        "spec_version": report.spec_version,
        "C": report.C,
        "cases": len(report.results),
        "passed": report.count("pass"),
        "failed": report.count("fail", "error"),
        "skipped": report.count("skip"),
        "worst_ratio": report.worst[0] if report.worst else None,
        "results": {result.case.id: _result_data(result) for result in report.results},
    }


def _result_data(result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "status": result.status,
        "ratio": _finite(result.ratio),
        "diagnosis": result.diagnosis,
        "reason": result.reason,
        "level": case.level,
        "spec": case.spec,
        "operation": case.operation,
        "wrong": [
            {
                "tensor": verdict.name,
                "kind": verdict.wrong,
                "message": verdict.message,
                "index": list(verdict.worst.index) if verdict.worst else None,
                "got": _finite(verdict.worst.got) if verdict.worst else None,
                "truth": _finite(verdict.worst.truth) if verdict.worst else None,
                "ratio": _finite(verdict.ratio),
                "ulp": _finite(verdict.worst.ulp) if verdict.worst else None,
            }
            for verdict in result.verdicts
            if verdict.wrong
        ],
        "tap": result.tap,
    }


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None


def as_text(report: Report) -> str:
    """The report for a terminal of 80 columns: a line a level, each operation that fails, what was left out."""
    lines = [f"{report.implementation} in {report.dtype}, golden files {report.spec_version}", ""]
    lines += _levels(report)
    for result in shown(report.results):
        lines += ["", *_operation(report, result, report.failures()[result.case.operation])]
    lines += _left_out(report)
    return "\n".join([*lines, "", *_conclusion(report)]) + "\n"


def _levels(report: Report) -> Iterator[str]:
    for level, name in LEVELS.items():
        results = [result for result in report.results if result.case.level == level]
        if not results:
            continue
        counts = Counter("failed" if result.failed else result.status for result in results)
        words = [f"{counts[key]:>4} {word}" for key, word in _WORDS.items() if counts[key]]
        yield f"  L{level} {name:<11}{'  '.join(words)}"


_WORDS = {"pass": "passed", "failed": "FAILED", "skip": "skipped"}


def _operation(report: Report, first: Result, failures: list[Result]) -> list[str]:
    operation = first.case.operation
    all_of_it = [result for result in report.results if result.case.operation == operation]
    head = f"{operation}: {len(failures)} of {len(all_of_it)} cases fail"
    lines = [head, "-" * len(head), *_case(report, first)]
    more = [result for result in failures if result is not first]
    if more:
        lines += _wrapped("also ", ", ".join(result.case.id for result in more))
    for line in _otherwise(first, failures):
        lines += _wrapped("  - ", line)
    return lines


def _otherwise(first: Result, failures: list[Result]) -> list[str]:
    """What explains the failures that nothing said of the first one does."""
    from refllm.verify import diagnosis  # the bank of mutants, of which a run without failures needs nothing

    return diagnosis.summary(failures, said=first.diagnosis)


def _case(report: Report, result: Result) -> list[str]:
    case = result.case
    lines = _wrapped("", f"{case.id}: {case.about} (specification {case.spec}, {case.section})")
    if result.reason:
        lines += _wrapped("  ", result.reason)
    wrong = [verdict for verdict in result.verdicts if verdict.wrong]
    for verdict in wrong[:_DETAILS]:
        lines += _wrapped("  ", verdict.message)
    if wrong[_DETAILS:]:
        lines += _wrapped("  ", f"and {len(wrong) - _DETAILS} more, such as {', '.join(_some(wrong[_DETAILS:]))}")
    right = [verdict.name for verdict in result.verdicts if not verdict.wrong]
    if wrong and right:
        lines += _wrapped("  ", f"right: {', '.join(right[:6])}{', …' if right[6:] else ''}")
    if result.tap:
        lines += _wrapped("  ", result.tap)
    if result.diagnosis:
        lines.append("  diagnosis:")
    for line in result.diagnosis:
        lines += _wrapped("  - ", line)
    return [*lines, *(f"    {line}" for line in snippet(report, result))]


def _some(verdicts: list[Verdict]) -> list[str]:
    """A gradient, a tap: the first of each kind."""
    first = {verdict.name.partition(" ")[0]: verdict.name for verdict in reversed(verdicts)}
    return list(first.values())[::-1]


def snippet(report: Report, result: Result) -> list[str]:
    """How to see a failure again: the command, and for a Python module the call."""
    case = result.case
    dtype = "" if report.dtype == "float64" else f" --dtype {report.dtype}"
    lines = [f"$ refllm verify {report.call}{dtype} --only {case.id}"]
    if not report.call.endswith(".py") or case.operation == "resume":
        return lines
    module = report.call.rpartition("/")[2].removesuffix(".py")
    back = [f'print(back(*case.pull("{report.dtype}")))'] if case.gradients else []
    return [
        *lines,
        ">>> from refllm.verify import corpus",
        f">>> import {module}",
        f'>>> case = corpus.load(corpus.folder(None)).cases["{case.id}"]',
        f">>> {'y, back' if back else 'y'} = {module}.{case.operation}(",
        f'...     *case.arguments("{report.dtype}"), **case.keyword_arguments())',
        *(f">>> {line}" for line in ["print(y, case.outputs)", *back]),
    ]


def _left_out(report: Report) -> list[str]:
    """Skipped cases by reason; the functions that are not there in one sentence."""
    absent = {reason: results for reason, results in report.skipped().items() if " has no function " in reason}
    others = {reason: results for reason, results in report.skipped().items() if reason not in absent}
    lines = []
    if absent:
        names = ", ".join(reason.rpartition(" ")[2] for reason in absent)
        count = sum(len(results) for results in absent.values())
        lines += ["", *_wrapped("", f"skipped {count}: {report.implementation} has no function {names}", "  ")]
    for reason, results in others.items():
        ids = ", ".join(result.case.id for result in results[:3]) + (", …" if results[3:] else "")
        lines += ["", *_wrapped("", f"skipped {len(results)}: {reason} ({ids})", "  ")]
    return lines


def _conclusion(report: Report) -> list[str]:
    passed, failed, skipped = report.count("pass"), report.count("fail", "error"), report.count("skip")
    parts = [f"{passed} passed"] + [f"{n} {word}" for n, word in ((failed, "failed"), (skipped, "skipped")) if n]
    lines = [f"{len(report.results)} cases: {', '.join(parts)}."]
    if report.worst and not failed:
        ratio, case = report.worst
        lines.append(f"Worst error: {ratio:.2g} of the tolerance ({case}).")
    return lines


def _wrapped(first: str, text: str, more: str | None = None) -> list[str]:
    rest = " " * len(first) if more is None else more
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )
