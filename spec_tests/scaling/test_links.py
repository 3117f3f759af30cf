"""Laws of exchanges: a formula is when the last of n processes, each with a clock, has the sum."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.scaling import links
from refllm.scaling.links import Link

LINK = Link(3e-6, 2e9)


class Processes:
    """n processes with a vector each; a message is received `Link.message` after both ends are free."""

    def __init__(self, n: int, length: int) -> None:
        self.vectors = [numpy.random.default_rng(rank).integers(0, 99, length) for rank in range(n)]
        self.sum = numpy.sum(self.vectors, axis=0)
        self.clocks = [0.0] * n

    def round(self, messages: list[tuple[int, int, slice, bool]]) -> None:
        """Messages (from, to, places, added or taken over) at once; nobody sends or receives two."""
        senders, receivers = [m[0] for m in messages], [m[1] for m in messages]
        assert len(set(senders)) == len(senders)
        assert len(set(receivers)) == len(receivers)
        sent = [self.vectors[sender][places].copy() for sender, _, places, _ in messages]
        begun = list(self.clocks)
        for (sender, receiver, places, is_added), part in zip(messages, sent, strict=True):
            done = max(begun[sender], begun[receiver]) + LINK.message(part.nbytes)
            self.clocks[sender], self.clocks[receiver] = (
                max(self.clocks[sender], done),
                max(self.clocks[receiver], done),
            )
            self.vectors[receiver][places] = part + (self.vectors[receiver][places] if is_added else 0)


def ring(n: int, length: int) -> Processes:
    all_of_them, part = Processes(n, length), length // n
    for is_added in (True, False):
        for turn in range(n - 1):
            pieces = [(rank - turn + (not is_added)) % n for rank in range(n)]
            all_of_them.round(
                [(r, (r + 1) % n, slice(p * part, (p + 1) * part), is_added) for r, p in enumerate(pieces)]
            )
    return all_of_them


def halving(n: int, length: int) -> Processes:
    all_of_them, own = Processes(n, length), [slice(0, length)] * n
    distances = [n >> k for k in range(1, n.bit_length())]
    kept: list[list[slice]] = []
    for distance in distances:
        kept.append(list(own))
        messages = []
        for rank in range(n):
            middle = (own[rank].start + own[rank].stop) // 2
            low, high = slice(own[rank].start, middle), slice(middle, own[rank].stop)
            is_high = bool(rank & distance)
            messages.append((rank, rank ^ distance, low if is_high else high, True))
            own[rank] = high if is_high else low
        all_of_them.round(messages)
    for distance, before in zip(reversed(distances), reversed(kept), strict=True):
        all_of_them.round([(rank, rank ^ distance, own[rank], False) for rank in range(n)])
        own = before
    return all_of_them


def tree(n: int, length: int) -> Processes:
    all_of_them, everything = Processes(n, length), slice(0, length)
    distances = [1 << k for k in range(links.rounds(n))]
    for distance in distances:
        pairs = [(r, r - distance) for r in range(n) if r % (2 * distance) == distance]
        all_of_them.round([(r, s, everything, True) for r, s in pairs])
    for distance in reversed(distances):
        pairs = [(r - distance, r) for r in range(n) if r % (2 * distance) == distance]
        all_of_them.round([(r, s, everything, False) for r, s in pairs])
    return all_of_them


@pytest.mark.parametrize(
    ("carried_out", "formula", "counts"),
    [
        (ring, links.ring_allreduce, (2, 3, 4, 7, 8)),
        (halving, links.halving_allreduce, (2, 4, 8, 16)),
        (tree, links.tree_allreduce, (2, 3, 4, 5, 8, 13)),
    ],
    ids=["ring", "halving", "tree"],
)
def test_a_formula_is_when_the_last_of_the_processes_has_the_sum(
    carried_out: Callable[[int, int], Processes], formula: Callable[[float, int, Link], float], counts: tuple[int, ...]
) -> None:
    for n in counts:
        found = carried_out(n, length := 16 * n)
        assert all((vector == found.sum).all() for vector in found.vectors)
        assert max(found.clocks) == pytest.approx(formula(8 * length, n, LINK), rel=1e-12)


@given(st.integers(1, 4096), st.integers(0, 10**9))
def test_the_chosen_exchange_is_no_slower_than_any_other(n: int, size: int) -> None:
    chosen = links.allreduce(size, n, LINK)
    assert chosen <= links.ring_allreduce(size, n, LINK)
    assert chosen <= links.halving_allreduce(size, n, LINK) or n & (n - 1)
    assert chosen >= 2 * size * (n - 1) / n / LINK.bandwidth * (1 - 1e-12)  # no exchange sends fewer bytes


@given(st.integers(1, 8), st.integers(1, 64), st.integers(0, 10**9))
def test_nodes_with_one_kind_of_link_are_as_fast_as_none_up_to_latency(node: int, nodes: int, size: int) -> None:
    together = links.allreduce_of_nodes(size, node * nodes, node=node, inside=LINK, between=LINK)
    free = Link(0, LINK.bandwidth)
    least = links.ring_allreduce(size, node * nodes, free)
    assert links.allreduce_of_nodes(size, node * nodes, node=node, inside=free, between=free) == pytest.approx(least)
    assert together >= least * (1 - 1e-12)


def test_a_single_process_sends_nothing() -> None:
    for formula in (links.ring_half, links.ring_allreduce, links.halving_allreduce, links.tree_allreduce):
        assert formula(1e9, 1, LINK) == 0


@pytest.mark.parametrize(("latency", "bandwidth"), [(-1, 1), (float("nan"), 1), (0, 0), (0, float("nan"))])
def test_a_link_that_cannot_be_is_refused(latency: float, bandwidth: float) -> None:
    with pytest.raises(UserError, match="a latency is a number of seconds"):
        Link(latency, bandwidth)
