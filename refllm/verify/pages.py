"""Results as files: JUnit for a build server, and a page to read."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from refllm.page import box, code, escaped, page, replace, replace_page, table
from refllm.verify.explanation import below, diff_of, issue_of
from refllm.verify.public_reports import reported
from refllm.verify.report import COLUMNS, KINDS, Report, by_operation, counts, grouped, notes, sentence
from refllm.verify.reproduction import snippet
from refllm.verify.runner import Result

JUNIT_START = b"<?xml"
_WEB = re.compile(r"https?://\S+")

STYLE = """
.case { border-left: 4px solid var(--bad); padding-left: 1rem; margin: .8rem 0; }
.case > summary { font-weight: 600; }
.diagnosis, .explained { background: var(--soft); border-radius: .3rem; padding: .6rem .9rem; margin: .8rem 0; }
.diagnosis h3 { margin-top: 0; } .diagnosis pre, .explained pre { background: var(--paper); }
.explained { list-style: none; } .case li, .diagnosis li, .explained li { margin: .2rem 0; }
@media (max-width: 30rem) { .case { padding-left: .6rem; } ul { padding-left: 1.1rem; } .explained { padding: .6rem; } }
"""


def write_junit(path: Path, *reports: Report) -> None:
    """A test suite for each level, a test case for each case; of several reports, each has suites of its own."""
    root = ET.Element("testsuites", name="refllm verify")
    for report in reports:
        whose = f"{report.call} {report.dtype} " if reports[1:] else ""
        for level, name, results in report.levels():
            suite = ET.SubElement(
                root, "testsuite", name=_printable(f"{whose}{level} {name}"), tests=str(len(results)),
                failures=str(sum(r.failed and r.status != "fault" for r in results)),
                errors=str(sum(r.status == "fault" for r in results)),
                skipped=str(sum(r.status in ("skip", "value") for r in results)),
                time=f"{sum(r.seconds for r in results):.6f}",
            )  # fmt: skip
            for result in results:
                _test_case(suite, report, result)
    ET.indent(root)
    replace(path, ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n", JUNIT_START)


def _test_case(suite: ET.Element, report: Report, result: Result) -> None:
    """A case; that of a value alone counts as skipped, because half of it is unknown. Its verdict is a property."""
    about = {"classname": result.case.operation, "name": result.case.id, "time": f"{result.seconds:.6f}"}
    test = ET.SubElement(suite, "testcase", about)
    kind = KINDS[result.status]
    properties = ET.SubElement(test, "properties")
    ET.SubElement(properties, "property", name="verdict", value=kind)
    for law in result.laws:
        name = f"{'broken law' if law.broken else 'note'}: {law.name}"
        ET.SubElement(properties, "property", name=name, value=_printable(law.message))
    if result.status in ("skip", "value"):
        ET.SubElement(test, "skipped", message=_printable(result.reason))
    elif result.failed:
        lines = list(_lines(result))
        tag = "error" if result.status == "fault" else "failure"
        child = ET.SubElement(test, tag, type=kind, message=_printable(lines[0]))
        child.text = _printable("\n".join([*lines, "", *snippet(report, result)]))


def _lines(result: Result) -> Iterator[str]:
    """What is wrong, and what explains it."""
    yield from _wrong(result)
    for line in result.diagnosis:
        yield line
        yield from below(line)


def _wrong(result: Result) -> Iterator[str]:
    """What is wrong, most important first."""
    if result.status == "convention":
        yield f"differs by the convention {result.reason}"
    elif result.reason:
        yield result.reason
    yield from (verdict.message for verdict in result.verdicts if verdict.wrong)
    yield from (f"{law.name}: {law.message}" for law in result.broken)
    if result.tap:
        yield result.tap


def write_page(path: Path, report: Report) -> None:
    """One page without anything from elsewhere: from an operation one click to its failures, each with what is wrong,
    the edit of the specification that explains it, and how to see it again."""
    found = report.failures()
    parts = [
        f"<p>{escaped(sentence(report))} "
        f"Golden files {escaped(report.spec_version)}, tolerance factor {report.C:g}.</p>",
        "<h2>Operations</h2>",
        f"<p>{'Choose an operation to see what is wrong with it.' if found else 'Nothing is wrong.'}</p>",
        table(["operation", *COLUMNS.values(), "worst error / tolerance"], _operations(report, found),
              about="results by operation", numbers=range(1, 8)),
    ]  # fmt: skip
    parts += failures(report)
    parts += [
        "<h2>Levels</h2>",
        table(["level", *COLUMNS.values()], _levels(report), about="results by level", numbers=range(1, 7)),
        *_seen_of_laws(report),
        *_skipped(report),
    ]
    replace_page(path, page(f"{report.implementation} in {report.dtype}", parts, style=STYLE))


def _seen_of_laws(report: Report) -> Iterator[str]:
    """What fails no case, by law."""
    found = notes(report.results)
    if found:
        yield "<h2>Notes</h2>"
    for name, seen in found.items():
        items = "".join(f"<li>{escaped(r.case.id)}: {escaped(law.message)}</li>" for r, law in seen)
        yield f"<details><summary>{escaped(name)} ({len(seen)})</summary><ul>{items}</ul></details>"


def fragment(report: Report) -> str:
    """What a notebook shows, in its own colours: the sentence, the operations and what is wrong with them."""
    found = report.failures()
    heads = ["operation", *COLUMNS.values(), "worst error / tolerance"]
    parts = [f"<p><b>{escaped(report.implementation)} in {escaped(report.dtype)}</b>: {escaped(sentence(report))}</p>"]
    parts.append(table(heads, _operations(report, {}), about="results by operation", numbers=range(1, 8)))
    parts += failures(report, level=4) if found else []
    return "\n".join(parts)


def failures(report: Report, *, place: str = "operation", level: int = 2) -> Iterator[str]:
    """A section for each operation that fails: what explains most of it, and each failure."""
    for operation, results in report.failures().items():
        head = f'<h{level} id="{anchor(operation, place)}" tabindex="-1">{escaped(operation)}</h{level}>'
        yield f"<section>{head}{_explained(results)}"
        yield from (_failure(report, result, opened=number == 0) for number, result in enumerate(results))
        yield "</section>"


def _explained(results: list[Result]) -> str:
    """How many of the wrong answers the same mistake explains."""
    from refllm.verify.summary import summary  # the bank is read where something fails

    wrong = [result for result in results if result.wrong]
    lines = summary(wrong, said=[]) if wrong[1:] else []
    items = "".join(f"<li>{_linked(line)}{_diff(line)}{_issue(line)}</li>" for line in lines)
    return f'<ul class="explained">{items}</ul>' if items else ""


def anchor(operation: str, place: str = "operation") -> str:
    return f"{place}-{escaped(operation)}"


def _levels(report: Report) -> Iterator[list[str]]:
    for level, name, results in report.levels():
        yield [f"{level} {name}", *_cells(counts(results).values())]


def _cells(numbers: Iterable[int]) -> list[str]:
    return [str(n) if n else '<span class="quiet">0</span>' for n in numbers]


def _skipped(report: Report) -> Iterator[str]:
    """By reason; the functions that are not there together."""
    absent = f"{report.implementation} has no function of these names"
    skipped = [result for result in report.results if result.status == "skip"]
    found = grouped(skipped, lambda result: absent if result.absent else result.reason)
    if found:
        yield "<h2>Skipped</h2>"
    for reason, results in found.items():
        names = [result.case.id for result in results]
        if reason == absent:
            functions = grouped(results, lambda result: result.absent)
            names = [f"{name} ({len(those)})" for name, those in functions.items()]
        yield f"<details><summary>{escaped(reason)}</summary><p>{escaped(', '.join(names))}</p></details>"


def _operations(report: Report, failures: dict[str, list[Result]]) -> Iterator[list[str]]:
    """A row an operation: what failed leads to its failures."""
    found = by_operation(result for result in report.results if result.status != "skip")  # the others stand below
    skipped = Counter(result.case.operation for result in report.results if result.status == "skip")
    for operation in sorted(found, key=lambda name: name not in failures):
        results = found[operation]
        ratios = [r.ratio for r in results if r.ratio is not None]
        worst = f"{max(ratios):.2g}" if ratios and all(map(math.isfinite, ratios)) else "not finite" if ratios else ""
        numbers = {**counts(results), "skipped": skipped[operation]}
        name, cells = escaped(operation), _cells(numbers.values())
        if operation in failures:
            name = f'<a href="#{anchor(operation)}">{name}</a>'
            bad = [key in ("failed", "dtype", "convention") and n > 0 for key, n in numbers.items()]
            cells = [f'<b class="bad">{cell}</b>' if is_bad else cell for cell, is_bad in zip(cells, bad, strict=True)]
        yield [name, *cells, worst]


def _failure(report: Report, result: Result, *, opened: bool) -> str:
    case = result.case
    items = "".join(f"<li>{_linked(line)}</li>" for line in _wrong(result))
    explained = "".join(f"<li>{_linked(line)}{_diff(line)}{_issue(line)}</li>" for line in result.diagnosis)
    reports = "".join(f"<li>{_link(address)}</li>" for address in reported(report, result))
    return (
        f'<details class="case"{" open" if opened else ""}><summary>{escaped(case.id)}</summary>'
        f'<p>{escaped(case.about)} <span class="quiet">({escaped(case.spec)}, {escaped(case.section)})</span></p>'
        f"<ul>{items}</ul>"
        + (f'<div class="diagnosis"><h3>Diagnosis</h3><ul>{explained}</ul></div>' if explained else "")
        + (f"<h3>Public reports of mistakes that fail this case</h3><ul>{reports}</ul>" if reports else "")
        + f"<h3>See it again</h3>{code(chr(10).join(snippet(report, result)), about='how to see it again')}</details>"
    )


def _diff(line: str) -> str:
    """The edit of the specification; what goes and what comes are told by their signs, not by colour alone."""
    lines = diff_of(line)
    tags = {"-": "del", "+": "ins"}
    marked = [f"<{tag}>{escaped(x)}</{tag}>" if (tag := tags.get(x[:1])) else escaped(x) for x in lines]
    return box("\n".join(marked), about="edit of the specification") if lines else ""


def _issue(line: str) -> str:
    address = issue_of(line)
    return f"<p>as in {_link(address)}</p>" if address else ""


def _link(address: str) -> str:
    """A link where it leads to a page of the web, else the words."""
    return f'<a href="{escaped(address)}">{escaped(address)}</a>' if _WEB.fullmatch(address) else escaped(address)


def _linked(text: str) -> str:
    """Text in which the addresses of the web are links."""
    parts, end = list[str](), 0
    for found in _WEB.finditer(text):
        address = found.group().rstrip(".,;:)")
        parts += [escaped(text[end : found.start()]), _link(address)]
        end = found.start() + len(address)
    return "".join([*parts, escaped(text[end:])])


def _printable(text: str) -> str:
    """XML cannot hold control characters."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
