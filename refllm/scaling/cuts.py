"""How a model and a batch are cut over processes, and the bytes that each of them sends for it in a step.

Every formula counts what the operations of L7 give to others (refllm/spec/*_parallel.py), and a test counts it there.
A sum over n processes is an Allreduce, of which each sends 2 (n - 1) / n of what it has.
"""

from __future__ import annotations

from dataclasses import dataclass

from refllm.errors import UserError
from refllm.scaling.workloads import Workload

WHOLE, MOMENTS, WEIGHTS = "whole", "moments", "weights"
STATES = (WHOLE, MOMENTS, WEIGHTS)


@dataclass(frozen=True)
class Cut:
    """data · sequence · tensor · pipeline processes. Each group of `tensor` shares the columns, rows and heads of every
    layer and, between them, the places of the norms; each of `pipeline` has layers of its own; each of `sequence` some
    places of a text, keys and values going round; `data` of these have the model, and texts of their own."""

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    sequence: int = 1
    state: str = WHOLE  # or cut over the copies: the moments, or the weights and gradients as well
    micro: int = 1  # texts that go through at once
    recompute: bool = False  # layers keep their inputs alone, and are computed again on the way back

    def __post_init__(self) -> None:
        for name in ("data", "tensor", "pipeline", "sequence", "micro"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.state not in STATES:
            raise UserError(f"state is one of {', '.join(STATES)}, got {self.state!r}")

    @property
    def copies(self) -> int:
        """Processes that use the same weights, each for other tokens."""
        return self.data * self.sequence

    @property
    def processes(self) -> int:
        return self.copies * self.tensor * self.pipeline

    def texts(self, workload: Workload) -> int:
        """Of the process with the most."""
        return -(-workload.batch // self.data)

    def micro_batches(self, workload: Workload) -> int:
        return -(-self.texts(workload) // self.micro)

    def require_fit(self, workload: Workload) -> None:
        """UserError where some processes would have nothing to do."""
        if self.data > workload.batch:
            raise UserError(
                f"{workload.batch} texts a batch are too few for {self.data} processes; cut the model instead"
            )
        if self.pipeline > workload.layers:
            raise UserError(f"{workload.layers} layers are too few for a pipeline of {self.pipeline}")
        for name, there in (("tensor", workload.width), ("sequence", workload.context)):
            if getattr(self, name) > there:
                raise UserError(f"{there} are too few to cut into {getattr(self, name)} parts: lower {name}")


def allreduced(size: float, n: int) -> float:
    """Bytes that each of n processes sends so that all have the sum of `size` bytes each."""
    return 2 * size * (n - 1) / n


def data_bytes(workload: Workload, n: int) -> float:
    """All gradients, once. As much if the moments are cut: gradients to where they are, new weights from there."""
    return allreduced(workload.number * workload.parameters, n)


def sharded_bytes(workload: Workload, n: int) -> float:
    """The weights to all before the forward and before the backward pass, the gradients to where they are. refllm's own
    ranks gather what is outside of the layers once, and send that much less.

    Source:  Rajbhandari et al. 2020 (arXiv:1910.02054) sec. 7.2.2.
    """
    return 1.5 * data_bytes(workload, n)


def tensor_bytes(workload: Workload, n: int, texts: int) -> float:
    """Two sums a layer on the way there (attention, feed-forward) and two on the way back (their inputs' gradients).

    Cut norms change nothing: a reduce-scatter and an allgather are an Allreduce.
    Source:  Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3; Korthikanti et al. 2022 (arXiv:2205.05198) sec. 4.2.2.
    """
    return 4 * workload.layers * allreduced(activation(workload, texts), n)


def ring_bytes(workload: Workload, n: int, texts: int) -> float:
    """Keys and values of 1 / n of the places go n - 1 turns, again on the way back, and their gradients all n turns.

    Source:  Liu et al. 2023 (arXiv:2310.01889) sec. 3.
    """
    if n == 1:
        return 0.0
    pair = 2 * workload.number * texts * workload.context * workload.kv_width
    return workload.layers * pair * (2 * (n - 1) / n + 1)


def pipeline_bytes(workload: Workload, texts: int) -> float:
    """Of a process amid the others: hidden states to the next, gradients to the one before."""
    return 2 * activation(workload, texts)


def expert_bytes(workload: Workload, n: int, texts: int, *, chosen: int = 1) -> float:
    """Each token to its `chosen` experts and back, on both ways: (n - 1) / n of them are elsewhere. All layers have
    experts."""
    return 4 * workload.layers * chosen * activation(workload, texts) * (n - 1) / n


def activation(workload: Workload, texts: int) -> float:
    """Bytes of one hidden state of so many texts."""
    return workload.number * texts * workload.context * workload.width
