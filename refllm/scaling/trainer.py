"""What the ranks of refllm itself exchange in a step of training (refllm/ranks.py), and how long that takes."""

from __future__ import annotations

from collections.abc import Sequence

from refllm.scaling.links import Link, broadcast, scattered
from refllm.scaling.steps import slowest

REQUESTS = 3  # of the leader in a step: a shard's gradient, the sum, the update
OBJECT = 2  # messages of a Python object: how long it is, and it


def exchanged(size: float, n: int, link: Link, *, batch: float) -> float:
    """Seconds of a step's exchanges: the leader's requests, one of them with the batch, the answers, and the gradients,
    `size` bytes, to those who add them up and back."""
    return requested(n, link, batch=batch) + 2 * scattered(size, n, link)


def exchanged_by_layers(outside: float, layers: Sequence[float], n: int, link: Link, *, batch: float) -> float:
    """As `exchanged`, with parameters that are cut: bytes of each of the layers and of what is outside of them. A layer
    is gathered twice, the rest once, and each gradient goes to those who add it up."""
    gathered = 2 * scattered(outside, n, link) + 3 * sum(scattered(size, n, link) for size in layers)
    return requested(n, link, batch=batch) + gathered


def requested(n: int, link: Link, *, batch: float) -> float:
    """Seconds of what the leader asks for in a step, with the batch, and of the answers."""
    asked = (REQUESTS * OBJECT - 1) * broadcast(0, n, link) + broadcast(batch, n, link)
    answers = REQUESTS * OBJECT * broadcast(0, n, link)
    return asked + answers


def step(compute: float, size: float, n: int, link: Link, *, batch: float, spread: float) -> float:
    """Seconds of a step of n ranks, of which each computes for `compute` seconds; nothing is computed meanwhile."""
    return compute * (1 + slowest(spread, n)) + exchanged(size, n, link, batch=batch * n)
