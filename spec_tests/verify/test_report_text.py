"""The report for a terminal: everything a reader needs, nothing wider than the terminal."""

from __future__ import annotations

from typing import Any

import numpy

from refllm.verify import corpus, diagnosis, runner
from refllm.verify.adapter import Functions
from refllm.verify.report import Report
from refllm.verify.report_text import WIDTH, as_text


def test_the_text_explains_what_the_case_that_it_shows_does_not(golden: corpus.Corpus) -> None:
    """A function with two mistakes, of which the first case shows one."""

    def rows(x: Any) -> Any:
        y = numpy.exp(x)
        return y / y.sum(0 if x.shape == (3, 4) else -1, keepdims=True)

    cases = [case.values_alone() for case in golden.cases.values() if case.operation == "softmax"]
    results = list(
        diagnosis.diagnosed(runner.run(Functions("r", {"softmax": rows}, {}), cases, "float64", 8), "float64")
    )
    text = as_text(Report("r", "r", "float64", 8, golden.spec_version, results))
    assert "wrong answers are explained by softmax without the shift" in " ".join(text.split())


def test_the_text_names_all_that_a_reader_needs(report: Report) -> None:
    text = as_text(report)
    for needed in (
        "L1 operations", "FAILED", "ATT/square: as many queries", "specification ATT", "output y is wrong at [",
        "got ", "truth ", "times the tolerance", "diagnosis:", "$ refllm verify some/mine.py --only ATT/square",
        ">>> mine = adapter.from_file(", "also ATT/", "see it again:", "with no gradient given",
        "raised RuntimeError", " cases: ", "more are of operations that mine.py does not have.",
    ):  # fmt: skip
        assert needed in " ".join(text.split())
    assert "identity" not in text  # what is not there is counted, not listed
    assert "L0" not in text
    assert all(len(line) <= WIDTH for line in text.splitlines() if not line.startswith("    "))
