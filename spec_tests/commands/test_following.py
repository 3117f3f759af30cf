"""Laws of a training on several ranks, which mpiexec starts."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
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


CUT = ("--shard", "optimizer")
LAYERS = ("--shard", "parameters")


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
def test_two_ranks_leave_what_one_process_leaves_and_the_same_bits_again_with_cut_moments_too(tmp_path: Path) -> None:
    ranked = ["--ranks", "2"]
    flags_of = {"one": ["--threads", "1"], "two": ranked, "again": ranked, "cut": [*ranked, *CUT]}
    for out, flags in {**flags_of, "layers": [*ranked, *LAYERS]}.items():
        done = carried_out(command(tmp_path, out, "--steps", "8", *flags))
        assert done.returncode == 0, done.stderr
    require_near(tmp_path / "one", tmp_path / "two")
    for name, x in arrays(tmp_path / "two").items():
        assert x.tobytes() == arrays(tmp_path / "again")[name].tobytes(), name
        assert x.tobytes() == arrays(tmp_path / "cut")[name].tobytes(), name
        assert x.tobytes() == arrays(tmp_path / "layers")[name].tobytes(), name
    one, two, layers = (tiny.metrics(tmp_path / out)[-1] for out in ("one", "two", "layers"))
    assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-9)
    assert layers["val_loss"] == two["val_loss"]


@by_mpi
@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path: Path) -> None:
    assert carried_out(command(tmp_path, "one", "--steps", "8", "--threads", "1")).returncode == 0
    assert carried_out(command(tmp_path, "some", "--steps", "4", "--ranks", "3", *CUT)).returncode == 0
    shutil.copytree(tmp_path / "some", tmp_path / "other")
    for out, cut in (("some", CUT), ("other", LAYERS)):
        longer = ["train", "--resume", str(tmp_path / out), "--steps", "4", "--ranks", "2", *cut]
        done = carried_out([sys.executable, "-m", "refllm", *longer])
        assert done.returncode == 0, done.stderr
        assert tiny.metrics(tmp_path / out)[-1]["step"] == 8
    one, other = (arrays(tmp_path / out) for out in ("some", "other"))
    assert {name: x.tobytes() for name, x in one.items()} == {name: x.tobytes() for name, x in other.items()}


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_asks_to_end_reaches_the_ranks_as_an_interrupt_and_is_waited_for(number: int) -> None:
    """Here a shell in their place, which takes its time."""
    timers = [threading.Timer(seconds, lambda: os.kill(os.getpid(), number)) for seconds in (0.3, 0.35)]  # as `timeout`
    before = signal.getsignal(number)
    for timer in timers:
        timer.start()
    saving = "trap 'trap \"exit 1\" INT; sleep 0.5; exit 130' INT; trap 'exit 1' TERM HUP; while :; do sleep 0.05; done"
    assert following.carried_out(["sh", "-c", saving]) == 130
    assert signal.getsignal(number) is before


@by_mpi
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("cut", [(), LAYERS])
def test_a_training_that_is_stopped_is_saved(tmp_path: Path, number: int, cut: tuple[str, ...]) -> None:
    """The signal goes to the group, as from a terminal, or from `timeout`."""
    words = command(tmp_path, "run", "--steps", "1000000", "--reports", "100000", "--ranks", "3", *cut)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    job = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        assert job.stdout is not None
        while not job.stdout.readline().startswith("step"):
            assert job.poll() is None
        os.killpg(job.pid, number)
        said, _ = job.communicate(timeout=60)
    finally:
        job.kill()
    assert job.returncode == 130
    assert f"Stopped at step {load(tmp_path / 'run' / 'checkpoint')[0]['step']:,} and saved" in said


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
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("cut", [CUT, LAYERS])
def test_what_one_process_has_is_not_cut(tmp_path: Path, capsys: Any, cut: tuple[str, str]) -> None:
    words = ["train", "--data", str(tiny.data(tmp_path)), "--out", str(tmp_path / "run"), *SMALL]
    assert main([*words, *cut]) == 2
    assert f"{' '.join(cut)} cuts over several ranks; give --ranks" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_no_ranks_are_refused(capsys: Any) -> None:
    assert main(["train", "--ranks", "0"]) == 2
    assert "--ranks must be at least 1" in capsys.readouterr().err


def test_an_installed_mpi_is_asked_for_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="need mpi4py"):
        ranks.require_installed()
