"""The report as text for a terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

from refllm.verify.explanation import below
from refllm.verify.law import Law
from refllm.verify.public_reports import reported
from refllm.verify.report import COLUMNS, Report, counts, grouped, notes, sentence, shown
from refllm.verify.reproduction import snippet
from refllm.verify.runner import Result, declare
from refllm.verify.verdict import Verdict

WIDTH = 80
_COLUMNS = {**COLUMNS, "failed": "FAILED"}
_DETAILS = 4  # wrong tensors of a case that the terminal shows
_LINKS = 3  # public reports that the terminal lists
_NAMES = 8  # functions that are not there, and cases of a group, that the terminal lists


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


def of_case(report: Report, result: Result) -> str:
    """What is wrong with one case, and what explains it."""
    return "\n".join(_case(report, result))


def _levels(report: Report) -> Iterator[str]:
    for level, name, all_results in report.levels():
        results = [result for result in all_results if not result.absent]
        if not results:
            continue
        words = [f"{n:>4} {_COLUMNS[key]}" for key, n in counts(results).items() if n]
        lead = f"  {level} {name:<11}"
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
            parts[-1] += _how_failed(report, operation) if key == "failed" else ""
    return ", ".join(parts)


def _how_failed(report: Report, operation: str) -> str:
    """How many cases fail without a wrong answer, which are not among those that are counted below: by an exception, or
    by a law alone."""
    kinds = Counter(result.status for result in report.results if result.case.operation == operation)
    found = [(kinds["fail"], "with a wrong answer"), (kinds["fault"], "without an answer"), (kinds["law"], "by a law")]
    there = [f"{n} {words}" for n, words in found if n]
    return f" ({', '.join(there)})" if there[1:] else ""


def _groups(first: Result, failures: list[Result]) -> Iterator[str]:
    """What differs in the dtype or by a convention alone, each kind in a sentence."""
    otherwise = [result for result in failures if not result.wrong and result is not first]
    for text, results in grouped(otherwise, _difference).items():
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
    from refllm.verify.summary import summary  # the bank is read where something fails

    return summary(failures, said=first.diagnosis)


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
    for laws in grouped_laws(result):
        more = f"; the same in {len(laws) - 1} more calls" if laws[1:] else ""
        lines += _wrapped("  ", f"{laws[0].name}: {laws[0].message}{more}")
    right = [verdict.name for verdict in result.verdicts if not verdict.wrong]
    if wrong and right:
        lines += _wrapped("  ", f"right: {', '.join(right[:6])}{', …' if right[6:] else ''}")
    if result.tap:
        lines += _wrapped("  ", result.tap)
    explained = result.diagnosis if result.wrong else result.diagnosis[1:]  # the convention is said already
    if explained:
        lines += ["", "  diagnosis:"]
    for line in explained:
        lines += _wrapped("  - ", line)
        lines += [f"      {text}" for text in below(line)]
    lines += _reports(report, result)
    return [*lines, "", "  see it again:", *_again(report, result), ""]


def grouped_laws(result: Result) -> list[list[Law]]:
    """The laws that it broke, those together of which the same is said but for numbers."""
    found: dict[tuple[str, str], list[Law]] = {}
    for law in result.broken:
        found.setdefault((law.name, law.message.partition(": ")[0]), []).append(law)
    return list(found.values())


def _again(report: Report, result: Result) -> list[str]:
    lines = snippet(report, result)
    return [f"    {line}" for each in lines for line in (_continued(each) if each.startswith("$ ") else [each])]


def _continued(command: str) -> list[str]:
    """A command line, in several lines where it is long, which a shell takes as one."""
    if len(command) <= WIDTH - 4 or "'" in command:  # where a blank may be part of a word
        return [command]
    lines = textwrap.wrap(
        command, WIDTH - 6, subsequent_indent="      ", break_on_hyphens=False, break_long_words=False
    )  # fmt: skip
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def _reports(report: Report, result: Result) -> list[str]:
    """Where mistakes were reported that fail this case, unless the diagnosis says one."""
    links = reported(report, result)
    return (
        ["", "  mistakes that fail this case were reported at", *(f"    {link}" for link in links[:_LINKS])]
        if links
        else []
    )


def _some(verdicts: list[Verdict]) -> list[str]:
    """A gradient, an intermediate: the first of each kind."""
    first = {verdict.name.partition(" ")[0]: verdict.name for verdict in reversed(verdicts)}
    return list(first.values())[::-1]


def _notes(report: Report) -> list[str]:
    """What was converted, once for each operation, and what was seen of laws, once for each law."""
    found: dict[str, list[str]] = {}
    for result in report.results:
        if result.cast:
            found.setdefault(result.case.operation, []).extend(result.cast)
    lines = [
        f"converted to {report.dtype} (--cast): {operation}: {', '.join(sorted(set(cast)))}"
        for operation, cast in found.items()
    ]
    for law, seen in notes(report.results).items():
        operations = list(dict.fromkeys(result.case.operation for result, _ in seen))
        first, example = seen[0]
        lines.append(f"note on {law}: {first.case.id}: {example.message}")
        if others := operations[1:]:
            lines[-1] += f"; the like of {', '.join(others[:_NAMES])}{', …' if others[_NAMES:] else ''}"
    return [line for text in lines for line in ["", *_wrapped("", text, "  ")]]


def _left_out(report: Report) -> list[str]:
    """Skipped cases by reason; those of functions that are not there are counted in the last line."""
    lines = list[str]()
    skipped = [result for result in report.results if result.status == "skip"]
    others = grouped((result for result in skipped if not result.absent), lambda result: result.reason)
    for reason, results in others.items():
        ids = ", ".join(result.case.id for result in results[:3]) + (", …" if results[3:] else "")
        lines += ["", *_wrapped("", f"skipped {len(results)}: {reason} ({ids})", "  ")]
    return lines


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
