"""A trained run for the commands that need one, and what a refusal must look like."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from refllm.cli import COMMANDS, main, module
from refllm.commands import fitting
from spec_tests import tiny

MODEL = [
    "--preset", "character", "--layers", "1", "--heads", "2", "--width", "8", "--context", "16", "--batch", "4",
    "--threads", "1",
]  # fmt: skip

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def _in_an_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `runs/` would be made; and the memory of the test process stays as it is."""
    monkeypatch.chdir(tmp_path)
    leave_the_allocator_alone(monkeypatch)


def leave_the_allocator_alone(patch: pytest.MonkeyPatch) -> None:
    for command in (*map(module, COMMANDS), fitting):
        if hasattr(command, "keep_freed_memory"):
            patch.setattr(command, "keep_freed_memory", lambda: True)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run, made once; tests that damage it take `run`, a copy."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        leave_the_allocator_alone(patch)
        arguments = ["--data", str(tiny.data(folder)), "--steps", "6", "--reports", "2", "--out", str(folder / "run")]
        assert main(["train", *arguments, *MODEL]) == 0
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Runs a command that must be refused: one line on stderr, status 2, and no file has changed."""

    def check(*arguments: str) -> str:
        before = tiny.contents(tmp_path)
        capfd.readouterr()
        assert main(arguments) == 2
        captured = capfd.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("refllm: ")
        assert captured.err.count("\n") == 1
        assert captured.err.endswith("\n")
        assert tiny.contents(tmp_path) == before
        return captured.err

    return check
