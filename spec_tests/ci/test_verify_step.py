"""The step for CI systems: it passes words on as a shell would, leaves its reports, and ends as the command ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEP, ACTION = ROOT / "scripts/ci/verify.sh", ROOT / "scripts/ci/action.yml"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell script")


def step(folder: Path, arguments: str) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REFLLM_PYTHON": sys.executable,
                   "REFLLM_ARGUMENTS": arguments, "GITHUB_OUTPUT": str(folder / "outputs")}  # fmt: skip
    done = subprocess.run(["bash", str(STEP)], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param("numpy.maximum(x, 0), lambda dy: dy * (x > 0)", 0, marks=pytest.mark.slow),
        ("x, lambda dy: dy", 1),
    ],
)
@pytest.mark.every
def test_the_status_is_that_of_the_command_and_the_reports_are_there(tmp_path: Path, body: str, status: int) -> None:
    (tmp_path / "my own.py").write_text(f"import numpy\n\ndef relu(x):\n    return {body}\n")
    found, said = step(tmp_path, "'my own.py' --dtype float32 --search 0 --no-laws")
    assert found == status, said
    assert (tmp_path / "refllm.xml").read_bytes().startswith(b"<?xml")
    assert (tmp_path / "refllm.html").exists()
    assert (tmp_path / "outputs").read_text() == f"status={status}\n"


@pytest.mark.slow
def test_what_cannot_be_run_is_told_apart_from_what_is_wrong(tmp_path: Path) -> None:
    status, said = step(tmp_path, "gone.py")
    assert status == 2
    assert "gone.py is no Python file" in said
    assert not (tmp_path / "refllm.xml").exists()


def test_the_action_says_every_variable_that_the_step_reads() -> None:
    action, text = ACTION.read_text(encoding="utf-8"), STEP.read_text(encoding="utf-8")
    read = set(re.findall(r"REFLLM_[A-Z]+", text))
    assert read == set(re.findall(r"^ +(REFLLM_[A-Z]+):", action, re.MULTILINE))
    inputs = re.findall(r"^  (\w+):$", action.split("outputs:")[0], re.MULTILINE)
    assert {f"inputs.{name}" for name in inputs} == set(re.findall(r"inputs\.\w+", action))
