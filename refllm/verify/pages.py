"""Results as files: JUnit for a build server, and a page to read."""

from __future__ import annotations

import html
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from refllm.errors import UserError
from refllm.verify.report import KINDS, LEVELS, Report, below, counts, sentence, snippet
from refllm.verify.runner import Result

_JUNIT, _PAGE = b"<?xml", b"<!doctype html>"

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: left; border-bottom: 1px solid #8884; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
section { border-left: 4px solid #c33; padding-left: 1rem; margin: 1.5rem 0; }
pre { overflow-x: auto; padding: .6rem; background: #8882; } .quiet { opacity: .75; }
"""


def write_junit(path: Path, report: Report) -> None:
    """A test suite for each level, a test case for each case."""
    root = ET.Element("testsuites", name="refllm verify")
    for level, name in LEVELS.items():
        results = [result for result in report.results if result.case.level == level]
        if not results:
            continue
        suite = ET.SubElement(
            root, "testsuite", name=f"L{level} {name}", tests=str(len(results)),
            failures=str(sum(r.failed and r.status != "fault" for r in results)),
            errors=str(sum(r.status == "fault" for r in results)),
            skipped=str(sum(r.status in ("skip", "value") for r in results)),
        )  # fmt: skip
        for result in results:
            _test_case(suite, report, result)
    ET.indent(root)
    _write(path, ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n", _JUNIT)


def _test_case(suite: ET.Element, report: Report, result: Result) -> None:
    """A case; that of a value alone counts as skipped, because half of it is unknown. Its verdict is a property."""
    test = ET.SubElement(suite, "testcase", classname=result.case.operation, name=result.case.id)
    kind = KINDS[result.status]
    ET.SubElement(ET.SubElement(test, "properties"), "property", name="verdict", value=kind)
    if result.status in ("skip", "value"):
        ET.SubElement(test, "skipped", message=_printable(result.reason))
    elif result.failed:
        lines = list(_lines(result))
        tag = "error" if result.status == "fault" else "failure"
        child = ET.SubElement(test, tag, type=kind, message=_printable(lines[0]))
        child.text = _printable("\n".join([*lines, "", *snippet(report, result)]))


def _lines(result: Result) -> Iterator[str]:
    """What is wrong, most important first."""
    if result.status == "convention":
        yield f"differs by the convention {result.reason}"
    elif result.reason:
        yield result.reason
    for verdict in result.verdicts:
        if verdict.wrong:
            yield verdict.message
    if result.tap:
        yield result.tap
    for line in result.diagnosis:
        yield line
        yield from below(line)


def write_page(path: Path, report: Report) -> None:
    """One page without anything from elsewhere: counts by level, every failure, every reason for a skip."""
    title = f"{report.implementation} in {report.dtype}"
    parts = [
        _PAGE.decode(),
        '<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>refllm verify: {html.escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(sentence(report))} "
        f"Golden files {html.escape(report.spec_version)}, tolerance factor {report.C:g}.</p>",
        "<table><tr><th>Level<th>Passed<th>Value only<th>Failed<th>Other dtype<th>By convention<th>Skipped</tr>",
        *_rows(report),
        "</table>",
    ]
    for operation, failures in report.failures().items():
        parts.append(f"<h2>{html.escape(operation)}</h2>")
        parts += [_section(report, result) for result in failures]
    if report.skipped():
        parts.append("<h2>Skipped</h2><ul>")
        for reason, results in report.skipped().items():
            ids = ", ".join(result.case.id for result in results)
            parts.append(f'<li>{html.escape(reason)} <span class="quiet">({html.escape(ids)})</span></li>')
        parts.append("</ul>")
    _write(path, ("\n".join(parts) + "\n</html>\n").encode(), _PAGE)


def _rows(report: Report) -> Iterator[str]:
    for level, name in LEVELS.items():
        results = [result for result in report.results if result.case.level == level]
        if results:
            cells = counts(results).values()
            yield f"<tr><td>L{level} {name}" + "".join(f'<td class="number">{n}' for n in cells) + "</tr>"


def _section(report: Report, result: Result) -> str:
    case = result.case
    items = "".join(f"<li>{html.escape(line)}</li>" for line in _lines(result))
    shown = html.escape("\n".join(snippet(report, result)))
    return (
        f"<section><h3>{case.id}</h3><p>{html.escape(case.about)} "
        f'<span class="quiet">({case.spec}, {html.escape(case.section)})</span></p>'
        f"<ul>{items}</ul><pre>{shown}</pre></section>"
    )


def _write(path: Path, content: bytes, start: bytes) -> None:
    """Replaces an older report; anything else that stands there is the user's."""
    if path.exists():
        with path.open("rb") as file:
            if not path.is_file() or file.read(len(start)) != start:
                raise UserError(f"{path} is there already and is no report; choose another name")
    path.write_bytes(content)


def _printable(text: str) -> str:
    """XML cannot hold control characters."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
