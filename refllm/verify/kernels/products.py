"""Matrix products in tiles of rows, columns and terms, as a kernel with shared memory forms them."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array
from refllm.verify.kernels.machine import TILE, as_rows, swap, tiles, unwritten, zeros

Pullback = Callable[..., tuple[Array, ...]]


def matmul(x: Array, W: Array) -> tuple[Array, Pullback]:
    y = product(as_rows(x), W)

    def matmul_back(dy: Array) -> tuple[Array, ...]:
        dx = product(as_rows(dy), swap(W))
        dW = product(swap(as_rows(x)), as_rows(dy))
        return dx.reshape(x.shape), dW

    return y.reshape(*x.shape[:-1], W.shape[-1]), matmul_back


def linear(x: Array, W: Array, b: Array) -> tuple[Array, Pullback]:
    y = product(as_rows(x), W, b)

    def linear_back(dy: Array) -> tuple[Array, ...]:
        dx = product(as_rows(dy), swap(W))
        dW = product(swap(as_rows(x)), as_rows(dy))
        db = zeros(b.shape, b)
        for rows in tiles(len(as_rows(dy)), TILE):
            db += as_rows(dy)[rows].sum(axis=0)
        return dx.reshape(x.shape), dW, db

    return y.reshape(*x.shape[:-1], W.shape[-1]), linear_back


def product(a: Array, c: Array, bias: Array | None = None) -> Array:
    """a c + bias. A tile of each factor is copied into shared memory, and the accumulators take their product."""
    (M, K), N = a.shape, c.shape[-1]
    y = unwritten((M, N), a)
    for rows in tiles(M, 2 * TILE):
        for columns in tiles(N, 2 * TILE):
            accumulators = zeros((rows.stop - rows.start, columns.stop - columns.start), a)
            left, right = zeros((len(accumulators), TILE), a), zeros((TILE, accumulators.shape[1]), a)
            for terms in tiles(K, TILE):
                width = terms.stop - terms.start
                left[:, :width], right[:width] = a[rows, terms], c[terms, columns]
                left[:, width:] = 0
                accumulators += left @ right
            if bias is not None:
                accumulators += bias[columns]
            y[rows, columns] = accumulators
    return y
