"""The outputs of a small head in another order: start for end, one class for another."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import combinations

from refllm.backend import Array
from refllm.verify.ports.mistakes.leaves import COST, UNLIKELY, Way
from refllm.verify.ports.program import Step

MOST = 12  # outputs of a head whose order is tried


def of_outputs(step: Step, path: str, leaf: Array) -> Iterator[Way]:
    """What is done to the columns of the last matrix and to its bias alike."""
    N = leaf.shape[-1]
    if step.kind != "output" or path not in ("W", "span.W") or not 1 < N <= MOST:
        return
    if path == "span.W":
        said = "the scores of start and end are exchanged: column 0 of {} is the start"
        yield said, COST, ["- start, end", "+ end, start"], partial(_in_order, order=(1, 0))
        return
    for order, told in _orders(N):
        lines = ["- the outputs of {}", f"+ in the order {', '.join(map(str, order))}"]
        yield f"the outputs of {{}} are in another order: {told}", UNLIKELY, lines, partial(_in_order, order=order)


def _orders(N: int) -> Iterator[tuple[tuple[int, ...], str]]:
    """Each order once: the other way round, one further, and two exchanged."""
    every = tuple(range(N))
    found = {
        every[::-1]: "the other way round", (*every[1:], 0): "each is the next one", (N - 1, *every[:-1]):
        "each is the one before",
    }  # fmt: skip
    for m, n in combinations(range(N), 2):
        exchanged = tuple({m: n, n: m}.get(i, i) for i in every)
        found.setdefault(exchanged, f"{m} and {n} are exchanged")
    yield from found.items()


def _in_order(W: Array, order: tuple[int, ...]) -> Array:
    return W[..., list(order)]
