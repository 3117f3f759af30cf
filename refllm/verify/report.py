"""Results as text for a terminal and as data for programs."""

from __future__ import annotations

import math
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from refllm.invocation import typed
from refllm.verify import corpus, notes
from refllm.verify.runner import Result, declare
from refllm.verify.verdict import Verdict

WIDTH = 80
LEVELS = {
    0: "loader", 1: "operations", 2: "blocks", 3: "models", 4: "training", 5: "generation", 6: "resuming",
}  # fmt: skip
KINDS = {
    "pass": "PASS", "value": "VALUE", "convention": "CONVENTION", "dtype": "DTYPE", "fail": "FAIL", "fault": "FAULT",
    "skip": "SKIP",
}  # fmt: skip  # the verdict on a case, for programs
COUNTED = {"passed": ("pass",), "value_only": ("value",), "failed": ("fail", "fault"), "dtype": ("dtype",),
           "convention": ("convention",), "skipped": ("skip",)}  # fmt: skip
_COLUMNS = {"passed": "passed", "value_only": "value only", "failed": "FAILED", "dtype": "other dtype",
            "convention": "by convention", "skipped": "skipped"}  # fmt: skip
_SENTENCE = {"passed": "passed", "value_only": "passed in value, with no gradient given", "failed": "failed",
             "dtype": "of another dtype", "convention": "differ by a convention", "skipped": "skipped"}  # fmt: skip
_DETAILS = 4  # wrong tensors of a case that the terminal shows
_LINKS = 3  # public reports that the terminal lists
_NAMES = 8  # functions that are not there, and cases of a group, that the terminal lists


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

    def count(self, *status: str) -> int:
        return sum(result.status in status for result in self.results)

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
        found: dict[str, list[Result]] = {}
        for result in self.results:
            if result.failed:
                found.setdefault(result.case.operation, []).append(result)
        return {name: sorted(results, key=_gravity) for name, results in found.items()}

    def skipped(self) -> dict[str, list[Result]]:
        """Skipped results by their reason."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            if result.status == "skip":
                found.setdefault(result.reason, []).append(result)
        return found


def _gravity(result: Result) -> int:
    return {"fail": 0, "fault": 0, "dtype": 1}.get(result.status, 2)


def counts(results: Iterable[Result]) -> dict[str, int]:
    """How many results there are of each kind; they add up to all."""
    found = Counter(result.status for result in results)
    return {name: sum(found[status] for status in kinds) for name, kinds in COUNTED.items()}


def shown(results: Iterable[Result]) -> list[Result]:
    """The failures that the terminal shows in full: of each operation the first that is wrong, or else differs."""
    first: dict[str, Result] = {}
    for result in results:
        operation = result.case.operation
        if result.failed and (operation not in first or _gravity(result) < _gravity(first[operation])):
            first[operation] = result
    return list(first.values())


def as_data(report: Report) -> dict[str, Any]:
    """The report for programs. A ratio is null where none could be formed: NaN, a wrong shape, nothing judged."""
    return {
        "implementation": report.implementation,
        "dtype": report.dtype,
        "spec_version": report.spec_version,
        "C": report.C,
        "cases": len(report.results),
        **counts(report.results),
        "worst_ratio": report.worst[0] if report.worst else None,
        "operations": _operations_data(report),
        "results": {
            result.case.id: {**_result_data(result), "links": _links(report, result)} for result in report.results
        },
    }


def _operations_data(report: Report) -> dict[str, dict[str, int]]:
    """The counts of each operation."""
    found: dict[str, list[Result]] = {}
    for result in report.results:
        found.setdefault(result.case.operation, []).append(result)
    return {name: {"cases": len(results), **counts(results)} for name, results in found.items()}


def _result_data(result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "status": result.status,
        "verdict": KINDS[result.status],
        "ratio": _finite(result.ratio),
        "diagnosis": result.diagnosis,
        "diff": next((text for text in map(diff_of, result.diagnosis) if text), []),
        "issue": next((text for text in map(issue_of, result.diagnosis) if text), None),
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
        "cast": result.cast,
        "passes_alone": result.alone,
    }


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None


def as_text(report: Report) -> str:
    """The report for a terminal of 80 columns: a line a level, each operation that fails, what was left out."""
    lines = [f"{report.implementation} in {report.dtype}, golden files {report.spec_version}", ""]
    lines += _levels(report)
    failures = report.failures()
    for result in shown(report.results):
        lines += ["", *_operation(report, result, failures[result.case.operation])]
    lines += _notes(report)
    lines += _left_out(report)
    return "\n".join([*lines, "", *_conclusion(report)]) + "\n"


def _levels(report: Report) -> Iterator[str]:
    for level, name in LEVELS.items():
        results = [result for result in report.results if result.case.level == level]
        if results:
            words = [f"{n:>4} {_COLUMNS[key]}" for key, n in counts(results).items() if n]
            lead = f"  L{level} {name:<11}"
            for start in range(0, len(words), 4):
                yield f"{lead if not start else ' ' * len(lead)}{'  '.join(words[start : start + 4])}"


def _operation(report: Report, first: Result, failures: list[Result]) -> list[str]:
    operation = first.case.operation
    head = f"{operation}: {_summary_of(report, operation)}"
    lines = [head, "-" * min(len(head), WIDTH), *_case(report, first)]
    wrong = [result for result in failures if result.wrong]
    if more := [result for result in wrong if result is not first]:
        lines += _wrapped("also ", ", ".join(result.case.id for result in more))
    for line in _otherwise(first, wrong):
        lines += _wrapped("  - ", line)
        lines += [f"      {text}" for text in below(line)]
    return lines + [line for group in _groups(first, failures) for line in _wrapped("", group, "  ")]


def _summary_of(report: Report, operation: str) -> str:
    """3 of 12 cases fail, 2 differ by a convention"""
    found = counts(result for result in report.results if result.case.operation == operation)
    total, parts = sum(found.values()), list[str]()
    for key, words in (("failed", "fail"), ("dtype", "of another dtype"), ("convention", "differ by a convention")):
        if n := found[key]:
            parts.append(f"{n} {words}" if parts else f"{n} of {total} cases {words}")
    return ", ".join(parts)


def _groups(first: Result, failures: list[Result]) -> Iterator[str]:
    """What differs in the dtype or by a convention alone, each kind in a sentence."""
    found: dict[str, list[Result]] = {}
    for result in failures:
        if not result.wrong and result is not first:
            found.setdefault(_difference(result), []).append(result)
    for text, results in found.items():
        yield f"{len(results)} more {'case' if results[1:] == [] else 'cases'} ({_ids(results)}): {text}"


def _difference(result: Result) -> str:
    if result.status == "convention":
        return declare(result.case, result.reason)
    kinds = [v.message.partition(" has the wrong dtype: ")[2] for v in result.verdicts if v.wrong]
    return f"the numbers are right, the dtype is not: {', '.join(dict.fromkeys(kinds))} (--cast converts)"


def _ids(results: list[Result]) -> str:
    return ", ".join(result.case.id for result in results[:_NAMES]) + (", …" if results[_NAMES:] else "")


def _otherwise(first: Result, failures: list[Result]) -> list[str]:
    """What explains the failures that nothing said of the first one does."""
    if not failures:
        return []
    from refllm.verify import diagnosis  # the bank of mutants, of which a run without failures needs nothing

    return diagnosis.summary(failures, said=first.diagnosis)


def _case(report: Report, result: Result) -> list[str]:
    case = result.case
    lines = _wrapped("", f"{case.id}: {case.about} (specification {case.spec}, {case.section})")
    if result.status == "fault":
        lines += _wrapped("  ", result.reason)
    if result.status in ("dtype", "convention"):
        lines += _wrapped("  ", _difference(result))
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
    explained = result.diagnosis if result.wrong else result.diagnosis[1:]  # the convention is said already
    if explained:
        lines.append("  diagnosis:")
    for line in explained:
        lines += _wrapped("  - ", line)
        lines += [f"      {text}" for text in below(line)]
    lines += [text for line in _reports(report, result) for text in _wrapped("  ", line)]
    return [*lines, *(f"    {line}" for line in snippet(report, result))]


def _reports(report: Report, result: Result) -> list[str]:
    """Where mistakes were reported that fail this case, unless the diagnosis says one."""
    links = reported(report, result)
    return [f"mistakes that fail this case were reported at {' '.join(links[:_LINKS])}"] if links else []


def reported(report: Report, result: Result) -> list[str]:
    """Public reports of mistakes that fail this case, unless the diagnosis says one."""
    return [] if any(map(issue_of, result.diagnosis)) else _links(report, result)


def _links(report: Report, result: Result) -> list[str]:
    """Public reports of mistakes that fail this case and that no right answer contradicts."""
    if not result.wrong:
        return []
    passed = {each.case.id for each in report.results if each.status == "pass"}
    value_right = not any(verdict.wrong and verdict.name.startswith("output") for verdict in result.verdicts)
    known = notes.read(corpus.folder(report.golden))
    return known.links(result.case.id, passed, value_right)


def diff_of(line: str) -> list[str]:
    """The edit of the specification that a line of a diagnosis speaks of: its place, what goes, what comes."""
    return [text for place, lines in getattr(line, "diff", []) for text in (place, *lines)]


def issue_of(line: str) -> str | None:
    """Where somebody made the mistake in public that a line of a diagnosis speaks of."""
    return getattr(line, "issue", None)


def below(line: str) -> list[str]:
    """What stands below a line of a diagnosis: the edit of the specification, and the public report."""
    issue = issue_of(line)
    return [*diff_of(line), *([f"as in {issue}"] if issue else [])]


def _some(verdicts: list[Verdict]) -> list[str]:
    """A gradient, an intermediate: the first of each kind."""
    first = {verdict.name.partition(" ")[0]: verdict.name for verdict in reversed(verdicts)}
    return list(first.values())[::-1]


def snippet(report: Report, result: Result) -> list[str]:
    """How to see a failure again: the command, and for a Python module the call."""
    case = result.case
    dtype = "" if report.dtype == "float64" else f" --dtype {report.dtype}"
    command = f"$ {typed()} verify {report.call}{dtype}{report.flags}"
    if result.alone:
        return [
            "alone this case passes: it fails after an earlier call, of which something is left",
            f"{command}{report.chosen}",
        ]
    [*_, last] = shlex.split(report.call) or [""]
    lines = [f"{command} --only {case.id}"]
    if not last.endswith(".py") or report.call.startswith("--") or case.operation == "resume":
        return lines
    return [*lines, *_call(report, result, last)]


def _call(report: Report, result: Result, path: str) -> list[str]:
    """The call in Python, whatever the file is called and wherever it lies."""
    case = result.case
    folder = "None" if report.golden is None else repr(report.golden)
    mine = {name: value for name, value in report.declared.items() if name in case.conventions}
    pulled = result.response is not None and result.response.gradients is not None
    pulled = pulled or f"{case.operation}'s pullback" in result.reason
    back = [f'print(returned[1](*case.pull("{report.dtype}")), case.gradients)'] if pulled else []
    return [
        ">>> from refllm.verify import adapter, corpus",
        f">>> mine = adapter.from_file({path!r})",
        f'>>> case = corpus.load(corpus.folder({folder})).cases["{case.id}"]',
        *([f">>> case = case.under({mine!r})"] if mine else []),
        f'>>> returned = mine.function("{case.operation}", "{report.dtype}")(',
        f'...     *case.arguments("{report.dtype}"), **case.keyword_arguments())',
        *(f">>> {line}" for line in ["print(returned, case.outputs)", *back]),
    ]


def _notes(report: Report) -> list[str]:
    """What was converted, once for each operation."""
    found: dict[str, list[str]] = {}
    for result in report.results:
        if result.cast:
            found.setdefault(result.case.operation, []).extend(result.cast)
    lines = [
        f"converted to {report.dtype} (--cast): {operation}: {', '.join(sorted(set(cast)))}"
        for operation, cast in found.items()
    ]
    return [line for text in lines for line in ["", *_wrapped("", text, "  ")]]


def _left_out(report: Report) -> list[str]:
    """Skipped cases by reason; the functions that are not there in one sentence."""
    absent = {reason: results for reason, results in report.skipped().items() if " has no function " in reason}
    others = {reason: results for reason, results in report.skipped().items() if reason not in absent}
    lines = []
    if absent:
        names = [reason.rpartition(" ")[2] for reason in absent]
        count = sum(len(results) for results in absent.values())
        listed = ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if names[_NAMES:] else "")
        lines += ["", *_wrapped("", f"skipped {count}: {report.implementation} has no function {listed}", "  ")]
    for reason, results in others.items():
        ids = ", ".join(result.case.id for result in results[:3]) + (", …" if results[3:] else "")
        lines += ["", *_wrapped("", f"skipped {len(results)}: {reason} ({ids})", "  ")]
    return lines


def sentence(report: Report) -> str:
    """583 cases: 570 passed, 13 skipped."""
    found = counts(report.results)
    parts = [f"{n} {_SENTENCE[key]}" for key, n in found.items() if n or key == "passed"]
    return f"{len(report.results)} cases: {', '.join(parts)}."


def _conclusion(report: Report) -> list[str]:
    lines = _wrapped("", sentence(report))
    if report.worst and not any(result.failed for result in report.results):
        ratio, case = report.worst
        lines.append(f"Worst error: {ratio:.2g} of the tolerance ({case}).")
    return lines


def _wrapped(first: str, text: str, more: str | None = None) -> list[str]:
    rest = " " * len(first) if more is None else more
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )
