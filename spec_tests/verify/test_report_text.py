"""The report for a terminal: everything a reader needs, nothing wider than the terminal."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy

from refllm.verify import corpus, diagnosis, mutants, plain, runner
from refllm.verify.adapter import Functions
from refllm.verify.explanation import Explanation, below
from refllm.verify.public_reports import reported
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


def test_cases_without_a_wrong_answer_are_counted_apart(golden: corpus.Corpus) -> None:
    """One raises, and some are wrong: the wrong answers that are explained are fewer than the cases that fail."""

    def rows(x: Any) -> Any:
        if x.ndim == 1:
            raise IndexError("planted")
        y = numpy.exp(x - x.max(-1, keepdims=True))
        return y / y.sum(0, keepdims=True)

    cases = [case.values_alone() for case in golden.cases.values() if case.operation == "softmax"]
    results = list(runner.run(Functions("r", {"softmax": rows}, {}), cases, "float64", 8))
    kinds = Counter(result.status for result in results)
    assert kinds["fail"]
    assert kinds["fault"]
    text = as_text(Report("r", "r", "float64", 8, golden.spec_version, results))
    assert f"cases fail ({kinds['fail']} with a wrong answer, {kinds['fault']} without an answer" in text


def test_no_reports_of_others_stand_below_an_exception_or_a_mistake_that_is_named(golden: corpus.Corpus) -> None:
    """They are of what fails the case in numbers."""
    cases = [golden.cases[f"ATT-MASK/{name}"] for name in ("causal-square", "causal-long")]

    def links(f: Any) -> list[str]:
        ran = runner.run(Functions("r", {"attention": f}, {}), cases, "float64", 8)
        results = list(diagnosis.diagnosed(ran, "float64"))
        report = Report("r", "r", "float64", 8, golden.spec_version, results)
        return [link for result in results for link in reported(report, result)]

    def unmasked(q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
        return plain.operations()["attention"](q, k, v, causal=False, allowed=allowed)

    assert links(lambda q, k, v, **how: numpy.random.default_rng(0).normal(size=(*q.shape[:-1], v.shape[-1])))
    assert links(lambda q, k, v, **how: q[..., :0]) == []  # another shape
    assert links(lambda q, k, v: v) == []  # a TypeError
    assert links(unmasked) == []


def test_an_edit_says_what_adapters_call_a_keyword() -> None:
    line = Explanation("equal to something")
    line.cause = mutants.MUTANTS[0]
    line.diff = [("spec/attention.py:1", ["- s = where(attention_mask, s, 0)", "+ s = s"])]
    assert "attention_mask: `allowed` of an adapter" in below(line)
    line.diff = [("spec/attention.py:1", ["- s = 1", "+ s = s"])]
    assert below(line)[:3] == ["spec/attention.py:1", "- s = 1", "+ s = s"]
    assert not any("of an adapter" in text for text in below(line))
