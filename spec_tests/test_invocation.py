"""Laws of the commands that are printed: they begin as the user typed, and a shell reads them as they were meant."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import refllm
from refllm.invocation import VARIABLE, command, retold, typed
from spec_tests import tiny

ROOT = Path(refllm.__file__).resolve().parents[1]
WITHOUT = {name: value for name, value in os.environ.items() if name != VARIABLE}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)))
def test_a_shell_reads_the_words_that_were_given(words: list[str]) -> None:
    assert shlex.split(command(*words)) == ["refllm", *words]


def test_from_python_it_is_the_program_by_its_name() -> None:
    assert typed() == "refllm"


def test_the_script_says_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "./my checkout/scripts/refllm")
    assert command("generate", "a b") == "'./my checkout/scripts/refllm' generate 'a b'"
    assert retold("example: refllm train --data x\n   as refllm-like ./refllm train") == (
        "example: './my checkout/scripts/refllm' train --data x\n   as refllm-like ./refllm train"
    )


def test_a_program_outside_the_path_keeps_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "refllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert typed() == str(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert typed() == "refllm"


def test_every_printed_command_runs_as_it_stands(tmp_path: Path) -> None:
    """From a module, in a folder with a space in its name: the command that the training prints is run by a shell."""
    place = tmp_path / "a b"
    place.mkdir()
    environment = {**WITHOUT, "PYTHONPATH": str(ROOT)}
    model = ["--preset", "character", "--layers", "1", "--width", "8", "--heads", "1", "--context", "16"]
    train = [
        sys.executable, "-m", "refllm", "train", "--data", str(tiny.data(place)), "--steps", "2", *model, "--out",
        "my run", "--threads", "1", "--reports", "1",
    ]  # fmt: skip
    done = subprocess.run(train, capture_output=True, text=True, env=environment, cwd=place, check=True)
    (printed,) = re.findall(r"More text from it: (.*)", done.stdout)
    assert printed == f"{shlex.quote(sys.executable)} -m refllm generate 'my run'"
    again = subprocess.run(printed, shell=True, capture_output=True, env=environment, cwd=place, check=False)
    assert (again.returncode, again.stderr) == (0, b"")


COMMAND = re.compile(r"\brefllm (train|pretrain|compare|generate|score|classify|translate|summarise|answer|chat)\b")


@pytest.mark.parametrize("path", sorted((ROOT / "refllm/commands").glob("*.py")), ids=lambda path: path.name)
def test_no_message_has_a_command_that_begins_otherwise(path: Path) -> None:
    """Only help texts have, which `retold` changes; they are constants, and the examples in them stand on lines."""
    source = path.read_text(encoding="utf-8")
    for line in source.splitlines():
        if COMMAND.search(line) and ("{" in line.partition("refllm ")[2] or "UserError(" in line or "print(" in line):
            raise AssertionError(f"say it with refllm.invocation.command: {line.strip()}")
