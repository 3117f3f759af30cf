"""Learning a task with `--device cuda`, on the double: the same run, the same answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refllm.cli import main
from spec_tests import pairs, tiny
from spec_tests.commands.conftest import leave_the_allocator_alone
from spec_tests.devices import DOUBLE, replaced
from spec_tests.tasks.test_span import written

BERT = [
    "--layers", "1", "--heads", "2", "--width", "8", "--context", "40", "--vocabulary", "120", "--threads", "1",
    "--batch", "16",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUPY_TF32", "unsaid")
    leave_the_allocator_alone(monkeypatch)
    with DOUBLE.present(), replaced():
        yield


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return {key: value for key, value in found.items() if key not in (*tiny.TIMES, "device")}


@pytest.mark.parametrize("task", ["translate", "answer"])
def test_a_run_means_the_same_on_both_devices(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"translate": [*pairs.written(tmp_path / "d"), *pairs.TINY], "answer": [written(tmp_path), *BERT]}[task]
    ask = {"translate": ["one dog"], "answer": ["--context", "Ann lives in Bonn.", "--question", "Where?"]}[task]
    answers = []
    for device in ("cpu", "cuda"):
        out = str(tmp_path / device)
        assert main([task, "fit", *data, "--steps", "4", "--reports", "2", "--device", device, "--out", out]) == 0
        capsys.readouterr()
        assert main([task, "predict", out, *ask, "--device", device]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert summary(tmp_path / "cpu") == summary(tmp_path / "cuda")


@pytest.mark.every
def test_pre_training_means_the_same_on_both_devices(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(f"{a}. {b}.\n" for a, b in pairs.PAIRS))
    for device in ("cpu", "cuda"):
        how = ["--data", str(tmp_path / "text.txt"), "--steps", "3", "--reports", "1", "--device", device, *pairs.TINY]
        assert main(["pretrain", "--model", "encoder_decoder", *how, "--out", str(tmp_path / device)]) == 0
    assert summary(tmp_path / "cpu") == summary(tmp_path / "cuda")
