"""Where mistakes that fail a case were reported in public."""

from __future__ import annotations

from refllm.verify import corpus, notes
from refllm.verify.explanation import causes_of
from refllm.verify.report import Report
from refllm.verify.runner import Result

COMPARED = ("zeros", "values", "not finite")  # what is wrong in numbers


def reported(report: Report, result: Result) -> list[str]:
    """Public reports of mistakes that fail this case, unless the diagnosis says which mistake it is."""
    return [] if causes_of(result.diagnosis) else links(report, result)


def links(report: Report, result: Result) -> list[str]:
    """Public reports of mistakes that fail this case and that no right answer contradicts. None where there is nothing
    to compare: an exception, another shape, what is missing."""
    if not result.wrong or not any(verdict.wrong in COMPARED for verdict in result.verdicts):
        return []
    passed = {each.case.id for each in report.results if each.status in ("pass", "law")}
    value_right = not any(verdict.wrong and verdict.name.startswith("output") for verdict in result.verdicts)
    known = notes.read(corpus.folder(report.golden))
    return known.links(result.case.id, passed, value_right)
