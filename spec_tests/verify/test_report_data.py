"""The report for programs: valid JSON, whose counts add up, with the diagnosis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from refllm.verify.report import Report
from refllm.verify.report_data import as_data


def test_the_counts_add_up_and_the_data_is_json(report: Report) -> None:
    data = json.loads(json.dumps(as_data(report), allow_nan=False))
    kinds = ("passed", "value_only", "failed", "dtype", "convention", "skipped")
    assert data["cases"] == len(data["results"]) == sum(data[kind] for kind in kinds)
    assert min(data["passed"], data["value_only"], data["failed"], data["skipped"]) > 0
    for kind in kinds:
        assert data[kind] == sum(counts[kind] for counts in data["operations"].values())
    failed = data["results"]["ATT/square"]
    assert failed["status"] == "fail"
    assert failed["ratio"] > 1e6
    assert data["worst_ratio"] >= failed["ratio"]
    worst = failed["wrong"][0]
    assert (worst["tensor"], worst["kind"]) == ("output y", "values")
    assert abs(worst["got"] - worst["truth"]) > 0.01
    assert data["results"]["LMHEAD/matmul-vector"]["status"] == "fault"
    assert data["results"]["SMX/softmax-vector"]["reason"] == "mine.py has no function softmax"


def test_the_diagnosis_names_the_mistake(report: Report) -> None:
    assert "scale" in as_data(report)["results"]["ATT/square"]["diagnosis"][0]


SCHEMA = json.loads(
    (Path(__file__).resolve().parents[2] / "golden/schemas/report.schema.json").read_text(encoding="utf-8")
)


def test_the_schema_describes_every_report(report: Report) -> None:
    data = json.loads(json.dumps(as_data(report), allow_nan=False))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(data, SCHEMA)
    jsonschema.validate({"runs": [data, data]}, SCHEMA)
    assert data["precision"] == "float64"


def damaged(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    case = next(iter(data["results"]))
    yield {**data, "passed": -1}
    yield {**data, "precision": "float8"}
    yield {name: x for name, x in data.items() if name != "results"}
    for change in ({"status": "good"}, {"seconds": "1"}, {"of_mine": 1}, {"ratio": "NaN"}):
        yield {**data, "results": {**data["results"], case: {**data["results"][case], **change}}}


@pytest.mark.every
def test_the_schema_refuses_what_is_no_report(report: Report) -> None:
    for data in damaged(as_data(report)):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(data, SCHEMA)
