"""Laws of `refllm scaling`: the table says what the formulas give, and mistakes are said in one line."""

from __future__ import annotations

import json

import pytest

from refllm.cli import main
from refllm.scaling.machines import MACHINES
from refllm.scaling.search import best
from refllm.scaling.steps import trained
from refllm.scaling.workloads import published


def test_it_says_what_the_formulas_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scaling", "gpt2-xl", "--processes", "64", "--price", "3", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    workload, machine = published("gpt2-xl"), MACHINES["a100"]
    training = trained(workload, machine, best(workload, machine, 64))
    assert row["days"] == training.days
    assert row["money"] == pytest.approx(3 * training.process_hours)


def test_a_number_of_processes_that_cannot_be_has_a_line_with_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scaling", "llama2-70b", "--processes", "8,64"]) == 0
    said = capsys.readouterr().out
    assert "8 processes of 80 GB are too few" in said
    assert "cut: " in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gpt3"], "no published size is called 'gpt3'"),
        (["gpt2-xl", "--processes", "8,,9"], "whole numbers from 1"),
        (["gpt2-xl", "--processes", "0"], "whole numbers from 1"),
        (["gpt2-xl", "--tokens", "nan"], "tokens must be a finite number"),
        (["gpt2-xl", "--bandwidth", "0"], "a bandwidth of bytes above 0"),
        (["gpt2-xl", "--node", "0"], "node must be at least 1"),
        (["gpt2-xl", "--price", "inf"], "price must be a finite number"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scaling", *words]) == 2
    found = capsys.readouterr().err
    assert said in found
    assert found.count("\n") == 1
