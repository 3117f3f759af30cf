"""A last tile that is moved back so that it is whole, and counts again what is in the one before, is named with its
size: in products, in sums and in gradients that are added up over rows."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.sums import with_stale_tail
from spec_tests.verify.kernels.noted import Noted

TEXT = plain.operations()
KERNELS = Noted()
wrong = KERNELS.wrong


def tiles(n: int, size: int) -> list[slice]:
    size = min(size, n)
    firsts = [min(first, n - size) for first in range(0, n, size)] if size else []
    return [slice(first, first + size) for first in firsts]


@wrong("matmul", "or is moved back so that it is whole")
def product(x: Array, W: Array) -> Any:
    y = sum((x[..., tile] @ W[tile] for tile in tiles(len(W), 32)), numpy.zeros((*x.shape[:-1], W.shape[1]), x.dtype))
    return y, TEXT["matmul"](x, W)[1]


@wrong("rms_norm", "partial part of 16 places, or with that part moved back so that it is whole")
def mean_of_squares(x: Array, g: Array, *, eps: float) -> Any:
    N = x.shape[-1]
    squares = sum(((x[..., t] ** 2).sum(axis=-1, keepdims=True) for t in tiles(N, 16)), 0 * x[..., :1])
    return x / numpy.sqrt(squares / N + eps) * g, TEXT["rms_norm"](x, g, eps=eps)[1]


@wrong("layer_norm", "whose gradients are added up over parts of 8 rows, of which the last is moved back so that it is "
       "whole and counts some again")  # fmt: skip
def gradients_over_rows(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    y, right = TEXT["layer_norm"](x, g, b, eps=eps)

    def back(dy: Array) -> Any:
        rows = dy.reshape(-1, dy.shape[-1]).copy()
        times = numpy.zeros((len(rows), 1), dy.dtype)
        for tile in tiles(len(rows), 8):
            times[tile] += 1
        return right(dy)[0], *right((rows * times).reshape(dy.shape))[1:]

    return y, back


@wrong("log_sum_exp", "partial part of 64 places, or with that part moved back so that it is whole")
def sum_of_exponentials(x: Array) -> Any:
    top = x.max(axis=-1, keepdims=True)
    top = numpy.where(numpy.isfinite(top), top, 0)
    with numpy.errstate(divide="ignore"):
        parts = (numpy.exp(x[..., t] - top).sum(axis=-1) for t in tiles(x.shape[-1], 64))
        return numpy.log(sum(parts, 0 * top[..., 0])) + top[..., 0], TEXT["log_sum_exp"](x)[1]


@wrong("gated_feed_forward", "over parts of 32 places of F, of which the last is moved back so that it is whole")
def inner_width(x: Array, p: Any, *, activation: str) -> Any:
    parts = tiles(p["Wg"].shape[1], 32)
    wide = {n: numpy.concatenate([p[n][:, t] for t in parts], axis=1) for n in ("Wg", "W1")}
    wide["W2"] = numpy.concatenate([p["W2"][t] for t in parts])
    y, right = TEXT["gated_feed_forward"](x, wide, activation=activation)

    def back(dy: Array) -> Any:
        dx, dwide = right(dy)
        dp = {n: numpy.zeros_like(w) for n, w in p.items()}
        first = 0
        for t in parts:
            last = first + t.stop - t.start
            for n in ("Wg", "W1"):
                dp[n][:, t] += dwide[n][:, first:last]
            dp["W2"][t] += dwide["W2"][first:last]
            first = last
        return dx, dp

    return y, back


@pytest.mark.parametrize("name", KERNELS)
def test_tile_that_is_moved_back_is_named(name: str) -> None:
    KERNELS.is_named(name)


@pytest.mark.parametrize(
    ("n", "size", "twice"), [(10, 4, [6, 7]), (9, 4, [5, 6, 7]), (4, 4, []), (3, 4, []), (5, 4, [1, 2, 3])]
)
def test_what_counts_twice_is_what_two_parts_share(n: int, size: int, twice: list[int]) -> None:
    made = with_stale_tail(numpy.ones((2, n)), size)
    assert numpy.array_equal(numpy.flatnonzero(made[1] == 2), twice)
    assert numpy.array_equal(with_stale_tail(numpy.ones((n, 2)), size, axis=0), made.T)
