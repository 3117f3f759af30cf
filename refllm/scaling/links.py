"""How long messages take, and exchanges among n processes in which each sends and receives one message at a time.

A message of b bytes takes latency + b / bandwidth. Adding up what came is not counted: it is a small part of a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from refllm.errors import UserError


@dataclass(frozen=True)
class Link:
    """Between two processes: the seconds until an empty message has come, and bytes a second in each direction."""

    latency: float
    bandwidth: float

    def __post_init__(self) -> None:
        if not (0 <= self.latency < math.inf and 0 < self.bandwidth <= math.inf):
            raise UserError(
                f"a latency is a number of seconds from 0, a bandwidth of bytes above 0; got {self.latency:g} and "
                f"{self.bandwidth:g}"
            )

    def message(self, size: float) -> float:
        """Seconds that a message of so many bytes takes."""
        return self.latency + size / self.bandwidth


def ring_half(size: float, n: int, link: Link) -> float:
    """Reduce-scatter, allgather or all-to-all of `size` bytes on each of n processes: n - 1 messages of size / n.

    Source:  Thakur et al. 2005 sec. 4.1 and 4.4; Patarasuk & Yuan 2009 sec. 3.
    """
    return (n - 1) * link.message(size / n)


def ring_allreduce(size: float, n: int, link: Link) -> float:
    """A reduce-scatter and an allgather: 2 (n - 1) messages of size / n, the fewest bytes that do it.

    Source:  Patarasuk & Yuan 2009 sec. 3.
    """
    return 2 * ring_half(size, n, link)


def halving_allreduce(size: float, n: int, link: Link) -> float:
    """Recursive halving, then doubling: as few bytes, in 2 log n messages. n is a power of two.

    Source:  Thakur et al. 2005 sec. 4.5 (Rabenseifner's algorithm).
    """
    return 2 * rounds(n) * link.latency + 2 * size * (n - 1) / n / link.bandwidth


def tree_allreduce(size: float, n: int, link: Link) -> float:
    """Up a binomial tree and down again: 2 ⌈log n⌉ messages, each of all bytes.

    Source:  Thakur et al. 2005 sec. 4.2 and 4.5.
    """
    return 2 * broadcast(size, n, link)


AT_ONCE = 32  # messages that MPICH has under way in an all-to-all


def scattered(size: float, n: int, link: Link) -> float:
    """Reduce-scatter, allgather or all-to-all in which each sends its n - 1 messages of size / n at once: as many bytes
    as `ring_half`, and the latency once for every 32 messages.

    Source:  Thakur et al. 2005 sec. 4.3.
    """
    return -(-(n - 1) // AT_ONCE) * link.latency + (n - 1) * size / n / link.bandwidth


def broadcast(size: float, n: int, link: Link) -> float:
    """Down a binomial tree, or up: ⌈log n⌉ messages of all bytes, one after the other.

    Source:  Thakur et al. 2005 sec. 4.2.
    """
    return rounds(n) * link.message(size)


def rounds(n: int) -> int:
    """⌈log₂ n⌉."""
    return (n - 1).bit_length()


def allreduce(size: float, n: int, link: Link) -> float:
    """The better of ring and halving. Libraries choose too; a ring of a thousand processes waits for its latency."""
    if n & (n - 1):
        return ring_allreduce(size, n, link)
    return min(ring_allreduce(size, n, link), halving_allreduce(size, n, link))


def allreduce_of_nodes(size: float, n: int, *, node: int, inside: Link, between: Link) -> float:
    """n processes of which `node` stand together: reduce-scatter inside, Allreduce of a part each, allgather inside.

    Each process sends its own part to the other nodes, by a link of its own.
    """
    together = math.gcd(n, node)
    if together == n:
        return allreduce(size, n, inside)
    return 2 * ring_half(size, together, inside) + allreduce(size / together, n // together, between)
