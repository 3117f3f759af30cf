"""Ranks: processes that mpiexec has started, on one machine or several, which share a batch as workers do.

Rank 0 leads: it runs the command, reads and writes. The others follow: they hold the same task, parameters and moments,
and do what they are asked (refllm/commands/following.py). The message passing is that of mpi4py, which nothing else
imports.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from refllm.backend import Array, namespace, use_gpu
from refllm.errors import UserError
from refllm.exchange import HostExchange, between
from refllm.extras import how_to_install
from refllm.moments import one_run, whole
from refllm.pieces import Pieces, Run, cut_at, length
from refllm.workers import Result, Workers

# What a started process finds in its environment: MPICH and those after it, Open MPI.
_COUNTS, _NUMBERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "OMPI_COMM_WORLD_RANK")
OPTIMIZER, PARAMETERS = "optimizer", "parameters"  # what can be cut over the ranks: the moments; or all of a layer
SHARDS = (OPTIMIZER, PARAMETERS)
AT_A_TIME = 1 << 22  # numbers of a piece that are added up at a time
EXCHANGING = frozenset({"_made_alike", "_sum_gradients", "_update"})  # the phases of a trainer in which ranks wait
LAYERED = "_shard"  # and where parameters are cut
LOST = 9  # the status of a job that has lost a rank
TASK, PART, VALIDATION, END = "task", "part", "validation", "end"  # what the leader asks for


def count() -> int:
    """How many ranks this job has; 1 of a process that mpiexec has not started."""
    return int(next((os.environ[name] for name in _COUNTS if name in os.environ), 1))


def number() -> int:
    """The number of this rank, from 0."""
    return int(next((os.environ[name] for name in _NUMBERS if name in os.environ), 0))


def communicator() -> Any:
    """That of all ranks. UserError where mpi4py is missing, or belongs to another MPI than mpiexec does."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(f"several ranks need mpi4py ({error}); install it: {how_to_install('mpi')}") from None
    world = MPI.COMM_WORLD
    if world.size != count():
        raise UserError(
            f"mpiexec has started {count()} processes, and the MPI of mpi4py knows {world.size}: they belong to "
            "different MPIs; use the mpiexec beside this Python, or --ranks"
        )
    return world


def require_installed() -> None:
    """UserError with the command that installs mpi4py, where there is none; no MPI is begun."""
    if importlib.util.find_spec("mpi4py") is None:
        raise UserError(f"several ranks need mpi4py and an MPI; install them: {how_to_install('mpi')}")


def workers(shards: int, blas_threads: int, *, shard: str | None = None) -> Workers:
    """Those of a training: the ranks of the job, which cut what `shard` says, or workers of this process."""
    if count() > 1:
        return Ranks(communicator(), blas_threads, shard=shard)
    if shard is not None:
        raise UserError(f"--shard {shard} cuts over several ranks; give --ranks, or leave it out")
    return Workers(shards, blas_threads)


class Ranks(Workers):
    """All ranks, one worker each. Use it in a `with` in the leader; the others follow."""

    vectors = 1
    apart = True

    def __init__(self, world: Any, blas_threads: int = 1, *, shard: str | None = None) -> None:
        super().__init__(world.size, blas_threads, fork=False)
        self.world, self.cut, self.layered = world, shard is not None, shard == PARAMETERS
        self.exchange = HostExchange(world)
        self._ended = False
        self._together = False  # whether all ranks run the same code now

    def __enter__(self) -> Ranks:
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits(limits=self.blas_threads, user_api="blas")
        self._pool, self._crews = None, []
        return self

    def limit(self, blas_threads: int) -> None:
        """So many threads of BLAS from now on."""
        from threadpoolctl import threadpool_limits

        self._limits.restore_original_limits()
        self.blas_threads = blas_threads
        self._limits = threadpool_limits(limits=blas_threads, user_api="blas")

    def shards(self, asked: int) -> int:
        """One each, however many the run had when it began."""
        return self.count

    def vector_of(self, part: int) -> int:
        return 0

    def piece(self, part: int, size: int) -> slice:
        """The numbers of a vector that a rank adds up for all, and updates where the moments alone are cut."""
        return slice(size * part // self.count, size * (part + 1) // self.count)

    def stretch(self, part: int, n: slice, size: int) -> slice:
        if not self.cut:
            return n
        own = self.piece(part, size)
        start = min(max(n.start, own.start), n.stop)
        return slice(start, max(start, min(n.stop, own.stop)))

    def kept(self, pieces: Pieces) -> list[Run]:
        if self.layered:
            return pieces.kept(self.world.rank)
        return one_run(self.piece(self.world.rank, pieces.size)) if self.cut else whole(pieces.size)

    def own_sum(self, vector: Array) -> Array:
        return vector if self.layered else vector[self.piece(self.world.rank, len(vector))]

    def squared(self, pieces: Pieces, part: int) -> list[Run]:
        """Cut so that the sum of squares has the same summands, whatever is cut over the ranks."""
        own = pieces.kept(part) if self.layered else one_run(self.piece(part, pieces.size))
        stretches = [self.piece(n, pieces.size) for n in range(self.count)]
        ends = pieces.ends | {n.start for n in stretches}
        return cut_at(own, sorted(ends))

    def begin(self, description: dict[str, Any]) -> None:
        """The other ranks make the same task."""
        self._call(TASK, description)
        own = answered(self.settle, description["settings"]["device"])
        self._require_none(self.world.gather(own))

    def settle(self, device: str) -> None:
        """On which GPU this rank works, and how vectors go from one to another. All ranks come here at once."""
        if device != "cpu":
            machines = self.world.allgather(platform.node())
            mine = machines[self.world.rank]
            own = answered(use_gpu, machines[: self.world.rank].count(mine), machines.count(mine))
            for error in self.world.allgather(own):
                if error is not None:
                    raise error
        self.exchange = between(self.world, device)

    def crew(self, serve: Callable[..., Any], *, fork: bool) -> Callable[..., list[Any]]:
        def ask(*request: Any) -> list[Any]:
            self._call(PART, request)
            return self._answers(self.carried_out(serve, *request))

        return ask

    def carried_out(self, serve: Callable[..., Any], phase: str, *arguments: Any) -> Any:
        """This rank's part in a phase, or the error that it ends with. Where ranks exchange in it, the others would
        wait for ever for one that has failed: the job ends, with a line that says why."""
        answer = answered(serve, self.world.rank, phase, *arguments)
        if isinstance(answer, Exception) and (phase in EXCHANGING or (self.layered and phase == LAYERED)):
            self._end_all(answer)
        return answer

    def _end_all(self, error: Exception) -> None:
        status = 2
        if type(error).__module__.startswith("mpi4py"):
            status = LOST  # another rank is no more: that is why the job ends, not this
        else:
            said = f"refllm: rank {self.world.rank}: {error}; what was saved before is whole"
            print(said, file=sys.stderr, flush=True)
        self.world.Abort(status)
        os._exit(status)  # it comes back where the ranks are being ended already

    def sum_shards(self, gradients: list[Array], part: int, shards: int) -> None:
        """Each rank adds up a piece of all gradients, in the order of the ranks, and all get all pieces where all need
        them: not where each updates its own piece alone.

        As many bytes as of an Allreduce, whose order of sums is nobody's promise: so the same number of ranks gives the
        same bits.
        """
        [vector] = gradients
        if part >= shards:
            vector[...] = 0  # a batch with fewer rows than ranks leaves some without any
        pieces = tuple(self.piece(n, len(vector)) for n in range(self.count))
        self._add_up(vector, pieces, vector[pieces[part]])
        if not self.cut:
            self.gather_pieces(vector, pieces)

    def _add_up(self, vector: Array, pieces: tuple[slice, ...], own: Array) -> None:
        """The sum of all ranks' vectors, in their order, of the piece of this rank, into `own`."""
        starts, sizes = [n.start for n in pieces], [length(n) for n in pieces]
        for begin in range(0, max(sizes), AT_A_TIME):  # no second vector of this size is needed for what comes
            ends = [min(begin + AT_A_TIME, size) for size in sizes]
            firsts = [min(begin, size) for size in sizes]
            received = self.exchange.scattered(
                vector, [end - first for first, end in zip(firsts, ends, strict=True)],
                [start + first for start, first in zip(starts, firsts, strict=True)],
            )  # fmt: skip
            total = received[0]
            for other in received[1:]:
                total += other
            own[firsts[self.world.rank] : ends[self.world.rank]] = total

    def sum_pieces(self, vector: Array, pieces: tuple[slice, ...]) -> Array:
        """Of all ranks' vectors the sum of this rank's piece."""
        own = namespace(vector).empty(length(pieces[self.world.rank]), vector.dtype)
        self._add_up(vector, pieces, own)
        return own

    def gather_pieces(self, vector: Array, pieces: tuple[slice, ...]) -> None:
        """Each rank's piece of a vector goes to all."""
        self.exchange.gather(vector, [length(n) for n in pieces], [n.start for n in pieces])

    def join(self, vector: Array) -> None:
        if self.cut:
            self.gather_pieces(vector, tuple(self.piece(n, len(vector)) for n in range(self.count)))

    def spread(self, vector: Array) -> None:
        self.exchange.spread(vector)

    def validate(self, measured: Callable[[int | None], Any], vector: Array | None, most: int | None) -> Any:
        """`measured(most)`, to which every rank comes by the same code; `map` shares the work among them."""
        self._call(VALIDATION, most)
        return self.validate_together(measured, vector, most)

    def validate_together(self, measured: Callable[[int | None], Any], vector: Array | None, most: int | None) -> Any:
        if vector is not None:
            self.spread(vector)
        self._together = True
        try:
            return measured(most)
        finally:
            self._together = False

    def map(self, f: Callable[..., Result], *arguments: Iterable[Any]) -> list[Result]:
        """f over the arguments, each on one rank while all do the same; the results in order."""
        if not self._together:
            return list(map(f, *arguments))
        asked = list(zip(*arguments, strict=False))
        own: list[Any] = [None] * len(asked)
        for n in self._own_turns(len(asked)):
            own[n] = answer = answered(f, *asked[n])
            if self.layered and isinstance(answer, Exception):
                self._end_all(answer)  # the others wait for the pieces of this rank
        all_of_them = self.world.allgather(own)
        found = [all_of_them[n % self.count][n] for n in range(len(asked))]
        for answer in found:
            if isinstance(answer, Exception):
                raise answer
        return found

    def _own_turns(self, size: int) -> Iterator[int]:
        """Which of so many are this rank's to do. Where layers are gathered all must come to each, so that who has
        nothing left to do in the last turn does the last one too."""
        for n in range(self.world.rank, -(-size // self.count) * self.count, self.count):
            if n < size or self.layered:
                yield min(n, size - 1)

    def end(self) -> None:
        """The followers may leave."""
        if not self._ended and self.world.rank == 0:
            self._ended = True
            self._call(END, None)

    def _call(self, what: str, about: Any) -> None:
        self.world.bcast((what, about))

    def _answers(self, own: Any) -> list[Any]:
        answers: list[Any] = self.world.gather(own)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _require_none(self, answers: list[Any]) -> None:
        for rank, error in enumerate(answers):
            if error is not None:
                raise UserError(f"rank {rank}: {error}")


def answered(f: Callable[..., Any], *arguments: Any) -> Any:
    """What f gives, or the error that it ends with."""
    try:
        return f(*arguments)
    except Exception as error:
        return error
