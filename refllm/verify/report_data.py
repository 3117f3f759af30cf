"""The report as data for programs."""

from __future__ import annotations

import math
from typing import Any

from refllm.verify.explanation import diff_of, issue_of
from refllm.verify.public_reports import links
from refllm.verify.report import KINDS, Report, by_operation, counts
from refllm.verify.reproduction import snippet
from refllm.verify.runner import Result
from refllm.verify.verdict import Verdict


def as_data(report: Report) -> dict[str, Any]:
    """The report for programs, as golden/schemas/report.schema.json describes it. A ratio is null where none could be
    formed: NaN, a wrong shape, nothing judged."""
    return {
        "implementation": report.implementation,
        "precision": report.dtype,
        "spec_version": report.spec_version,
        "C": report.C,
        "cases": len(report.results),
        **counts(report.results),
        "worst_ratio": report.worst[0] if report.worst else None,
        "operations": {
            name: {"cases": len(results), **counts(results)} for name, results in by_operation(report.results).items()
        },
        "results": {
            result.case.id: {
                **_result(result),
                "links": links(report, result),
                "again": snippet(report, result) if result.failed else [],
            }
            for result in report.results
        },
    }


def _result(result: Result) -> dict[str, Any]:
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
        "wrong": [_verdict(verdict) for verdict in result.verdicts if verdict.wrong],
        "tap": result.tap,
        "cast": result.cast,
        "passes_alone": result.alone,
        "seconds": round(result.seconds, 6),
        "laws": [{"law": law.name, "broken": law.broken, "message": law.message} for law in result.laws],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    """What is wrong with a tensor, and its worst entry."""
    worst = verdict.worst
    return {
        "tensor": verdict.name,
        "kind": verdict.wrong,
        "message": verdict.message,
        "index": list(worst.index) if worst else None,
        "got": _finite(worst.got) if worst else None,
        "truth": _finite(worst.truth) if worst else None,
        "ratio": _finite(verdict.ratio),
        "ulp": _finite(worst.ulp) if worst else None,
    }


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None
