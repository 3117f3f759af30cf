"""What a process has: numbers of a data sheet, or measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from refllm.errors import UserError
from refllm.scaling.links import Link


@dataclass(frozen=True)
class Machine:
    """One process of it, and how it reaches the others."""

    flops: float  # a second, at most
    share: float  # of that, what a model reaches while it computes
    memory: float  # bytes
    node: int  # processes that stand together
    inside: Link  # between two of a node
    between: Link  # between nodes, for each process
    price: float  # an hour, of one process: whoever pays says it
    spread: float = 0.0  # standard deviation of the time that processes compute, as a share of it
    overlap: float = 0.0  # the share of the backward pass during which gradients are exchanged

    def __post_init__(self) -> None:
        for name in ("flops", "memory"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be a finite number above 0, got {getattr(self, name):g}")
        for name in ("price", "spread"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be a finite number from 0, got {getattr(self, name):g}")
        if not 0 < self.share <= 1 or not 0 <= self.overlap <= 1:
            raise UserError(f"share and overlap are parts of 1, got {self.share:g} and {self.overlap:g}")
        if self.node < 1:
            raise UserError(f"node must be at least 1, got {self.node}")

    def link(self, n: int) -> Link:
        """That of n processes beside each other."""
        return self.inside if n <= self.node else self.between


# Data sheets: NVIDIA A100 80GB SXM (dense bfloat16; NVLink 300 GB/s a direction; InfiniBand HDR, 200 Gb/s a GPU), H100
# SXM (NVLink 450 GB/s; NDR, 400 Gb/s). Share, latencies, spread and prices are assumed; docs/scaling.md says what the
# share is held against.
MACHINES = {
    "a100": Machine(
        flops=312e12, share=0.45, memory=80e9, node=8, inside=Link(3e-6, 300e9), between=Link(5e-6, 25e9), price=1.5,
        spread=0.01, overlap=1.0,
    ),
    "h100": Machine(
        flops=989e12, share=0.45, memory=80e9, node=8, inside=Link(3e-6, 450e9), between=Link(5e-6, 50e9), price=2.5,
        spread=0.01, overlap=1.0,
    ),
}  # fmt: skip
