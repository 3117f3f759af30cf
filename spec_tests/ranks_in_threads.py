"""The ranks of a job as threads of one process: a communicator with the calls of mpi4py that refllm makes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy

from refllm.ranks import Ranks


class Meeting:
    """Where the ranks exchange: each lays something down, all read, all leave."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.table: list[Any] = [None] * size
        self.bytes = [0] * size  # that each has sent to others


class World:
    """One rank's end of the meeting."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting, self.rank, self.size = meeting, rank, len(meeting.table)

    def allgather(self, mine: Any) -> list[Any]:
        self.meeting.table[self.rank] = mine
        self.meeting.barrier.wait()
        found = list(self.meeting.table)
        self.meeting.barrier.wait()
        return found

    def bcast(self, mine: Any) -> Any:
        return self.allgather(mine)[0]

    def gather(self, mine: Any) -> Any:
        found = self.allgather(mine)
        return found if self.rank == 0 else None

    def Bcast(self, vector: Any) -> None:  # noqa: N802
        first = self.allgather(vector.copy())[0]
        vector[...] = first

    def Alltoallv(self, sent: list[Any], received: list[Any]) -> None:  # noqa: N802
        vector, sizes, starts, kind = sent
        assert kind == vector.dtype.char
        parts = [vector[start : start + size].copy() for start, size in zip(starts, sizes, strict=True)]
        self._count(parts)
        rows, counts, places, _ = received
        for rank, theirs in enumerate(self.allgather(parts)):
            assert counts[rank] == len(theirs[self.rank])
            rows.reshape(-1)[places[rank] : places[rank] + counts[rank]] = theirs[self.rank]

    def Allgatherv(self, sent: list[Any], received: list[Any]) -> None:  # noqa: N802
        own, size, _ = sent
        assert size == len(own)
        self.meeting.bytes[self.rank] += own.nbytes * (self.size - 1)
        vector, sizes, starts, _ = received
        for part, n, start in zip(self.allgather(own.copy()), sizes, starts, strict=True):
            vector[start : start + n] = part

    def _count(self, parts: list[Any]) -> None:
        self.meeting.bytes[self.rank] += sum(part.nbytes for rank, part in enumerate(parts) if rank != self.rank)


def on_ranks(size: int, work: Callable[[Ranks], Any], *, shard: str | None = None) -> tuple[list[Any], Meeting]:
    """What every rank makes of `work`, each in a thread of its own, and the meeting."""
    meeting = Meeting(size)
    found: list[Any] = [None] * size

    def life(rank: int) -> None:
        try:
            found[rank] = work(Ranks(World(meeting, rank), shard=shard))
        except BaseException as error:
            found[rank] = error
            meeting.barrier.abort()

    threads = [threading.Thread(target=life, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [x for x in found if isinstance(x, BaseException) and not isinstance(x, threading.BrokenBarrierError)]
    if errors:
        raise errors[0]
    assert not any(isinstance(x, BaseException) for x in found)
    return [numpy.array(x) if isinstance(x, list) else x for x in found], meeting
