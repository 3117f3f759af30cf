"""Every starter kit builds, and passes, by the one command of its README; who breaks an operation in it is told."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refllm.cli import main
from refllm.verify.kits import FILES, NAMES
from spec_tests.tools import tool

pytestmark = pytest.mark.tools

ROOT = Path(__file__).resolve().parents[2]
KITS = ROOT / "scripts" / "kits"

# What the command of a kit needs, and how many cases it answers; the others are compiled at most.
TOOLS = {"c": "cc", "c++": "c++", "rust": "rustc", "go": "go", "javascript": "node"}
LIBRARIES = {"pytorch": "torch", "jax": "jax", "onnx": "onnx"}
NOT_RUN = ("cuda", "triton", "webgpu")
MISTAKES = {
    "c": ("out[r * C + i] * scale[i] + shift[i]", "out[r * C + i] * scale[i]"),
    "c++": ("y[i] * (dy[i] - along)", "y[i] * dy[i]"),
    "rust": ("1.0 / (d_count as f64).sqrt()", "1.0"),
    "go": ("math.Sqrt(variance+eps)", "(math.Sqrt(variance)+eps)"),
    "javascript": ("j > t + S - T", "j > t"),
}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A command of a README, where `refllm` is the one under test."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/refllm").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m refllm "$@"\n')
    (tmp_path / "bin/refllm").chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "GOCACHE": str(tmp_path / "go"), "GO111MODULE": "off",
    }  # fmt: skip

    def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False
        )

    return shell


def copied(kit: str, folder: Path, capsys: Any) -> str:
    """The command that is said for the kit, which is copied into the folder."""
    assert main(["verify", "--kit", kit, str(folder)]) == 0
    said = str(capsys.readouterr().out).splitlines()
    return next(line.strip() for line in said if line.startswith("    "))


def require(kit: str) -> None:
    if kit in TOOLS:
        tool(TOOLS[kit])
    if kit in LIBRARIES and importlib.util.find_spec(LIBRARIES[kit]) is None:
        pytest.skip(f"{LIBRARIES[kit]} is not installed")


def kits() -> list[Any]:
    marks = {"c": (), **dict.fromkeys(LIBRARIES, (pytest.mark.oracle,))}
    return [pytest.param(kit, marks=marks.get(kit, (pytest.mark.slow,))) for kit in (*TOOLS, *LIBRARIES)]


@pytest.mark.parametrize("kit", kits())
def test_the_kit_builds_and_passes_by_the_command_of_its_readme(
    kit: str, tmp_path: Path, run: Run, capsys: Any
) -> None:
    require(kit)
    command = copied(kit, tmp_path / "mine", capsys)
    for dtype in ("", " --dtype float32"):
        done = run(f"{command} --json{dtype if '--dtype' not in command else ''}", tmp_path / "mine")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        report = json.loads(done.stdout)
        assert report["passed"] >= 24
        assert report["failed"] == report["value_only"] == report["convention"] == 0
        assert {"softmax", "layer_norm"} <= {
            r["operation"] for r in report["results"].values() if r["status"] == "pass"
        }


@pytest.mark.parametrize("kit", [pytest.param(k, marks=() if k == "c" else pytest.mark.slow) for k in MISTAKES])
def test_a_mistake_in_a_kit_is_found(kit: str, tmp_path: Path, run: Run, capsys: Any) -> None:
    require(kit)
    command = copied(kit, tmp_path / "mine", capsys)
    path = tmp_path / "mine" / FILES[kit]
    right, wrong = MISTAKES[kit]
    text = path.read_text(encoding="utf-8")
    assert text.count(right) == 1
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    assert run(f"{command} --json --search 0", tmp_path / "mine").returncode == 1


@pytest.mark.slow
def test_the_kit_of_cuda_compiles(tmp_path: Path, run: Run, capsys: Any) -> None:
    tool("nvcc")
    command = copied("cuda", tmp_path / "mine", capsys).partition(" && ")[0]
    done = run(command, tmp_path / "mine")
    assert done.returncode == 0, done.stderr


def test_the_shaders_of_the_kit_stand_in_a_program_that_node_reads(run: Run, tmp_path: Path) -> None:
    tool("node")
    assert run(f"node --check '{KITS / 'webgpu' / FILES['webgpu']}'", tmp_path).returncode == 0


def test_a_kit_is_one_file_and_two_lines() -> None:
    assert {path.name for path in KITS.iterdir()} == set(NAMES) == {*TOOLS, *LIBRARIES, *NOT_RUN}
    for kit in NAMES:
        files = {path.name for path in (KITS / kit).iterdir() if path.name != "__pycache__"}
        assert files == {FILES[kit], "README.md"}
        lines = [line for line in (KITS / kit / "README.md").read_text(encoding="utf-8").splitlines() if line]
        assert len(lines) == 2
        assert lines[1].startswith("    ")
        assert "refllm verify " in lines[1]
        assert ("do not run it" in lines[0]) == (kit in ("triton", "webgpu"))


def test_nothing_is_replaced_by_a_kit(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "kernel.c").write_text("mine")
    assert main(["verify", "--kit", "c", str(tmp_path)]) == 2
    assert "kernel.c is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kernel.c"]
    assert (tmp_path / "kernel.c").read_text() == "mine"
    assert main(["verify", "--kit", "cobol", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()
