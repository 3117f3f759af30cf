"""The fastest cut that fits into the memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from refllm.errors import UserError
from refllm.scaling.cuts import STATES, WHOLE, Cut
from refllm.scaling.machines import Machine
from refllm.scaling.memory import needed
from refllm.scaling.steps import predicted
from refllm.scaling.workloads import Workload

MICRO = (1, 2, 4, 8, 16)  # texts


def cuts(workload: Workload, machine: Machine, processes: int) -> Iterator[Cut]:
    """All that give every process work: tensors within a node, layers, widths and places in equal parts."""
    for tensor in _divisors(processes, workload.width):
        for pipeline in _divisors(processes // tensor, workload.layers):
            for sequence in _divisors(processes // tensor // pipeline, workload.context):
                data = processes // tensor // pipeline // sequence
                if data <= workload.batch and tensor <= machine.node:
                    yield from _with_details(Cut(data, tensor, pipeline, sequence), workload)


def _with_details(cut: Cut, workload: Workload) -> Iterator[Cut]:
    for state in STATES if cut.copies > 1 else (WHOLE,):
        for micro in MICRO:
            if micro <= cut.texts(workload):
                yield from (replace(cut, state=state, micro=micro, recompute=again) for again in (False, True))


def best(workload: Workload, machine: Machine, processes: int) -> Cut:
    """The cut with the least time of a step of all that fit, and of equal ones the first: the fewest kinds of cuts.
    UserError where none fits."""
    there = list(cuts(workload, machine, processes))
    if not there:
        raise UserError(
            f"{workload.batch} texts a batch give {processes} processes nothing to do, however the model is cut; "
            "take fewer processes, or a larger batch"
        )
    fitting = [cut for cut in there if needed(workload, cut) <= machine.memory]
    if not fitting:
        least = min(needed(workload, cut) for cut in there)
        raise UserError(
            f"{processes} processes of {machine.memory / 1e9:,.0f} GB are too few for this model, which needs "
            f"{least / 1e9:,.0f} GB on each of them; take more"
        )
    return min(fitting, key=lambda cut: predicted(workload, machine, cut).total)


def _divisors(n: int, other: int) -> list[int]:
    """What divides both."""
    both = math.gcd(n, other)
    return [d for d in range(1, both + 1) if both % d == 0]
