"""Laws of the commands that are printed: they begin as the user typed, and a shell reads them as they were meant."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import refllm
from refllm.invocation import VARIABLE, began, begin_command, command, retold, typed
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


def test_a_command_began_with_its_process_and_the_next_one_in_it_when_it_asks() -> None:
    begin_command(refllm.IMPORTED)
    assert began() == refllm.IMPORTED
    before = time.perf_counter()
    assert began() >= before > refllm.IMPORTED


def test_the_minutes_of_a_command_count_from_its_process(tmp_path: Path) -> None:
    """And so hold what loading NumPy takes: a tenth of a second here, and several on a machine with much to do."""
    code = (
        "import refllm, time; time.sleep(0.3)\n"
        "import refllm.commands.train as train, refllm.run as run, refllm.cli as cli, sys\n"
        "begin = run.Run.begin.__func__\n"
        "def began(cls, *given, since, **named):\n"
        "    print(time.perf_counter() - since); raise SystemExit\n"
        "run.Run.begin = classmethod(began)\n"
        "sys.argv = ['refllm', 'train', '--minutes', '1', '--data', 'text.txt']\n"
        "cli.main()\n"
    )
    tiny.data(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**WITHOUT, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert float(ended.stdout) > 0.3
