"""The report: everything a reader needs, nothing wider than a terminal, and valid data for programs."""

from __future__ import annotations

import json
import shlex
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.verify import adapter, corpus, diagnosis, pages, reference, runner
from refllm.verify.adapter import Functions
from refllm.verify.report import WIDTH, Report, as_data, as_text, snippet


@pytest.fixture(scope="module")
def report(golden: corpus.Corpus) -> Report:
    """attention without the scale, relu without a pullback, layer_norm right, matmul that raises, all else absent."""
    right = reference.functions()

    def attention(q, k, v, **how):  # type: ignore[no-untyped-def]
        scale = numpy.sqrt(q.shape[-1])
        y, back = right["attention"](q * scale, k, v, **how)

        def scaled_back(dy):  # type: ignore[no-untyped-def]
            dq, dk, dv = back(dy)
            return dq * scale, dk, dv

        return y, scaled_back

    def matmul(*_: object) -> None:
        raise RuntimeError("<no & luck>\x00")

    functions: dict[str, Any] = {"attention": attention, "layer_norm": right["layer_norm"], "matmul": matmul}
    mine = Functions("mine.py", {**functions, "relu": lambda x: numpy.maximum(x, 0)}, {})
    results = list(diagnosis.diagnosed(runner.run(mine, golden.cases.values(), "float64", golden.C), "float64"))
    return Report("mine.py", "some/mine.py", "float64", golden.C, golden.spec_version, results)


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
        "L0 loader", "FAILED", "skipped", "ATT/square: as many queries", "specification ATT", "output y is wrong at [",
        "got ", "truth ", "times the tolerance", "diagnosis:", "$ refllm verify some/mine.py --only ATT/square",
        ">>> mine = adapter.from_file(", "also ATT/", "has no function", "with no gradient given",
        "raised RuntimeError", " cases: ",
    ):  # fmt: skip
        assert needed in text
    assert all(len(line) <= WIDTH for line in text.splitlines() if not line.startswith("    "))


NAMES = ["mine.py", "my-adapter.py", "class.py", "2nd it's.py", "kind of.v2.py"]
RETURNS = [*((name, "y, back") for name in NAMES), ("2nd it's.py", "y"), ("2nd it's.py", "y, back, {}")]


@pytest.mark.parametrize(("name", "returns"), RETURNS)
def test_the_python_snippet_runs_whatever_the_file_is_called(
    name: str, returns: str, golden: corpus.Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_text(f"def relu(x):\n    y, back = 1.5 * x, lambda dy: 2 * dy\n    return {returns}\n")
    cases = [golden.cases["FFN/relu-grid"]]
    [result] = runner.run(adapter.from_file(path), cases, "float32", golden.C)
    shown = Report(name, shlex.quote(str(path)), "float32", golden.C, golden.spec_version, [result])
    lines = [line[4:] for line in snippet(shown, result) if line.startswith((">>> ", "... "))]
    space: dict[str, Any] = {}
    exec(compile("\n".join(lines), "snippet", "exec"), space)
    returned = space["returned"][0] if "," in returns else space["returned"]
    numpy.testing.assert_array_equal(returned, numpy.float32(1.5) * cases[0].inputs["x"].astype("float32"))
    assert ("{'x': Truth(" in capsys.readouterr().out) == ("," in returns)  # the gradients, where there are any
    assert snippet(shown, result)[0] == f"$ refllm verify {shlex.quote(str(path))} --dtype float32 --only FFN/relu-grid"


def test_junit_counts_the_same_cases(report: Report, tmp_path: Path) -> None:
    pages.write_junit(tmp_path / "junit.xml", report)
    root = ET.parse(tmp_path / "junit.xml").getroot()
    tests = root.findall("testsuite/testcase")
    assert len(tests) == len(report.results)
    broken = sum(test.find("failure") is not None or test.find("error") is not None for test in tests)
    data = as_data(report)
    assert broken == data["failed"] + data["dtype"] + data["convention"]
    assert sum(test.find("skipped") is not None for test in tests) == data["skipped"] + data["value_only"]
    kinds = {test.get("name"): test.find("properties/property").get("value") for test in tests}  # type: ignore[union-attr]
    assert kinds == {name: result["verdict"] for name, result in data["results"].items()}


def test_the_page_is_whole_and_what_an_implementation_says_cannot_write_into_it(report: Report, tmp_path: Path) -> None:
    pages.write_page(tmp_path / "page.html", report)
    text = (tmp_path / "page.html").read_text()
    assert "&lt;no &amp; luck&gt;" in text
    assert "<no" not in text
    assert "ATT/square" in text
    HTMLParser().feed(text)


def test_a_report_replaces_a_report_and_nothing_else(report: Report, tmp_path: Path) -> None:
    precious = tmp_path / "mine.py"
    precious.write_text("def relu(x): ...")
    for write in (pages.write_junit, pages.write_page):
        with pytest.raises(UserError, match="is there already and is no report"):
            write(precious, report)
        write(tmp_path / "report", report)
        write(tmp_path / "report", report)
        (tmp_path / "report").unlink()
    assert precious.read_text() == "def relu(x): ..."
