"""How the ranks of a job exchange vectors: from host to host, or between GPUs by the best way that all of them have.

On GPUs that is NCCL, where nccl4py is installed; or MPI itself, where it takes arrays of a device; or MPI by way of the
host, which always works. The order of sums is refllm's own, so the way changes no number.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from typing import Any

from refllm.backend import Array, namespace, to_host, wait_for_device


class HostExchange:
    """Arrays of the host, by MPI."""

    told = ""

    def __init__(self, world: Any) -> None:
        self.world = world

    def scattered(self, vector: Array, sizes: list[int], starts: list[int]) -> Array:
        """The stretch of this rank from the vectors of all, one below the other; a stretch begins at each of `starts`
        and has so many numbers."""
        count, own, kind = self.world.size, sizes[self.world.rank], vector.dtype.char
        received = namespace(vector).empty((count, own), vector.dtype)
        places = [own * n for n in range(count)]
        self.world.Alltoallv([vector, sizes, starts, kind], [received, [own] * count, places, kind])
        return received

    def gather(self, vector: Array, sizes: list[int], starts: list[int]) -> None:
        """Each rank's stretch goes to all."""
        self._to_all(vector[starts[self.world.rank] :][: sizes[self.world.rank]].copy(), vector, sizes, starts)

    def _to_all(self, own: Array, vector: Array, sizes: list[int], starts: list[int]) -> None:
        """Not by Allgatherv: MPICH cuts that into messages of 32 KB and waits for each, which a slow network feels."""
        count, kind = self.world.size, vector.dtype.char
        self.world.Alltoallv([own, [len(own)] * count, [0] * count, kind], [vector, sizes, starts, kind])

    def spread(self, vector: Array) -> None:
        """The vector of rank 0 goes to all."""
        self.world.Bcast(vector)


class StagedExchange(HostExchange):
    """Arrays of a device by way of the host."""

    told = "by way of the host"

    def scattered(self, vector: Array, sizes: list[int], starts: list[int]) -> Array:
        return namespace(vector).asarray(super().scattered(to_host(vector), sizes, starts))

    def gather(self, vector: Array, sizes: list[int], starts: list[int]) -> None:
        self._on_host(vector, lambda host: HostExchange.gather(self, host, sizes, starts))

    def spread(self, vector: Array) -> None:
        self._on_host(vector, lambda host: HostExchange.spread(self, host))

    def _on_host(self, vector: Array, f: Any) -> None:
        host = to_host(vector)
        f(host)
        vector[...] = namespace(vector).asarray(host)


class DeviceExchange(HostExchange):
    """Arrays of a device, by an MPI that takes them. It knows nothing of the device's queue, so that is waited for."""

    told = "by an MPI that knows GPUs"

    def scattered(self, vector: Array, sizes: list[int], starts: list[int]) -> Array:
        wait_for_device(vector)
        return super().scattered(vector, sizes, starts)

    def gather(self, vector: Array, sizes: list[int], starts: list[int]) -> None:
        own = vector[starts[self.world.rank] :][: sizes[self.world.rank]].copy()
        wait_for_device(vector)
        self._to_all(own, vector, sizes, starts)

    def spread(self, vector: Array) -> None:
        wait_for_device(vector)
        super().spread(vector)


class NcclExchange(HostExchange):
    """Arrays of a device, by NCCL in the device's own queue."""

    told = "by NCCL"

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._nccl = importlib.import_module("nccl.core")
        identity = world.bcast(bytes(self._nccl.get_unique_id()) if world.rank == 0 else None)
        self._ends = self._nccl.Communicator.init(
            world.size, world.rank, self._nccl.UniqueId.from_bytes(identity)
        )  # fmt: skip

    def scattered(self, vector: Array, sizes: list[int], starts: list[int]) -> Array:
        own = sizes[self.world.rank]
        received = namespace(vector).empty((self.world.size, own), vector.dtype)
        with self._nccl.group():
            for other in range(self.world.size):
                self._send(vector[starts[other] :][: sizes[other]], other)
                self._receive(received[other], other)
        return received

    def gather(self, vector: Array, sizes: list[int], starts: list[int]) -> None:
        rank = self.world.rank
        own = vector[starts[rank] :][: sizes[rank]]
        with self._nccl.group():
            for other in range(self.world.size):
                if other != rank:
                    self._send(own, other)
                    self._receive(vector[starts[other] :][: sizes[other]], other)

    def spread(self, vector: Array) -> None:
        if vector.size:
            self._ends.broadcast(vector, vector, 0)

    def _send(self, x: Array, other: int) -> None:
        if x.size:
            self._ends.send(x, other)

    def _receive(self, x: Array, other: int) -> None:
        if x.size:
            self._ends.recv(x, other)


def between(world: Any, device: str) -> HostExchange:
    """The best way that all ranks have."""
    if device == "cpu":
        return HostExchange(world)
    there = world.allgather((has_nccl(), takes_device_arrays(world)))
    if all(nccl for nccl, _ in there):
        return NcclExchange(world)
    return DeviceExchange(world) if all(takes for _, takes in there) else StagedExchange(world)


def has_nccl() -> bool:
    """Whether nccl4py is installed."""
    try:
        return importlib.util.find_spec("nccl.core") is not None
    except ModuleNotFoundError:
        return False


def takes_device_arrays(world: Any) -> bool:
    """Whether the MPI says that it takes arrays of a GPU: by the memory kinds of MPI 4.1, or by the function that Open
    MPI and MPICH have for it."""
    if "cuda" in (world.Get_info().Get("mpi_memory_alloc_kinds") or "").split(","):
        return True
    for library in (None, getattr(sys.modules.get("mpi4py.MPI"), "__file__", None)):
        query = getattr(ctypes.CDLL(library), "MPIX_Query_cuda_support", None)
        if query is not None:
            return bool(query())
    return False
