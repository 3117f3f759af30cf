"""A training on several ranks: `--ranks N` starts them, rank 0 leads, the others do what it asks."""

from __future__ import annotations

import argparse
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from refllm import ranks
from refllm.commands.progress import MOMENT
from refllm.commands.streams import lead_nowhere
from refllm.errors import UserError
from refllm.extras import how_to_install
from refllm.ranks import Ranks, answered
from refllm.run import measures
from refllm.state_file import made_of
from refllm.tasks import load
from refllm.train import Settings, Trainer
from refllm.workers import ENDING, keep_freed_memory

Command = Callable[[argparse.Namespace], int]


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
    """The command, on as many ranks as it asks for or was started on; its exit status."""
    asked, there = options.ranks if hasattr(options, "ranks") else None, ranks.count()
    if asked is not None and asked < 1:
        raise UserError(f"--ranks must be at least 1, got {asked}")
    if there == 1 and asked is not None and asked > 1:
        return started(asked, words)
    if there == 1:
        return int(options.run(options))
    if not hasattr(options, "ranks"):
        raise UserError("mpiexec starts several processes, which only commands that train make use of; leave it out")
    if asked not in (None, there):
        raise UserError(f"mpiexec has started {there} processes, and --ranks says {asked}; leave --ranks out")
    return leading(options) if ranks.number() == 0 else following(options.shard)


def started(count: int, words: Sequence[str]) -> int:
    """mpiexec with the same command; its exit status, which is that of rank 0 where all ranks end by themselves."""
    ranks.require_installed()
    beside = Path(sys.executable).parent / "mpiexec"
    program = str(beside) if beside.exists() else shutil.which("mpiexec")
    if program is None:
        raise UserError(f"--ranks needs mpi4py and an MPI with its mpiexec; install them: {how_to_install('mpi')}")
    command = [program, "-n", str(count), sys.executable, "-m", "refllm", *without_ranks(words)]
    status = carried_out(command)
    if status not in (0, 2, 130):
        raise UserError(
            f"a rank has ended from outside, and the others with it (status {status}); what was saved before is whole: "
            "go on with --resume and the directory of the run"
        )
    return status


def carried_out(command: Sequence[str]) -> int:
    """The exit status of mpiexec. What asks this process to end goes to it as Ctrl-C, which it passes on to the ranks,
    whose leader saves and ends. By another signal it would kill them all; in a session of its own it gets none."""
    first = math.inf

    def pass_on(number: int, _: object) -> None:
        nonlocal first
        now = time.monotonic()
        if first == math.inf or (number == signal.SIGINT and now - first > MOMENT):
            job.send_signal(signal.SIGINT)  # of the second one mpiexec kills the ranks
        first = min(first, now)

    with subprocess.Popen(command, start_new_session=True) as job:
        numbers = [n for n in ENDING if signal.getsignal(n) is not signal.SIG_IGN]
        before = {n: signal.signal(n, pass_on) for n in numbers}
        try:
            return job.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def without_ranks(words: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        if skip or word == "--ranks" or word.startswith("--ranks="):
            skip = word == "--ranks" and not skip
            continue
        kept.append(word)
    return kept


def leading(options: argparse.Namespace) -> int:
    """Rank 0 runs the command, and lets the others go however that ends."""
    world = ranks.communicator()
    try:
        return int(options.run(options))
    finally:
        world.bcast((ranks.END, None))


def following(shard: str | None) -> int:
    """The life of another rank, which says nothing and writes nothing."""
    world = ranks.communicator()
    for number in ENDING:  # they go to the whole group; the leader decides when to stop
        signal.signal(number, signal.SIG_IGN)
    lead_nowhere(sys.stdout)
    keep_freed_memory()
    held: Any = None
    workers = Ranks(world, shard=shard)
    with workers:
        while True:
            what, about = world.bcast(None)
            if what == ranks.END:
                return 0
            if what == ranks.TASK:
                held = answered(_made, about, workers)
                world.gather(held if isinstance(held, Exception) else None)
            elif what == ranks.PART:
                world.gather(workers.carried_out(held[1]._part, *about))
            else:
                task, trainer = held
                answered(
                    workers.validate_together,
                    lambda most, task=task, trainer=trainer: measures(task, trainer, most),
                    trainer.vector, about,
                )  # fmt: skip


def _made(description: dict[str, Any], workers: Ranks) -> tuple[Any, Trainer]:
    """The task and the trainer of the leader's run."""
    settings = made_of(Settings, description["settings"])
    workers.settle(settings.device)  # first: the leader waits there for all ranks
    workers.limit(settings.blas_threads)
    task = load(description)
    trainer = Trainer(
        model=task.model, config=task.config, objective=task.objective, settings=settings, workers=workers
    )
    return task, trainer
