"""Softmax and its kin, a row in blocks of columns: one pass for the maximum and the sum, one that writes."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from refllm.backend import Array
from refllm.verify.kernels.machine import BLOCK, INFINITY, as_rows, tiles, unwritten, zeros

Pullback = Callable[[Array], Array]


def softmax(x: Array) -> tuple[Array, Pullback]:
    rows = as_rows(x)
    shift, Z = online(rows)
    p = unwritten(rows.shape, x)
    for columns in tiles(rows.shape[1], BLOCK):
        p[:, columns] = numpy.exp(rows[:, columns] - shift) / where_nothing(Z)

    def softmax_back(dp: Array) -> Array:
        dy, dx = as_rows(dp), unwritten(rows.shape, x)
        dot = zeros((len(rows), 1), x)
        for columns in tiles(rows.shape[1], BLOCK):
            dot += (p[:, columns] * dy[:, columns]).sum(axis=1, keepdims=True)
        for columns in tiles(rows.shape[1], BLOCK):
            dx[:, columns] = p[:, columns] * (dy[:, columns] - dot)
        return dx.reshape(x.shape)

    return p.reshape(x.shape), softmax_back


def log_softmax(x: Array) -> tuple[Array, Pullback]:
    rows = as_rows(x)
    shift, Z = online(rows)
    y = unwritten(rows.shape, x)
    for columns in tiles(rows.shape[1], BLOCK):
        y[:, columns] = rows[:, columns] - shift - numpy.log(where_nothing(Z))

    def log_softmax_back(dy: Array) -> Array:
        given, dx = as_rows(dy), unwritten(rows.shape, x)
        total = zeros((len(rows), 1), x)
        for columns in tiles(rows.shape[1], BLOCK):
            total += given[:, columns].sum(axis=1, keepdims=True)
        for columns in tiles(rows.shape[1], BLOCK):
            dx[:, columns] = given[:, columns] - numpy.exp(y[:, columns]) * total
        return dx.reshape(x.shape)

    return y.reshape(x.shape), log_softmax_back


def online(rows: Array) -> tuple[Array, Array]:
    """The maximum of each row, 0 where that is -∞, and the sum of the exponentials below it: the sum is rescaled
    whenever a block has a larger number."""
    top, Z = numpy.full((len(rows), 1), -INFINITY, rows.dtype), zeros((len(rows), 1), rows)
    shift = zeros((len(rows), 1), rows)
    for columns in tiles(rows.shape[1], BLOCK):
        block = rows[:, columns]
        new = numpy.maximum(top, block.max(axis=1, keepdims=True))
        shift = numpy.where(new == -INFINITY, 0, new)
        Z = Z * numpy.exp(top - shift)
        Z = Z + numpy.exp(block - shift).sum(axis=1, keepdims=True)
        top = new
    return shift, Z


def where_nothing(Z: Array) -> Array:
    """1 for the sum of a row that has nothing but -∞."""
    return numpy.where(Z == 0, 1, Z).astype(Z.dtype)
