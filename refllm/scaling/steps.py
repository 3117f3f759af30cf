"""The time of a step, by what it goes into, and that of a whole training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from refllm.scaling.cuts import WEIGHTS, Cut, activation, ring_bytes
from refllm.scaling.links import allreduce, allreduce_of_nodes, ring_half
from refllm.scaling.machines import Machine
from refllm.scaling.workloads import Workload

BACKWARD = 2 / 3  # of a step's operations


@dataclass(frozen=True)
class Step:
    """Seconds. What is computed meanwhile is not counted as an exchange."""

    compute: float
    tensor: float  # sums within the layers
    ring: float  # keys and values that go round, as far as no attention is computed meanwhile
    data: float  # gradients, and weights that are cut, as far as nothing is computed meanwhile
    pipeline: float  # hidden states sent on
    bubble: float  # waiting for the first and the last micro-batch
    stragglers: float  # waiting for the slowest process

    @property
    def communication(self) -> float:
        return self.tensor + self.ring + self.data + self.pipeline

    @property
    def waiting(self) -> float:
        return self.bubble + self.stragglers

    @property
    def total(self) -> float:
        return self.compute + self.communication + self.waiting


def predicted(workload: Workload, machine: Machine, cut: Cut) -> Step:
    """A step of a model that is cut so. UserError where some processes would have nothing to do."""
    cut.require_fit(workload)
    micro_batches = cut.micro_batches(workload)
    texts = micro_batches * min(cut.micro, cut.texts(workload))
    passes = 4 / 3 if cut.recompute else 1
    tokens = texts * workload.context / cut.sequence
    rate = machine.flops * machine.share * cut.tensor * cut.pipeline
    compute = passes * tokens * workload.flops / rate
    state = activation(workload, min(cut.micro, cut.texts(workload))) / cut.sequence
    sums = math.ceil(workload.layers / cut.pipeline) * (6 if cut.recompute else 4)
    tensor = micro_batches * sums * allreduce(state, cut.tensor, machine.link(cut.tensor))
    pipeline = 2 * micro_batches * machine.between.message(state / cut.tensor) if cut.pipeline > 1 else 0.0
    attended = passes * tokens * workload.flops_of_attention / rate
    ring = max(0.0, micro_batches * _ring(workload, machine, cut) - machine.overlap * attended)
    busy = compute + tensor + ring + pipeline
    return Step(
        compute=compute, tensor=tensor, ring=ring, pipeline=pipeline, bubble=busy * (cut.pipeline - 1) / micro_batches,
        data=_exposed(workload, machine, cut, compute), stragglers=compute * slowest(machine.spread, cut.processes),
    )  # fmt: skip


def _ring(workload: Workload, machine: Machine, cut: Cut) -> float:
    """Of a micro-batch, in the layers of a process: messages as in `ring_bytes`, a turn each."""
    if cut.sequence == 1:
        return 0.0
    link = machine.link(cut.sequence * cut.tensor)
    turns = (3 * (cut.sequence - 1) + 1) * math.ceil(workload.layers / cut.pipeline)
    sent = ring_bytes(workload, cut.sequence, min(cut.micro, cut.texts(workload))) / (cut.tensor * cut.pipeline)
    return turns * link.latency + sent / link.bandwidth


def _exposed(workload: Workload, machine: Machine, cut: Cut, compute: float) -> float:
    """Gradients are sent during the backward pass of the last micro-batch. Weights that are cut are gathered before
    each pass of each micro-batch, and their gradients sent after it, while the layers beside are computed."""
    if cut.copies == 1:
        return 0.0
    size, n = workload.number * workload.parameters / (cut.tensor * cut.pipeline), cut.micro_batches(workload)
    beside = max(1, machine.node // cut.tensor)
    if cut.state == WEIGHTS:
        link = machine.link(cut.copies * cut.tensor)
        return max(0.0, 3 * n * ring_half(size, cut.copies, link) - machine.overlap * compute)
    sent = allreduce_of_nodes(size, cut.copies, node=beside, inside=machine.inside, between=machine.between)
    return max(0.0, sent - machine.overlap * BACKWARD * compute / n)


def slowest(spread: float, n: int) -> float:
    """By how much the slowest of n processes is expected to be later than the mean, at most, as a share of it.

    The expected maximum of n normal numbers is at most √(2 ln n) deviations: for every s, e^{s E max} ≤ E e^{s max} ≤
    Σ E e^{s x} = n e^{s² / 2}, and s = √(2 ln n) gives it.
    """
    return spread * math.sqrt(2 * math.log(n))


@dataclass(frozen=True)
class Training:
    """All steps of it."""

    seconds: float
    processes: int
    price: float  # an hour, of a process

    @property
    def days(self) -> float:
        return self.seconds / 86400

    @property
    def process_hours(self) -> float:
        return self.seconds * self.processes / 3600

    @property
    def money(self) -> float:
        return self.process_hours * self.price


def trained(workload: Workload, machine: Machine, cut: Cut) -> Training:
    return Training(predicted(workload, machine, cut).total * workload.steps, cut.processes, machine.price)
