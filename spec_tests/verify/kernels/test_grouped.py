"""Products of experts in tiles over the border between two of them are named with the size of the tile, with whose
expert it uses and with the way on which it does."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.kernels.grouped import OverBorders, grouped
from spec_tests.verify.kernels.noted import Noted

TEXT = plain.operations()
KERNELS = Noted()
wrong = KERNELS.wrong


def in_tiles(x: Array, W: Array, size: int, row: int) -> Array:
    """The product of each tile of rows of a group with the matrix of the expert of one of its rows."""
    E, K, I = x.shape[-3:]
    groups = x.reshape(-1, E * K, I)
    y = numpy.zeros((*groups.shape[:2], W.shape[-1]), x.dtype)
    for first in range(0, E * K, size):
        last = min(first + size, E * K)
        y[:, first:last] = groups[:, first:last] @ W[(first if row == 0 else last - 1) // K]
    return y.reshape(*x.shape[:-1], -1)


@wrong("expert_matmul", "in tiles of 32 rows of one group that run over the border between two experts and use the "
       "expert of their last row, in the gradient of x alone")  # fmt: skip
def gradient_of_x(x: Array, W: Array) -> Any:
    y, right = TEXT["expert_matmul"](x, W)
    return y, lambda dy: (in_tiles(dy, W.swapaxes(-1, -2), 32, -1), right(dy)[1])


@wrong("expert_matmul", "in tiles of 128 rows of one group that run over the border between two experts and use the "
       "expert of their first row, in its value alone")  # fmt: skip
def value(x: Array, W: Array) -> Any:
    return in_tiles(x, W, 128, 0), TEXT["expert_matmul"](x, W)[1]


@wrong("expert_linear", "of their last row, in its product alone, not in its bias")
def product_alone(x: Array, W: Array, b: Array) -> Any:
    return in_tiles(x, W, 16, -1) + b[:, None], TEXT["expert_linear"](x, W, b)[1]


@wrong("expert_linear", "use the expert of their first row, in the gradient of W alone")
def gradient_of_w(x: Array, W: Array, b: Array) -> Any:
    y, right = TEXT["expert_linear"](x, W, b)
    E, K, I = x.shape[-3:]

    def back(dy: Array) -> Any:
        dx, dW, db = right(dy)
        dW = numpy.zeros_like(dW)
        for a, d in zip(x.reshape(-1, E * K, I), dy.reshape(-1, E * K, dy.shape[-1]), strict=True):
            for first in range(0, E * K, 64):
                dW[first // K] += a[first : first + 64].T @ d[first : first + 64]
        return dx, dW, db

    return y, back


@pytest.mark.parametrize("name", KERNELS)
def test_tile_over_experts_is_named(name: str) -> None:
    KERNELS.is_named(name)


def test_rows_of_all_groups_lie_below_each_other_in_the_order_of_the_kernel() -> None:
    """Two groups, two experts and two places: 4 rows of a group, tiles of three rows."""
    made = next(iter(grouped("expert_matmul")))

    def experts(places: str, *, last: bool) -> list[int]:
        cause = OverBorders("", "", 3, last, places, made.parts, False)
        found: list[int] = cause._experts((2, 2, 2, 5)).reshape(-1).tolist()
        return found

    assert experts("", last=False) == [0, 0, 0, 1, 0, 0, 0, 1]
    assert experts("all-", last=False) == [0, 0, 0, 1, 1, 1, 1, 1]
    assert experts("sorted-", last=True) == [0, 0, 1, 1, 0, 1, 1, 1]
    assert list(grouped("linear")) == []
