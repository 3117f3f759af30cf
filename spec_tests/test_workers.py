"""Laws of the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from refllm.errors import UserError
from refllm.workers import CAN_FORK, Workers, available_cores, require_threads


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_the_order_of_the_arguments(count: int) -> None:
    with Workers(count) as workers:
        assert workers.map(lambda a, b: a * b, range(50), range(50)) == [n * n for n in range(50)]


def test_shards_run_at_the_same_time() -> None:
    """Each waits for the other: one after the other, they would wait for ever."""
    meeting = threading.Barrier(2, timeout=10)
    with Workers(2) as workers:
        assert sorted(workers.map(lambda _: meeting.wait(), range(2))) == [0, 1]


def test_an_error_in_a_shard_reaches_the_caller_and_the_pool_closes() -> None:
    with pytest.raises(ZeroDivisionError), Workers(2) as workers:
        workers.map(lambda n: 1 / n, [1, 0])
    assert not any(thread.name.startswith("shard") for thread in threading.enumerate())


def blas_threads() -> list[Any]:
    from threadpoolctl import threadpool_info

    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("count", [1, 2])
def test_blas_has_one_thread_while_the_pool_is_open_and_its_own_number_after(count: int) -> None:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with Workers(count) as workers:
            assert set(workers.map(lambda _: tuple(blas_threads()), range(2))) == {(1,) * len(before)}
        assert blas_threads() == before
        assert set(before) <= {2}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux limits a process to some cores")
def test_the_cores_that_a_process_was_given_count_not_those_of_the_machine() -> None:
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    script += "from refllm.workers import available_cores; print(available_cores())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert available_cores() == len(os.sched_getaffinity(0))


def test_keeping_freed_memory_changes_no_number() -> None:
    script = (
        "import sys, numpy; from refllm.workers import keep_freed_memory\n"
        "kept = keep_freed_memory() if sys.argv[1] == 'keep' else None\n"
        "x = numpy.random.default_rng(0).random((300, 300))\n"
        "for _ in range(5): x = numpy.tanh(x - x.mean())\n"
        "print(float(x.sum()), kept in (None, sys.platform.startswith('linux')))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script, how], capture_output=True, text=True, check=True).stdout
        for how in ("keep", "leave")
    ]
    assert runs[0] == runs[1]
    assert runs[0].endswith("True\n")


def served(part: int, what: str) -> Any:
    if what == "process":
        return os.getpid()
    if what == "divide":
        return 1 / part
    if what == "die" and part == 1:
        os._exit(9)
    return part


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_crew_answers_part_by_part(count: int, fork: bool) -> None:
    with Workers(count) as workers:
        ask = workers.crew(served, fork=fork)
        assert ask("part") == list(range(count))
        assert len(set(ask("process"))) == (count if fork and CAN_FORK else 1)


@pytest.mark.parametrize("fork", [False, True])
def test_an_error_in_any_part_reaches_the_caller_and_the_next_request_has_its_own_answers(fork: bool) -> None:
    with Workers(3) as workers:
        ask = workers.crew(served, fork=fork)
        with pytest.raises(ZeroDivisionError):
            ask("divide")
        assert ask("part") == [0, 1, 2]


needs_fork = pytest.mark.skipif(not CAN_FORK, reason="workers are processes on Linux only")


@needs_fork
def test_a_worker_that_was_killed_is_reported_in_one_line() -> None:
    with Workers(2) as workers:
        ask = workers.crew(served, fork=True)
        with pytest.raises(UserError, match="a worker process was ended from outside"):
            ask("die")


@needs_fork
@pytest.mark.parametrize("end", ["closed", "killed"])
def test_no_worker_outlives_its_parent(end: str) -> None:
    script = (
        "import os, sys\n"
        "from refllm.workers import Workers\n"
        "with Workers(3) as workers:\n"
        "    print(*workers.crew(lambda part: os.getpid(), fork=True)(), flush=True)\n"
        f"    os.kill(os.getpid(), 9) if {end == 'killed'} else None\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    processes = [int(number) for number in done.stdout.split()]
    assert len(set(processes)) == 3
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{number}") for number in processes) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [number for number in processes if os.path.exists(f"/proc/{number}")]


@needs_fork
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2"])
def test_a_signal_to_the_group_ends_no_worker_while_the_parent_lives(number: str) -> None:
    with Workers(3) as workers:
        ask = workers.crew(served, fork=True)
        for process in ask("process")[1:]:
            os.kill(process, getattr(signal, number))
        time.sleep(0.05)
        assert ask("part") == [0, 1, 2]


@needs_fork
@pytest.mark.parametrize("part", [1, 2])
def test_a_worker_that_has_gone_before_it_is_asked_is_reported_in_the_same_line(part: int) -> None:
    """The request finds no reader then, where otherwise the answer finds no writer."""
    with Workers(3) as workers:
        ask = workers.crew(served, fork=True)
        process = ask("process")[part]
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        with pytest.raises(UserError, match="a worker process was ended from outside"):
            ask("part")


@needs_fork
def test_python_ends_though_nobody_has_closed_the_workers() -> None:
    script = (
        "from refllm.workers import Workers\n"
        "workers = Workers(3).__enter__()\n"
        "print(workers.crew(lambda part: part, fork=True)())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[0, 1, 2]\n", "")


def test_more_threads_than_a_machine_can_use_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refllm.workers.available_cores", lambda: 2)
    require_threads(32)
    for threads in (0, -1, 33, 1000):
        with pytest.raises(UserError, match=f"threads must be at .*, got {threads}"):
            require_threads(threads)
