"""Laws of a training on several ranks, which mpiexec starts."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm import ranks
from refllm.checkpoint import load
from refllm.cli import main
from refllm.commands import following
from refllm.errors import UserError
from spec_tests import tiny

by_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None, reason="needs mpi4py and an MPI: pip install mpi4py mpich"
)
SMALL = (
    *("--width", "16", "--layers", "1", "--heads", "2", "--batch", "5", "--context", "16", "--dtype", "float64"),
    *("--tokenizer", "character", "--seed", "3", "--reports", "2"),
)  # fmt: skip


def command(folder: Path, out: str, *flags: str) -> list[str]:
    data = str(tiny.data(folder))
    return [sys.executable, "-m", "refllm", "train", "--data", data, "--out", str(folder / out), *SMALL, *flags]


def carried_out(words: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment, check=False, **how)


def arrays(directory: Path) -> dict[str, Any]:
    """Weights and moments of the checkpoint."""
    held = load(directory / "checkpoint")[1]
    return {f"{group} {name}": x for group in ("weights", "moment1", "moment2") for name, x in held(group).items()}


def require_near(one: Path, other: Path) -> None:
    left, right = arrays(one), arrays(other)
    assert left.keys() == right.keys()
    for name, x in left.items():
        numpy.testing.assert_allclose(right[name], x, rtol=1e-8, atol=1e-12, err_msg=name)


@by_mpi
def test_two_ranks_leave_what_one_process_leaves_and_the_same_bits_again(tmp_path: Path) -> None:
    for out, flags in (("one", ["--threads", "1"]), ("two", ["--ranks", "2"]), ("again", ["--ranks", "2"])):
        done = carried_out(command(tmp_path, out, "--steps", "8", *flags))
        assert done.returncode == 0, done.stderr
    require_near(tmp_path / "one", tmp_path / "two")
    for name, x in arrays(tmp_path / "two").items():
        assert x.tobytes() == arrays(tmp_path / "again")[name].tobytes(), name
    one, two = (tiny.metrics(tmp_path / out)[-1] for out in ("one", "two"))
    assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-9)


@by_mpi
@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path: Path) -> None:
    assert carried_out(command(tmp_path, "one", "--steps", "8", "--threads", "1")).returncode == 0
    assert carried_out(command(tmp_path, "some", "--steps", "4", "--ranks", "3")).returncode == 0
    longer = [
        sys.executable,
        "-m",
        "refllm",
        "train",
        "--resume",
        str(tmp_path / "some"),
        "--steps",
        "4",
        "--ranks",
        "2",
    ]
    done = carried_out(longer)
    assert done.returncode == 0, done.stderr
    assert tiny.metrics(tmp_path / "some")[-1]["step"] == 8


@by_mpi
@pytest.mark.parametrize("moment", [pytest.param(n, marks=() if n == 3 else pytest.mark.slow) for n in range(20)])
def test_a_rank_that_is_killed_ends_the_job_and_the_run_goes_on(tmp_path: Path, moment: int) -> None:
    words = command(tmp_path, "run", "--steps", "100000", "--ranks", "3", "--reports", "2000")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    job = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        until = time.monotonic() + 90
        while not (tmp_path / "run" / "checkpoint" / "state.json").exists():
            assert time.monotonic() < until
            assert job.poll() is None, job.stderr.read() if job.stderr else ""
            time.sleep(0.05)
        time.sleep(numpy.random.default_rng(moment).uniform(0, 1))
        of_job = ranks_of(str(tmp_path / "run"))
        assert len(of_job) == 3
        os.kill(of_job[moment % 3], signal.SIGKILL)
        _, said = job.communicate(timeout=10)
    finally:
        job.kill()
    assert job.returncode == 2
    assert "a rank has ended from outside" in said
    assert ranks_of(str(tmp_path / "run")) == []
    before = load(tmp_path / "run" / "checkpoint")[0]["step"]
    assert before > 0


def ranks_of(directory: str) -> list[int]:
    """The processes of a job that train into this directory, but for the one that has started them."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
            environment = (entry / "environ").read_bytes() if directory in words else b""
        except OSError:
            continue
        if b"PMI_RANK=" in environment and "mpiexec" not in words[0] and "refllm" in words:
            found.append(int(entry.name))
    return sorted(found)


def test_without_mpi4py_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("PMI_SIZE", raising=False)
    assert main(["train", "--ranks", "2"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "mpi4py" in said
    assert "install" in said


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["train", "--ranks", "2", "--steps", "3"], ["train", "--steps", "3"]),
        (["train", "--ranks=2"], ["train"]),
        (["train", "--steps", "2"], ["train", "--steps", "2"]),
    ],
)
def test_the_ranks_are_asked_for_once(words: list[str], kept: list[str]) -> None:
    assert following.without_ranks(words) == kept


def test_what_mpiexec_started_must_be_what_is_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 2)
    for words, said in (
        (["train", "--ranks", "3"], "--ranks says 3"),
        (["runs"], "only commands that train"),
        (["train", "--device", "cuda"], "processors alone"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err


def test_no_ranks_are_refused(capsys: Any) -> None:
    assert main(["train", "--ranks", "0"]) == 2
    assert "--ranks must be at least 1" in capsys.readouterr().err


def test_an_installed_mpi_is_asked_for_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="need mpi4py"):
        ranks.require_installed()
