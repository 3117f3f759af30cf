"""What the ranks of refllm itself exchange in a step of training (refllm/ranks.py), and how long that takes."""

from __future__ import annotations

from refllm.scaling.links import Link, broadcast, scattered
from refllm.scaling.steps import slowest

REQUESTS = 3  # of the leader in a step: a shard's gradient, the sum, the update
OBJECT = 2  # messages of a Python object: how long it is, and it


def exchanged(size: float, n: int, link: Link, *, batch: float) -> float:
    """Seconds of a step's exchanges: the leader's requests, one of them with the batch, the answers, and the gradients,
    `size` bytes, to those who add them up and back."""
    asked = (REQUESTS * OBJECT - 1) * broadcast(0, n, link) + broadcast(batch, n, link)
    answers = REQUESTS * OBJECT * broadcast(0, n, link)
    return asked + answers + 2 * scattered(size, n, link)


def step(compute: float, size: float, n: int, link: Link, *, batch: float, spread: float) -> float:
    """Seconds of a step of n ranks, of which each computes for `compute` seconds; nothing is computed meanwhile."""
    return compute * (1 + slowest(spread, n)) + exchanged(size, n, link, batch=batch * n)
