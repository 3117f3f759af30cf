"""Laws of ending: whatever ends a training from outside, it is saved, and the command says what became of it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from refllm.cli import main
from refllm.directory import LOCK
from spec_tests import tiny
from spec_tests.commands.conftest import MODEL

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals, forked workers and /proc")
ROOT = str(Path(__file__).parents[2])
ENVIRONMENT = {**os.environ, "PYTHONPATH": ROOT, "PYTHONUNBUFFERED": "1"}
COMMAND = shlex.join([sys.executable, "-m", "refllm"])
ENDLESS = ["--steps", "1000000", "--reports", "100000"]


def words(folder: Path, *more: str, out: str = "r", threads: int = 2) -> list[str]:
    data = str(tiny.data(folder))
    return ["train", "--data", data, "--model", "gpt", "--out", out, *MODEL, "--threads", str(threads), *more]


@contextmanager
def begun(arguments: list[str], *, until: str | None = "step ") -> Iterator[subprocess.Popen[str]]:
    """A command in a group of its own, once it has printed a line that begins so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "refllm", *arguments], env=ENVIRONMENT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        while until is not None and not process.stdout.readline().startswith(until):
            assert process.poll() is None, f"it ended before: {process.stderr and process.stderr.read()}"
        yield process
    finally:
        with process:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def step_of(run: Path) -> int:
    return int(json.loads((run / "checkpoint" / "state.json").read_bytes())["step"])


def last_reported(run: Path) -> int:
    return int(tiny.metrics(run)[-1]["step"])


def to_group(number: int) -> Callable[[int], None]:
    return lambda pid: os.killpg(pid, number)


def as_timeout_does(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    os.killpg(pid, signal.SIGTERM)


ENDS: dict[str, Callable[[int], None]] = {
    "SIGTERM to the group": to_group(signal.SIGTERM), "SIGHUP to the group": to_group(signal.SIGHUP),
    "SIGINT to the group": to_group(signal.SIGINT), "timeout": as_timeout_does,
    "SIGHUP to the process": lambda pid: os.kill(pid, signal.SIGHUP),
    "SIGUSR1 to the process": lambda pid: os.kill(pid, signal.SIGUSR1),
    "SIGUSR2 to the group": to_group(signal.SIGUSR2),
    "SIGXCPU to the process": lambda pid: os.kill(pid, signal.SIGXCPU),
}  # fmt: skip


@pytest.mark.one_in(8)
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_signal_saves_the_step_in_hand_and_leaves_nobody_behind(tmp_path: Path, end: Callable[[int], None]) -> None:
    with begun(words(tmp_path, *ENDLESS)) as process:
        workers = children(process.pid)
        assert workers
        end(process.pid)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    step = step_of(tmp_path / "r")
    assert out.endswith(f"Stopped at step {step:,} and saved. To go on:\n  {COMMAND} train --resume r\n")
    assert step >= last_reported(tmp_path / "r")
    assert not [pid for pid in workers if running(pid)]
    assert not (tmp_path / "r" / LOCK).exists()


@pytest.mark.every
def test_who_ignores_the_end_of_the_terminal_is_not_ended_by_it(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does, for what it starts
    try:
        with begun(words(tmp_path, *ENDLESS)) as process:
            os.killpg(process.pid, signal.SIGHUP)
            reports = len(tiny.metrics(tmp_path / "r"))
            deadline = time.monotonic() + 30
            while len(tiny.metrics(tmp_path / "r")) < reports + 3 and time.monotonic() < deadline:
                time.sleep(0.02)
            assert process.poll() is None
            assert len(tiny.metrics(tmp_path / "r")) >= reports + 3
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=60)
        assert process.returncode == 130
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("wait", [0.0, 0.1, pytest.param(0.3, marks=pytest.mark.slow)])
def test_a_killed_worker_ends_the_training_in_one_line(tmp_path: Path, wait: float) -> None:
    with begun(words(tmp_path, *ENDLESS, threads=3)) as process:
        workers = children(process.pid)
        assert len(workers) == 2
        time.sleep(wait)
        os.kill(workers[round(10 * wait) % 2], signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith("refllm: a worker process was ended from outside, most often for lack of memory; use fewer ")
    assert err.endswith("or go on from what is saved with --resume r\n")
    assert err.count("\n") == 1
    assert not [pid for pid in workers if running(pid)]
    assert main(["train", "--resume", "r", "--steps", "1"]) == 2  # it is not complete, and nobody holds it
    assert step_of(tmp_path / "r") >= last_reported(tmp_path / "r") - 1


def test_a_reader_that_leaves_ends_the_training_and_costs_no_step(tmp_path: Path) -> None:
    with begun(words(tmp_path, *ENDLESS)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 141
        err = process.stderr.read()
    step = step_of(tmp_path / "r")
    assert err == f"Stopped at step {step:,} and saved. To go on:\n  {COMMAND} train --resume r\n"
    assert step >= last_reported(tmp_path / "r")


@pytest.mark.every
def test_a_reader_that_leaves_at_the_end_costs_no_summary(tmp_path: Path) -> None:
    whole = words(tmp_path, "--steps", "4", "--reports", "1")
    done = subprocess.run(
        ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "-", sys.executable, "-m", "refllm", *whole],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 141
    assert main(["train", "--resume", "r"]) == 0
    assert step_of(tmp_path / "r") == 4


def with_streams(streams: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'exec "$@" {streams}', "-", sys.executable, "-m", "refllm", *arguments],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_full_disk_behind_the_output_saves_and_says_so(tmp_path: Path) -> None:
    done = with_streams(">/dev/full", *words(tmp_path, *ENDLESS))
    assert done.returncode == 2
    stopped, _, error = done.stderr.partition("\nrefllm: ")
    assert stopped.endswith(f"and saved. To go on:\n  {COMMAND} train --resume r")
    assert error.startswith("cannot write the output: No space left on device; send it elsewhere")
    assert (tmp_path / "r" / "checkpoint" / "state.json").exists()


@pytest.mark.every
@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(tmp_path: Path, streams: str) -> None:
    done = with_streams(streams, *words(tmp_path, "--steps", "3", "--reports", "3"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "" or "1>&-" not in streams
    assert len(tiny.metrics(tmp_path / "r")) == 3
    assert {path.name for path in (tmp_path / "r").iterdir()} == {
        "checkpoint",
        "metrics.jsonl",
        "report.html",
        "summary.json",
    }
    refused = with_streams(streams, "generate", "nowhere")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr == "" or "2>&-" not in streams


@pytest.mark.every
@pytest.mark.parametrize(("streams", "status"), [(">&-", 0), (">/dev/full", 2), ("> >(true)", 141)])
def test_what_is_written_to_nobody_has_a_status_and_no_traceback(run: Path, streams: str, status: int) -> None:
    for command in (["generate", str(run), "--tokens", "1000"], ["score", str(run), "--text", "3 times 4 is 12."]):
        done = with_streams(streams, *command)
        assert done.returncode in (status, 0 if status == 141 else status)  # the reader may not have left in time
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        assert done.stderr.count("\n") == (1 if status == 2 else 0)


@pytest.mark.every
def test_one_process_at_a_time_writes_a_run_and_all_may_read_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with begun(words(tmp_path, *ENDLESS)) as process:
        saved = tmp_path / "r" / "checkpoint" / "state.json"  # a report is printed before it is saved
        while not saved.exists() and process.poll() is None:
            time.sleep(0.01)
        capfd.readouterr()
        for again in (["train", "--resume", "r"], ["pretrain", "--resume", "r"]):
            assert main(again) == 2
            assert capfd.readouterr().err == (
                f"refllm: r is being written by process {process.pid}; wait until it ends, or stop it\n"
            )
        assert main(words(tmp_path, *ENDLESS)) == 2
        assert "is not empty and will not be overwritten" in capfd.readouterr().err
        for _ in range(30):
            assert main(["generate", "r", "--tokens", "1"]) == 0
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)  # the kernel gives the lock back
    assert (tmp_path / "r" / LOCK).exists()
    before = step_of(tmp_path / "r")
    with begun(["train", "--resume", "r"]) as process:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert step_of(tmp_path / "r") > before
    assert not (tmp_path / "r" / LOCK).exists()


@pytest.mark.every
@pytest.mark.parametrize("rest", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_the_same_command_twice_at_once_makes_one_run(tmp_path: Path, rest: int) -> None:
    arguments = words(tmp_path, "--steps", "30", "--reports", "30")
    with begun(arguments, until=None) as one, begun([*arguments, "--seed", str(1 + rest)], until=None) as other:
        ends = [(process.communicate(timeout=120), process.returncode) for process in (one, other)]
    assert sorted(status for _, status in ends) == [0, 2]
    refusal = next(err for (_, err), status in ends if status == 2)
    assert "r is being written by" in refusal or "is not empty and will not be overwritten" in refusal
    assert refusal.count("\n") == 1
    assert [line["step"] for line in tiny.metrics(tmp_path / "r")] == list(range(1, 31))


def test_what_was_killed_before_its_first_save_is_begun_again_by_the_same_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with begun(words(tmp_path, "--steps", "1000000", "--reports", "1"), until="directory") as process:
        os.killpg(process.pid, signal.SIGKILL)
    assert (tmp_path / "r" / LOCK).exists()
    capfd.readouterr()
    assert main(["train", "--resume", "r"]) == 2
    assert "holds nothing to go on with" in capfd.readouterr().err
    assert main(words(tmp_path, "--steps", "2", "--reports", "1")) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_kill_at_any_time_is_made_good(tmp_path: Path, seed: int) -> None:
    """SIGKILL of the whole group, at moments spread over what the command takes."""
    arguments = words(tmp_path, "--steps", "60", "--reports", "20")
    start = time.monotonic()
    with begun([*arguments[:-1], "2", "--out", "whole", "--steps", "60", "--reports", "20"], until=None) as process:
        process.communicate(timeout=120)
    whole, directory = time.monotonic() - start, tmp_path / "r"
    with begun(arguments, until=None) as process:
        time.sleep(whole * (seed + 0.5) / 20)
        with process:
            os.killpg(process.pid, signal.SIGKILL)
    again = ["train", "--resume", "r"] if (directory / "checkpoint" / "state.json").exists() else arguments
    assert main(again) == 0
    assert tiny.metrics(directory) == tiny.metrics(tmp_path / "whole")
