"""Worker threads for the shards of a batch, and the memory they work in. The trainer alone uses this.

NumPy releases the interpreter in its loops and in BLAS, so a batch cut into one shard a core, each with
single-threaded BLAS, is faster than one shard with threaded BLAS: the elementwise work runs in parallel as well. BLAS
gets more threads only where there are fewer shards than threads were asked for.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Result = TypeVar("Result")

# mallopt's parameters, from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory instead of returning it to the system, and to serve large blocks from it too.

    A step frees and asks for the same arrays again; without this every large one is mapped anew and its pages are
    faulted in and zeroed by the kernel. Linux with glibc only; elsewhere it does nothing and returns False.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    wanted = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 << 20}
    return all(mallopt(parameter, value) for parameter, value in wanted.items())


def available_cores() -> int:
    """The cores that this process may use, which a container or taskset may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """A pool of `count` threads, whose BLAS calls take `blas_threads` each while it is open. Use it in a `with`."""

    def __init__(self, count: int, blas_threads: int = 1) -> None:
        self.count, self.blas_threads = count, blas_threads

    def __enter__(self) -> Workers:
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits(limits=self.blas_threads, user_api="blas")
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="shard") if self.count > 1 else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._limits.restore_original_limits()

    def map(self, f: Callable[..., Result], *arguments: Iterable[Any]) -> list[Result]:
        """f over the arguments, in parallel; the results in order."""
        return list(self._pool.map(f, *arguments)) if self._pool is not None else list(map(f, *arguments))
