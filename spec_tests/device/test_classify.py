"""`refllm classify --device cuda` in this process, on the double: the same run and the same labels as on the CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refllm.cli import main
from spec_tests import tiny
from spec_tests.commands.conftest import MODEL, leave_the_allocator_alone
from spec_tests.commands.test_classify import SMALL, TEXTS, table
from spec_tests.devices import DOUBLE, replaced
from spec_tests.tasks.test_classify import ROWS


@pytest.fixture(autouse=True)
def _double(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("CUPY_TF32", "unsaid")
    monkeypatch.chdir(tmp_path)
    leave_the_allocator_alone(monkeypatch)
    with DOUBLE.present(), replaced():
        yield


def labelled(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[Any]:
    capfd.readouterr()
    assert main(["classify", "predict", *arguments, "--json"]) == 0
    return [json.loads(line)["probabilities"] for line in capfd.readouterr().out.splitlines()]


def test_a_classifier_is_the_same_on_both_devices(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, start = table(tmp_path / "data.csv", ROWS), str(tmp_path / "start")
    how = ["classify", "fit", data, "--steps", "4", "--reports", "2", "--patience", "1", "--class-weights"]
    assert main([*how, "--out", start, *SMALL]) == 0
    found = []
    for device in ("cpu", "cuda"):
        more = ["--from", start, "--tune", "low-rank", "--rank", "2", "--threads", "1", "--device", device]
        assert main([*how, "--out", device, *more]) == 0
        found.append(labelled(capfd, device, *TEXTS, "--device", device))
    assert found[0] == found[1]


def test_a_language_model_labels_the_same_on_both_devices(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    how = ["--data", str(tiny.data(tmp_path)), "--steps", "2", "--reports", "1", "--out", "run", *MODEL]
    assert main(["train", *how]) == 0
    asked = ["run", "2 times 3", "--labels", "6", "12", "--prompt", "{text} is {label}.\n"]
    assert labelled(capfd, *asked) == labelled(capfd, *asked, "--device", "cuda")
