"""`refllm ... --device cuda` in this process, on the double: train, generate, score."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refllm import cli, run
from spec_tests import tiny
from spec_tests.device.watch import assert_little_is_transferred, steps_watched
from spec_tests.devices import DOUBLE, replaced
from spec_tests.strict_cupy import CUDARuntimeError, absent, installed, limit_bytes

SMALL = [
    "--steps", "8", "--reports", "2", "--batch", "3", "--context", "16", "--layers", "1", "--heads", "2",
    "--width", "8", "--threads", "1", "--dropout", "0", "--tokenizer", "character",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _environment_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPY_TF32", "unsaid")


@pytest.fixture(autouse=True)
def _no_sample_at_the_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hundred tokens, of which one test reads some."""
    if "real_end" not in request.fixturenames:
        monkeypatch.setattr("refllm.commands.train._conclude", lambda prepared, summary, note: None)


@pytest.fixture
def real_end() -> None:
    """For a test that wants the sample."""


@pytest.fixture
def double() -> Iterator[None]:
    with DOUBLE.present(), replaced():
        yield


@pytest.fixture
def text(tmp_path: Path) -> str:
    return str(tiny.data(tmp_path))


def train(text: str, out: Path, *more: str) -> int:
    return cli.main(["train", "--data", text, "--out", str(out), *SMALL, *more])


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return {key: value for key, value in found.items() if key not in (*tiny.TIMES, "device")}


@pytest.mark.every
@pytest.mark.usefixtures("double", "real_end")
def test_a_seed_means_the_same_on_both_devices(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outs, samples = [tmp_path / "cpu", tmp_path / "cuda"], []
    for out in outs:
        assert train(text, out, "--device", out.name, "--dropout", "0.2", "--seed", "5") == 0
        samples.append(capsys.readouterr().out.partition("What it writes:")[2].partition("steps in")[0])
    assert samples[0] == samples[1] != ""
    assert tiny.metrics(outs[0]) == tiny.metrics(outs[1])
    assert summary(outs[0]) == summary(outs[1])
    assert json.loads((outs[1] / "summary.json").read_text())["device"] == "cuda"
    capsys.readouterr()
    for command in (
        ["generate", "RUN", "--tokens", "40", "--seed", "3", "--top-p", "0.9"],
        ["generate", "RUN", "--tokens", "40", "--greedy"],
        ["score", "RUN", "--text", "3 times 4 is 12.", "--each", "--json"],
    ):
        answers = []
        for device, of in (("cpu", outs[0]), ("cuda", outs[0]), ("cuda", outs[1])):
            assert cli.main([str(of) if word == "RUN" else word for word in [*command, "--device", device]]) == 0
            answers.append(capsys.readouterr().out)
        assert answers[0] == answers[1] == answers[2]
        assert len(answers[0]) > 20


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("dropout", "to_device"), [("0", 1), ("0.2", 2)])
def test_the_command_reads_nothing_between_two_reports_even_with_a_progress_bar(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropout: str, to_device: int
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with steps_watched() as steps:
        assert train(text, tmp_path / "run", "--device", "cuda", "--dropout", dropout, "--steps", "45") == 0
    assert_little_is_transferred(steps, count=45, to_device=to_device)


@pytest.mark.usefixtures("double")
def test_a_run_of_a_device_is_resumed_there(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that dies right after the first report leaves a checkpoint to go on from."""

    class DiedError(BaseException):
        pass

    def dies(self: run.Run) -> None:
        save(self)
        raise DiedError

    assert train(text, tmp_path / "whole", "--device", "cuda") == 0
    save = run.Run.save
    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "save", dies)
        with pytest.raises(DiedError):
            train(text, tmp_path / "died", "--device", "cuda")
    assert cli.main(["train", "--resume", str(tmp_path / "died")]) == 0
    assert summary(tmp_path / "died") == summary(tmp_path / "whole")
    assert tiny.metrics(tmp_path / "died") == tiny.metrics(tmp_path / "whole")


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err.removesuffix("\n")
    assert error.startswith("refllm: ")
    assert "\n" not in error
    return error


def test_a_run_of_a_device_says_so_where_there_is_none(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with DOUBLE.present():
        train(text, tmp_path / "run", "--device", "cuda")
    before = tiny.contents(tmp_path / "run")
    capsys.readouterr()
    for missing, said in ((absent(), "CuPy, which is not installed"), (installed(device=False), "no usable GPU")):
        with missing:
            for command in (
                ["train", "--resume"],
                ["generate", "--device", "cuda"],
                ["score", "--text", "1", "--device", "cuda"],
            ):
                assert cli.main([*command, str(tmp_path / "run")]) == 2
                assert said in one_line(capsys)
    assert tiny.contents(tmp_path / "run") == before


@pytest.mark.usefixtures("double")
def test_exhausted_memory_of_a_device_names_the_size_and_the_flags_that_lower_it(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(text, tmp_path / "run", "--device", "cuda") == 0
    before = tiny.contents(tmp_path / "run")
    capsys.readouterr()
    size = 3 * 16 * 32 * 4  # the hidden layer of a batch
    with limit_bytes(size - 1):
        assert train(text, tmp_path / "large", "--device", "cuda") == 2
    error = one_line(capsys)
    assert f"Out of memory allocating {size:,} bytes" in error
    assert all(flag in error for flag in ("--batch", "--context", "--width", "--layers"))
    assert tiny.contents(tmp_path / "large") == {}
    with limit_bytes(500):
        for command in (["generate"], ["score", "--text", "3 times 4 is 12."]):
            assert cli.main([*command, str(tmp_path / "run"), "--device", "cuda"]) == 2
            assert "use --device cpu or a run with a smaller model" in one_line(capsys)
    assert tiny.contents(tmp_path / "run") == before


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_says_how_to_need_less_memory(command: str) -> None:
    assert cli.module(command).LESS_MEMORY


def test_exhausted_memory_of_the_host_says_the_same(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise MemoryError("Unable to allocate 1.5 GiB for an array with shape (20000, 20000) and data type float32")

    monkeypatch.setattr("refllm.objectives.causal.causal_loss", exhausted)
    assert train(text, tmp_path / "run") == 2
    error = one_line(capsys)
    assert "1.5 GiB" in error
    assert all(flag in error for flag in ("--batch", "--context", "--width", "--layers"))
    assert tiny.contents(tmp_path / "run") == {}


@pytest.mark.usefixtures("double")
def test_a_driver_without_memory_is_out_of_memory_too(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")

    monkeypatch.setattr("refllm.objectives.causal.causal_loss", refuse)
    assert train(text, tmp_path / "run", "--device", "cuda") == 2
    assert "out of memory" in one_line(capsys)


@pytest.mark.usefixtures("double")
def test_tf32_is_taken_only_where_it_is_asked_for(text: str, tmp_path: Path) -> None:
    """CuPy reads CUPY_TF32 at the first product; a user's own setting of it does not count."""
    for asked, value in ((["--tf32"], "1"), ([], "0")):
        out = tmp_path / f"run{value}"
        assert train(text, out, "--device", "cuda", *asked) == 0
        assert os.environ["CUPY_TF32"] == value
        assert json.loads((out / "summary.json").read_text())["tf32"] is (value == "1")
        for command in (["generate", "--tokens", "1"], ["score", "--text", "11"]):
            os.environ["CUPY_TF32"] = "unsaid"
            assert cli.main([*command, str(out), "--device", "cuda", *asked]) == 0
            assert os.environ["CUPY_TF32"] == value
    os.environ["CUPY_TF32"] = "unsaid"
    assert cli.main(["train", "--resume", str(tmp_path / "run1")]) == 0
    assert os.environ["CUPY_TF32"] == "1"  # a run keeps its settings


def test_tf32_without_a_gpu_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["train", "--data", text, "--out", str(tmp_path / "run")],
        ["generate", str(tmp_path)],
        ["score", str(tmp_path), "--text", "11"],
    ):
        assert cli.main([*command, "--tf32"]) == 2
        assert "--tf32 is for a GPU; add --device cuda or leave it out" in one_line(capsys)
    assert os.environ["CUPY_TF32"] == "unsaid"
