"""One process of `scripts/measure_scaling.py`, which mpiexec starts: the ranks' own code trains a GPT on random tokens.

It is called with JSON, "what" to measure, the "sizes" and how many "steps"; rank 0 prints JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]
from refllm import ranks
from refllm.models import gpt
from refllm.objectives.causal import Causal
from refllm.parameters import count
from refllm.ranks import END, Ranks, answered
from refllm.train import Settings, Trainer
from refllm.workers import Workers, keep_freed_memory


class Timed:
    """A communicator that waits before each exchange until all are there: what that takes is waiting, and the exchange
    itself is sending. Numbers of arrays that leave this rank are counted in bytes."""

    def __init__(self, world: Any) -> None:
        self._world, self.rank, self.size = world, world.rank, world.size
        self.calls: list[tuple[float, float, int, float]] = []  # waiting, sending, bytes, when it was over

    def __getattr__(self, name: str) -> Callable[..., Any]:
        exchange = getattr(self._world, name)

        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            self._world.Barrier()
            begun = time.perf_counter()
            found = exchange(*arguments, **keywords)
            over = time.perf_counter()
            self.calls.append((begun - start, over - begun, self._left(name, arguments), over))
            return found

        return timed

    def _left(self, name: str, arguments: Any) -> int:
        if name == "Alltoallv":
            vector, sizes, *_ = arguments[0]
            return int((sum(sizes) - sizes[self.rank]) * vector.itemsize)
        return 0

    def parts(self, start: float, steps: int) -> list[list[float]]:
        """Of each step since then: how long it was, waiting, sending, bytes. The last call, in none, ended them."""
        a_step, found = (len(self.calls) - 1) // steps, []
        for number in range(steps):
            calls = self.calls[a_step * number : a_step * (number + 1)]
            waiting, sending, sent, _ = (sum(column) for column in zip(*calls, strict=True))
            found.append([calls[-1][3] - start, waiting, sending, sent])
            start = calls[-1][3]
        return found


def trainer_of(sizes: dict[str, Any], workers: Workers) -> Trainer:
    config = gpt.Config(
        vocabulary=sizes["vocabulary"], context=sizes["context"], layers=sizes["layers"], heads=sizes["heads"],
        width=sizes["width"], hidden=4 * sizes["width"],
    )  # fmt: skip
    settings = Settings(
        batch=sizes["batch"], lr=1e-3, warmup=0.0, floor=1.0, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.1, clip=1.0,
        seed=1, shards=1, dtype="float32", device="cpu",
    )  # fmt: skip
    return Trainer(model=gpt, config=config, objective=Causal(gpt, config), settings=settings, workers=workers)


def batch_of(sizes: dict[str, Any], texts: int) -> Any:
    return numpy.random.default_rng(0).integers(0, sizes["vocabulary"], (texts, sizes["context"] + 1))


def followed(workers: Ranks, trainer: Trainer, until: Any) -> None:
    """What a rank that does not lead does until the leader says `until`."""
    while True:
        what, about = workers.world.bcast(None)
        if what == until:
            return
        workers.world.gather(answered(trainer._part, workers.world.rank, *about))


def stepped(trainer: Trainer, batch: Any, steps: int) -> list[float]:
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        trainer.step(batch, lr=1e-3)
        seconds.append(time.perf_counter() - start)
    return seconds


def cost(world: Any, sizes: dict[str, Any], steps: int) -> dict[str, Any]:
    """The fastest step, since other programs only add to it: without a clock in it, and what it goes into on the mean
    of the ranks, in seconds."""
    timed, batch = Timed(world), batch_of(sizes, sizes["batch"] * world.size)
    found: dict[str, Any] = {}
    for name, each in (("whole", world), ("parts", timed)):
        with Ranks(each) as workers:
            trainer = trainer_of(sizes, workers)
            if world.rank == 0:
                trainer.initialise()
                stepped(trainer, batch, 2)
                each.bcast((END, None))
            else:
                followed(workers, trainer, END)
            timed.calls.clear()
            world.Barrier()
            start = time.perf_counter()
            if world.rank == 0:
                found[name] = min(stepped(trainer, batch, steps))
                each.bcast((END, None))
            else:
                followed(workers, trainer, END)
    all_of_them = world.gather(timed.parts(start, steps))
    if world.rank:
        return {}
    fastest = min(range(steps), key=lambda step: all_of_them[0][step][0])
    parts = zip(*(rank[fastest] for rank in all_of_them), strict=True)
    whole, waiting, sending, sent = (statistics.mean(column) for column in parts)
    return {
        "processes": world.size, "step": found["whole"], "step_with_clocks": whole,
        "compute": whole - waiting - sending, "waiting": waiting, "sending": sending, "bytes_sent": sent,
        "parameters": count(trainer.shapes),
    }  # fmt: skip


def weak(world: Any, sizes: dict[str, Any], steps: int) -> dict[str, Any]:
    """Rounds in turn: rank 0 alone with one batch while the others sleep, then all with one batch each."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[world.rank % len(cores)]})
    own, together = batch_of(sizes, sizes["batch"]), batch_of(sizes, sizes["batch"] * world.size)
    alone: list[float] = []
    shared: list[float] = []
    with Workers(1) as one, Ranks(world) as workers:
        single, trainer = trainer_of(sizes, one), trainer_of(sizes, workers)
        for one_of_them in (single, trainer):
            if world.rank == 0:
                one_of_them.initialise()
        for number in range(sizes["rounds"] + 1):
            if world.rank == 0:
                seconds = stepped(single, own, steps)
                for rank in range(1, world.size):
                    world.send(None, rank)
                more = stepped(trainer, together, steps)
                world.bcast((END, None))
                if number:  # the first is to warm up
                    alone += [statistics.mean(seconds)]
                    shared += [statistics.mean(more)]
            else:
                while not world.iprobe(source=0, tag=0):  # MPI would wait by looking all the time
                    time.sleep(0.002)
                world.recv(source=0)
                followed(workers, trainer, END)
    if world.rank:
        return {}
    return {"processes": world.size, "cores": len(cores), "alone": alone, "together": shared}


def link(world: Any, sizes: dict[str, Any], steps: int) -> dict[str, Any]:
    """Half of the way there and back between ranks 0 and 1: an empty message, and one of many bytes."""
    found = {}
    for size in sizes["messages"]:
        buffer = numpy.zeros(size, "uint8")
        seconds = []
        for _ in range(steps):
            world.Barrier()
            start = time.perf_counter()
            if world.rank == 0:
                world.Send(buffer, 1)
                world.Recv(buffer, 1)
            elif world.rank == 1:
                world.Recv(buffer, 0)
                world.Send(buffer, 0)
            seconds.append((time.perf_counter() - start) / 2)
        found[str(size)] = statistics.median(seconds)
    return {"processes": world.size, "seconds": found}


def main() -> None:
    asked = json.loads(sys.argv[1])
    keep_freed_memory()
    world = ranks.communicator()
    measure = {"cost": cost, "weak": weak, "link": link}[asked["what"]]
    found = measure(world, asked["sizes"], asked["steps"])
    if world.rank == 0:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
