"""Several runs in one table: what was not run has no number, what is wrong is marked, and it fits a terminal."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from refllm.cli import main
from refllm.verify import comparison
from refllm.verify.report import Report
from refllm.verify.runner import Result

WRONG = "def relu(x):\n    return x, lambda dy: dy\n"
RIGHT = (
    "import numpy\nDTYPES = ['float64']\n\ndef relu(x):\n    return numpy.maximum(x, 0), lambda dy: dy * (x > 0)\n\n"
    "def tanh(x):\n    return numpy.tanh(x)\n"
)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong one.py").write_text(WRONG)
    (tmp_path / "right.py").write_text(RIGHT)
    return tmp_path


@pytest.mark.every
def test_two_implementations_in_two_precisions_are_one_table(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["right.py", "wrong one.py", "--dtype", "float64,float32", "--no-laws", "--search", "0"]
    assert main(["verify", *words, "--html", "both.html", "--junit", "both.xml"]) == 1
    said = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split()[1:] for line in said.splitlines() if line.startswith(("relu", "tanh"))}
    assert " ".join(rows["relu"]).startswith("6/6 not run")
    assert "!" in " ".join(rows["relu"])
    assert rows["tanh"] == ["3/3", "v", "not", "run", "not", "run", "not", "run"]
    assert "verify 'wrong one.py' --dtype float32" in said
    assert all(len(line) <= 80 for line in said.splitlines() if not line.startswith("  $"))
    page = (two / "both.html").read_text()
    assert ">not run<" in page
    assert "wrong one.py float32" in page
    assert "right.py float64 L1 operations" in (two / "both.xml").read_text()
    leads = dict(re.findall(r'<a href="#([^"]*)"><b class="bad">([^<]*)</b>', page))
    assert leads.keys() == {"run-2-relu", "run-2", "run-3-relu", "run-3"}  # a cell that is wrong, and no other
    assert leads.keys() <= set(re.findall(r' id="([^"]*)"', page))


def test_one_that_cannot_be_run_does_not_take_the_others_with_it(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "right.py", "gone.py", "--only", "relu", "--no-laws"]) == 2
    captured = capsys.readouterr()
    assert "6/6" in captured.out
    assert captured.err.count("\n") == 1
    assert "gone.py is no Python file" in captured.err


def test_what_was_not_run_is_no_zero(report: Report) -> None:
    skipped = [replace(result, status="skip", verdicts=[]) for result in report.results]
    assert comparison.cell(skipped) == comparison.NOT_RUN
    wrong = Result(report.results[0].case, "fail", "")
    assert comparison.cell([wrong]) == "0/1 !"
    assert "not run" in comparison.as_text([report, replace(report, call="b.py", results=skipped)])
