#!/usr/bin/env python3
"""Does it gain to send the gradient in parts beside the backward pass? mpiexec -n 2 python scripts/overlap.py

Each rank goes back through some linear layers. Either it sends the whole gradient at the end, or each layer's part as
soon as it is there (Ialltoallv), and waits at the end. Both by turns in one process; the median of the ratios is given.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any


def begun(world: Any, part: Any) -> tuple[Any, ...]:
    """Begins to send each rank the stretch of this part that it adds up."""
    import numpy

    ends = [part.size * n // world.size for n in range(world.size + 1)]
    sizes = [b - a for a, b in pairwise(ends)]
    own, kind = sizes[world.rank], part.dtype.char
    received = numpy.empty((world.size, own), part.dtype)
    places = [own * n for n in range(world.size)]
    request = world.Ialltoallv(
        [part, sizes, ends[:-1], kind], [received, [own] * world.size, places, kind]
    )  # fmt: skip
    return request, received, part, sizes, ends[:-1], kind


def joined(world: Any, exchanges: list[tuple[Any, ...]]) -> None:
    """Adds up what has come, and gives all the sums."""
    for request, received, part, sizes, starts, kind in exchanges:
        request.Wait()
        world.Allgatherv(received.sum(axis=0), [part, sizes, starts, kind])


def ways(world: Any, layers: int, width: int, tokens: int) -> list[Callable[[], None]]:
    """The backward pass, the exchange, one after the other, and one beside the other."""
    import numpy

    random = numpy.random.default_rng(world.rank).standard_normal
    weights = [(random((width, width)) / 32).astype("float32") for _ in range(layers)]
    x = random((tokens, width)).astype("float32")
    flat = numpy.empty(layers * width * width, "float32")
    gradients = flat.reshape(layers, width, width)

    def backward(each: Callable[[Any], None]) -> None:
        dy = x
        for W, dW in zip(weights, gradients, strict=True):
            numpy.matmul(x.T, dy, out=dW)
            dy = dy @ W.T
            each(dW.reshape(-1))

    def compute() -> None:
        backward(lambda part: None)

    def send() -> None:
        joined(world, [begun(world, flat)])

    def after() -> None:
        compute()
        send()

    def beside() -> None:
        exchanges: list[tuple[Any, ...]] = []
        backward(lambda part: exchanges.append(begun(world, part)))
        joined(world, exchanges)

    return [compute, send, after, beside]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("layers", 8), ("width", 1024), ("tokens", 512), ("rounds", 15)):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    o = parser.parse_args()
    try:
        from mpi4py import MPI
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        sys.exit(f"overlap.py: this Python has no {error.name}; run ./scripts/refllm install mpi, and take its Python")
    world = MPI.COMM_WORLD
    times: dict[str, list[float]] = {}
    with threadpool_limits(limits=1, user_api="blas"):
        tried = ways(world, o.layers, o.width, o.tokens)
        for _ in range(o.rounds + 1):
            for f in tried:
                world.Barrier()
                since = time.perf_counter()
                f()
                times.setdefault(f.__name__, []).append(world.allreduce(time.perf_counter() - since, MPI.MAX))
    if world.rank == 0:
        for name, measured in times.items():
            print(f"{name:<8}{1e3 * statistics.median(measured[1:]):8.1f} ms")
        ratios = [b / a for a, b in zip(times["after"][1:], times["beside"][1:], strict=True)]
        first, middle, third = statistics.quantiles(ratios, n=4)
        print(f"beside / after {middle:.3f} (quartiles {first:.3f} to {third:.3f})")


if __name__ == "__main__":
    main()
