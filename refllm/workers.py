"""Workers for the shards of a batch, and the memory they work in. The trainer alone uses this; `refllm verify` at the
sizes of kernels keeps memory too.

A batch cut into one shard a core, each with single-threaded BLAS, is faster than one shard with threaded BLAS: the
elementwise work runs in parallel as well. On Linux the workers are forked processes with the trainer's vectors in
shared memory: threads wait for each other at the interpreter between NumPy's calls, which costs a small model 15 % of
its step. Elsewhere, and on a GPU, they are threads. BLAS gets more threads only where there are fewer shards than
threads were asked for.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from refllm.errors import UserError
from refllm.moments import whole
from refllm.pieces import Pieces, Run

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Result = TypeVar("Result")

WORKERS_A_CORE = 16  # at most
CAN_FORK = sys.platform.startswith("linux")

# The signals that ask a process to end: Ctrl-C, a polite kill (of `timeout`, a scheduler), the terminal that is closed,
# the limit of CPU time that is reached, and those with which schedulers warn before they kill.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2")
ENDING = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]

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


def require_threads(threads: int) -> None:
    """UserError for less than one, or for so many that a machine would do nothing but switch between them.

    More than there are cores is allowed: a run of another machine is repeated bit for bit with its number of workers.
    """
    if threads < 1:
        raise UserError(f"threads must be at least 1, got {threads}")
    most = WORKERS_A_CORE * available_cores()
    if threads > most:
        raise UserError(
            f"threads must be at most {most}, {WORKERS_A_CORE} for each core of this machine, got {threads}; more than "
            f"{available_cores()} make nothing faster"
        )


class WorkerEndedError(UserError):
    """A worker has died, with its part of the step in hand."""


class Workers:
    """`count` workers, whose BLAS calls take `blas_threads` each while they are open. Use it in a `with`."""

    def __init__(self, count: int, blas_threads: int = 1, *, fork: bool = CAN_FORK) -> None:
        self.count, self.blas_threads, self.fork = count, blas_threads, fork

    def __enter__(self) -> Workers:
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits(limits=self.blas_threads, user_api="blas")
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="shard") if self.count > 1 else None
        self._crews: list[Crew] = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for crew in self._crews:
            crew.close()
        if self._pool is not None:
            self._pool.shutdown()
        self._limits.restore_original_limits()

    apart = False  # whether each worker has parameters of its own, which must stay the same
    cut = False  # whether each worker has the moments of a piece alone
    layered = False  # and of the parameters too, which are gathered a layer at a time

    @property
    def vectors(self) -> int:
        """How many gradients are formed in this process."""
        return self.count

    def shards(self, asked: int) -> int:
        """Of how many shards the gradients are summed."""
        return asked

    def vector_of(self, part: int) -> int:
        """Which of the gradients of this process is that of a worker."""
        return part

    def stretch(self, part: int, n: slice, size: int) -> slice:
        """What a worker updates of the numbers n of a vector of this size."""
        length = n.stop - n.start
        return slice(n.start + length * part // self.count, n.start + length * (part + 1) // self.count)

    def kept(self, pieces: Pieces) -> list[Run]:
        """The numbers of a vector whose moments this process keeps."""
        return whole(pieces.size)

    def sum_shards(self, gradients: list[Any], part: int, shards: int) -> None:
        """The shards' gradients added in their order, in this worker's stretch of the first."""
        size = len(gradients[0])
        n = self.stretch(part, slice(0, size), size)
        for other in gradients[1:shards]:
            gradients[0][n] += other[n]

    def own_sum(self, vector: Any) -> Any:
        """Of the gradient what this process has added up."""
        return vector

    def squared(self, pieces: Pieces, part: int) -> list[Run]:
        """Of what a worker has added up the runs whose squares are added up one by one."""
        return whole(pieces.size)

    def join(self, vector: Any) -> None:
        """Every worker gets the pieces that the others have updated: here all have the same vector."""

    def spread(self, vector: Any) -> None:
        """The vector of the first worker becomes that of all: here all have the same."""

    def begin(self, description: dict[str, Any]) -> None:
        """A run with this description begins, or goes on."""

    def validate(self, measured: Callable[[int | None], Any], vector: Any, most: int | None) -> Any:
        """`measured(most)` with these parameters, shared among the workers by `map`."""
        return measured(most)

    def map(self, f: Callable[..., Result], *arguments: Iterable[Any]) -> list[Result]:
        """f over the arguments, in parallel threads; the results in order."""
        return list(self._pool.map(f, *arguments)) if self._pool is not None else list(map(f, *arguments))

    def crew(self, serve: Callable[..., Any], *, fork: bool) -> Callable[..., list[Any]]:
        """A function that asks every worker at once: [serve(part, *request) for part in range(count)].

        With `fork` the workers may be processes, copies of this one as it is now: what `serve` changes is seen here
        only in shared memory (backend.shared_zeros), and what it needs of later changes must be in the request.
        """
        if not (fork and self.fork) or self.count == 1:
            return lambda *request: self.map(lambda part: serve(part, *request), range(self.count))
        self._crews.append(Crew(serve, self.count))
        return self._crews[-1]


class Crew:
    """This process as worker 0, and forked copies of it that serve requests until they are closed."""

    def __init__(self, serve: Callable[..., Any], count: int) -> None:
        import multiprocessing.util  # now: what Python does at its end is done in the reverse of the order of imports

        self._serve = serve
        self._connections: list[Connection] = []
        context = multiprocessing.get_context("fork")
        atexit.register(self.close)  # before Python waits for the workers at its end
        with warnings.catch_warnings():
            # Python warns of a fork beside threads. The copies take no lock that a thread may hold: they neither print
            # nor start threads, and OpenBLAS and glibc prepare themselves for a fork.
            warnings.simplefilter("ignore", DeprecationWarning)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # a worker has handlers of its own from the start
            try:
                for part in range(1, count):
                    here, there = context.Pipe()
                    self._connections.append(here)
                    arguments = (serve, part, there, list(self._connections), before)
                    context.Process(target=_serve_requests, args=arguments, daemon=True).start()
                    there.close()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __call__(self, *request: Any) -> list[Any]:
        for connection in self._connections:
            try:
                connection.send(request)
            except OSError:  # the pipe's other end has gone with its worker
                raise _ended_from_outside() from None
        try:
            own = self._serve(0, *request)
        finally:  # every answer is fetched, or the next request would be given an old one
            answers = [_received(connection) for connection in self._connections]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [own, *answers]

    def close(self) -> None:
        atexit.unregister(self.close)
        for connection in self._connections:
            connection.close()  # the end of the requests, at which a worker leaves


def _serve_requests(
    serve: Callable[..., Any], part: int, connection: Connection, of_parent: list[Connection], mask: set[int]
) -> None:
    """The life of a forked worker, which ends with the requests: when its parent closes the pipe, or has died."""
    for number in ENDING:  # they go to the whole group; the parent decides when to stop
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for end in of_parent:
        end.close()  # a worker that held these would keep its fellows waiting for a parent that has died
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = serve(part, *request)
        except Exception as error:
            answer = error
        try:
            connection.send(answer)
        except OSError:  # there is no reader any more
            return


def _received(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError):
        return _ended_from_outside()


def _ended_from_outside() -> WorkerEndedError:
    return WorkerEndedError(
        "a worker process was ended from outside, most often for lack of memory; use fewer --threads"
    )
