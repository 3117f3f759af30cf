"""What the double counts, allows and refuses as a device: transfers, memory, and whether a GPU is there at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

NO_DRIVER = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"


class CUDARuntimeError(RuntimeError):
    """`cupy.cuda.runtime.CUDARuntimeError`."""


class OutOfMemoryError(MemoryError):
    """`cupy.cuda.memory.OutOfMemoryError`, with CuPy's message."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        limited = f", limit set to: {limit:,} bytes" if limit else ""
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes{limited}).")


@dataclass
class Counts:
    """What crossed between host and device, and how often the host had to wait.

    A copy to the host also waits; a result whose shape depends on values only waits.
    """

    host_to_device: int = 0
    device_to_host: int = 0
    synchronisations: int = 0
    bytes_to_device: int = 0
    bytes_to_host: int = 0

    @property
    def bytes(self) -> int:
        return self.bytes_to_device + self.bytes_to_host


class State:
    """One for the process, as the device is; every worker thread meets the same."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: tuple[Counts, ...] = ()
        self.largest: int | None = None
        self.device = True

    def allocate(self, size: int) -> None:
        """CuPy rounds every request up to 512 bytes. Live bytes are not followed: a test limits the single request."""
        if not self.device:
            raise CUDARuntimeError(NO_DRIVER)
        if self.largest is not None and size > self.largest:
            raise OutOfMemoryError(-(-size // 512) * 512, 0)

    def to_device(self, size: int) -> None:
        with self.lock:
            for counts in self.counts:
                counts.host_to_device += 1
                counts.bytes_to_device += size

    def to_host(self, size: int) -> None:
        with self.lock:
            for counts in self.counts:
                counts.device_to_host += 1
                counts.bytes_to_host += size
                counts.synchronisations += 1

    def synchronise(self) -> None:
        with self.lock:
            for counts in self.counts:
                counts.synchronisations += 1

    @contextmanager
    def with_value(self, name: str, value: Any) -> Iterator[None]:
        before = getattr(self, name)
        setattr(self, name, value)
        try:
            yield
        finally:
            setattr(self, name, before)


STATE = State()


@contextmanager
def counting() -> Iterator[Counts]:
    """`with counting() as c:` c holds what happened inside, in every thread."""
    counts = Counts()
    with STATE.lock:
        STATE.counts += (counts,)
    try:
        yield counts
    finally:
        with STATE.lock:
            STATE.counts = tuple(c for c in STATE.counts if c is not counts)


@contextmanager
def limit_bytes(largest: int) -> Iterator[None]:
    """Inside, one array of more than `largest` bytes raises `cupy.cuda.memory.OutOfMemoryError`."""
    with STATE.with_value("largest", largest):
        yield
