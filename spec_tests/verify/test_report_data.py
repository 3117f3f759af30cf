"""The report for programs: valid JSON, whose counts add up, with the diagnosis."""

from __future__ import annotations

import json

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
