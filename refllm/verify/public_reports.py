"""Where mistakes that fail a case were reported in public."""

from __future__ import annotations

from refllm.verify import corpus, notes
from refllm.verify.explanation import issue_of
from refllm.verify.report import Report
from refllm.verify.runner import Result


def reported(report: Report, result: Result) -> list[str]:
    """Public reports of mistakes that fail this case, unless the diagnosis says one."""
    return [] if any(map(issue_of, result.diagnosis)) else links(report, result)


def links(report: Report, result: Result) -> list[str]:
    """Public reports of mistakes that fail this case and that no right answer contradicts."""
    if not result.wrong or result.status == "law":
        return []
    passed = {each.case.id for each in report.results if each.status in ("pass", "law")}
    value_right = not any(verdict.wrong and verdict.name.startswith("output") for verdict in result.verdicts)
    known = notes.read(corpus.folder(report.golden))
    return known.links(result.case.id, passed, value_right)
