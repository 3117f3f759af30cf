"""The ranks of a job as threads of one process: a communicator with the calls of mpi4py that refllm makes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy

from refllm.ranks import Ranks


class Meeting:
    """Where the ranks exchange: each lays something down, all read, all leave."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.table: list[Any] = [None] * size
        self.bytes = [0] * size  # that each has sent to others


class Aborted(BaseException):
    """The job was ended."""


class World:
    """One rank's end of the meeting."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting, self.rank, self.size = meeting, rank, len(meeting.table)
        self.takes_device_arrays = False

    def Get_info(self) -> Any:  # noqa: N802
        kinds = "system,mpi,cuda" if self.takes_device_arrays else None
        return SimpleNamespace(Get=lambda key: kinds if key == "mpi_memory_alloc_kinds" else None)

    def _require(self, *buffers: Any) -> None:
        """MPI reads and writes memory of the host, unless it says more of itself."""
        assert self.takes_device_arrays or all(isinstance(x, numpy.ndarray) for x in buffers)

    def allgather(self, mine: Any) -> list[Any]:
        self.meeting.table[self.rank] = mine
        self.meeting.barrier.wait()
        found = list(self.meeting.table)
        self.meeting.barrier.wait()
        return found

    def Abort(self, status: int) -> None:  # noqa: N802
        raise Aborted(str(status))

    def bcast(self, mine: Any) -> Any:
        return self.allgather(mine)[0]

    def gather(self, mine: Any) -> Any:
        found = self.allgather(mine)
        return found if self.rank == 0 else None

    def Bcast(self, vector: Any) -> None:  # noqa: N802
        self._require(vector)
        first = self.allgather(vector.copy())[0]
        vector[...] = first

    def Alltoallv(self, sent: list[Any], received: list[Any]) -> None:  # noqa: N802
        vector, sizes, starts, kind = sent
        assert kind == vector.dtype.char
        self._require(vector, received[0])
        parts = [vector[start : start + size].copy() for start, size in zip(starts, sizes, strict=True)]
        self._count(parts)
        rows, counts, places, _ = received
        for rank, theirs in enumerate(self.allgather(parts)):
            assert counts[rank] == len(theirs[self.rank])
            rows.reshape(-1)[places[rank] : places[rank] + counts[rank]] = theirs[self.rank]

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


class Nccl:
    """nccl.core of nccl4py, among the ranks of one job: the calls that refllm makes."""

    def __init__(self) -> None:
        self.of_thread = threading.local()
        self.meeting: Meeting | None = None
        self.UniqueId = SimpleNamespace(from_bytes=lambda identity: identity)
        self.Communicator = SimpleNamespace(init=self._begun)

    def get_unique_id(self) -> bytes:
        return b"of this job"

    def _begun(self, size: int, rank: int, identity: bytes) -> Any:
        assert self.meeting is not None
        assert identity == b"of this job"
        self.of_thread.world = world = World(self.meeting, rank)
        assert world.size == size
        return SimpleNamespace(send=self._send, recv=self._receive, broadcast=self._broadcast)

    @contextmanager
    def group(self) -> Iterator[None]:
        """What is sent inside arrives at its end."""
        self.of_thread.sent, self.of_thread.awaited = {}, []
        yield
        sent = self.of_thread.world.allgather(self.of_thread.sent)
        for x, other in self.of_thread.awaited:
            x[...] = sent[other].pop(self.of_thread.world.rank)
        self.of_thread.world.allgather(None)
        assert not self.of_thread.sent, "something was sent that nobody received"

    def _send(self, x: Any, other: int) -> None:
        assert not isinstance(x, numpy.ndarray)
        self.of_thread.sent[other] = x.copy()

    def _receive(self, x: Any, other: int) -> None:
        assert not isinstance(x, numpy.ndarray)
        self.of_thread.awaited.append((x, other))

    def _broadcast(self, sent: Any, received: Any, root: int) -> None:
        received[...] = self.of_thread.world.allgather(sent.copy())[root]
