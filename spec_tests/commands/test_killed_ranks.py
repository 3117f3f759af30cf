"""A rank that is killed at any moment ends the job at once, and the run goes on to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.checkpoint import load
from spec_tests import tiny
from spec_tests.commands.test_following import CUT, LAYERS, arrays, by_mpi, carried_out

RANKS, PROMPTLY = 4, 10.0  # seconds
SEED, MOMENTS = 7452, 20
SIZES = (
    *("--model", "gpt", "--width", "64", "--layers", "2", "--heads", "2", "--batch", "5", "--context", "16"),
    *("--tokenizer", "character", "--dropout", "0.1", "--seed", "3", "--steps", "120", "--reports", "40"),
)  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


@dataclass(frozen=True)
class Moment:
    """When which rank is killed."""

    number: int
    rank: int
    after: float  # share of the time from the first checkpoint to the end of the training
    in_checkpoint: bool  # not before a checkpoint is being written
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        return " ".join([*self.flags[1:], str(self.number)])


def moments(count: int, *flags: tuple[str, ...]) -> list[Moment]:
    """So many at random, half of them in a checkpoint, the flags in turn."""
    random = numpy.random.default_rng([SEED, len(flags)])
    return [
        Moment(
            n, int(random.integers(RANKS)), float(random.uniform(0, 0.7)), n % 2 == 1, flags[n // 2 % len(flags)]
        )
        for n in range(count)
    ]  # fmt: skip


ALL = [*moments(MOMENTS, (), CUT), *moments(MOMENTS, LAYERS)]
IN_EVERY_RUN = "optimizer 3"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, float]]:
    """A run with these flags that nobody disturbs, and the seconds from its first checkpoint to its last report."""
    return cache(lambda *flags: went_through(tmp_path_factory.mktemp("undisturbed"), flags))


def went_through(folder: Path, flags: tuple[str, ...]) -> tuple[Path, float]:
    job = started(folder, *flags)
    first = waited(job, (folder / "run" / "checkpoint" / "state.json").exists)
    last = waited(job, lambda: lines(folder) >= 40)
    _, said = job.communicate(timeout=120)
    assert job.returncode == 0, said
    return folder / "run", last - first


def lines(folder: Path) -> int:
    return len((folder / "run" / "metrics.jsonl").read_bytes().splitlines())


def started(folder: Path, *flags: str) -> subprocess.Popen[str]:
    words = ["train", "--data", str(tiny.data(folder)), "--out", str(folder / "run"), *SIZES, "--ranks", str(RANKS)]
    return subprocess.Popen(
        [sys.executable, "-m", "refllm", *words, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=ENVIRONMENT,
    )  # fmt: skip


def waited(job: subprocess.Popen[str], there: Any, *, seconds: float = 180) -> float:
    """The time at which something is there."""
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until
        assert job.poll() is None, job.stderr.read() if job.stderr else ""
        time.sleep(0.0005)
    return time.monotonic()


def processes_of(parent: int) -> dict[int, tuple[str, bool]]:
    """What a process has started, and what these have: their birth, and whether each is a rank."""
    parents, births = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)], births[int(entry.name)] = int(fields[1]), fields[19]
    found: dict[int, tuple[str, bool]] = {}
    generation = [parent]
    while generation:
        generation = [pid for pid, of in parents.items() if of in generation]
        found |= {pid: (births[pid], is_rank(pid)) for pid in generation}
    return found


def is_rank(pid: int) -> bool:
    try:
        return b"PMI_RANK=" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def is_left(pid: int, birth: str) -> bool:
    """Whether this process, and no other of its number, is alive."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[19] == birth and fields[0] not in "ZX"


def killed(folder: Path, moment: Moment, seconds: float) -> tuple[int, float]:
    """Kills a rank at that moment: the step of the checkpoint that is left, and how long the job took to end."""
    job = started(folder, *moment.flags)
    try:
        checkpoint = folder / "run" / "checkpoint"
        waited(job, (checkpoint / "state.json").exists)
        time.sleep(moment.after * seconds)
        of_job = processes_of(job.pid)
        of_ranks = sorted(pid for pid, (_, rank) in of_job.items() if rank)
        assert len(of_ranks) == RANKS
        if moment.in_checkpoint:
            waited(job, lambda: any(name.endswith(".partial") for name in os.listdir(checkpoint)))
        os.kill(of_ranks[moment.rank], signal.SIGKILL)
        since = time.monotonic()
        _, said = job.communicate(timeout=PROMPTLY)
        took = time.monotonic() - since
    finally:
        job.kill()
    assert job.returncode == 2, said
    assert "a rank has ended from outside, and the others with it" in said.splitlines()[-1], said
    left = {pid for pid, (birth, _) in of_job.items() if is_left(pid, birth)}
    assert not left
    return load(checkpoint)[0]["step"], took


@by_mpi
@pytest.mark.parametrize(
    "moment",
    [pytest.param(one, id=one.name, marks=() if one.name == IN_EVERY_RUN else pytest.mark.slow) for one in ALL],
)
def test_a_rank_that_is_killed_ends_the_job_and_the_run_goes_on_to_the_same_bits(
    tmp_path: Path, undisturbed: Callable[..., tuple[Path, float]], moment: Moment
) -> None:
    whole, seconds = undisturbed(*(LAYERS if moment.flags == LAYERS else ()))  # which takes longer
    step, took = killed(tmp_path, moment, seconds)
    print(f"{moment}: the job ended in {took:.2f} s, saved were {step} steps")  # shown with -rP
    resumed = ["train", "--resume", str(tmp_path / "run"), "--ranks", str(RANKS), *moment.flags]
    done = carried_out([sys.executable, "-m", "refllm", *resumed])
    assert done.returncode == 0, done.stderr
    left, right = arrays(whole), arrays(tmp_path / "run")
    assert {name: x.tobytes() for name, x in left.items()} == {name: x.tobytes() for name, x in right.items()}
    assert tiny.metrics(tmp_path / "run") == tiny.metrics(whole)
