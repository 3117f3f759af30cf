"""Norms of rows in blocks of columns, two passes; the gradients of gain and bias are added up over blocks of rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from refllm.backend import Array
from refllm.verify.kernels.machine import BLOCK, TILE, as_rows, tiles, unwritten, zeros

Pullback = Callable[[Array], tuple[Array, ...]]


def layer_norm(x: Array, g: Array, b: Array, *, eps: float) -> tuple[Array, Pullback]:
    rows, y = as_rows(x), unwritten(as_rows(x).shape, x)
    N = rows.shape[1]
    mean, r = statistics(rows, eps)
    for columns in tiles(N, BLOCK):
        y[:, columns] = (rows[:, columns] - mean) * r * g[columns] + b[columns]

    def layer_norm_back(dy: Array) -> tuple[Array, ...]:
        given, dx = as_rows(dy), unwritten(rows.shape, x)
        n = (rows - mean) * r
        first, second = zeros((len(rows), 1), x), zeros((len(rows), 1), x)
        for columns in tiles(N, BLOCK):
            dn = given[:, columns] * g[columns]
            first += dn.sum(axis=1, keepdims=True) / N
            second += (dn * n[:, columns]).sum(axis=1, keepdims=True) / N
        for columns in tiles(N, BLOCK):
            dn = given[:, columns] * g[columns]
            dx[:, columns] = r * (dn - first - n[:, columns] * second)
        dg, db = zeros(g.shape, g), zeros(b.shape, b)
        for part in tiles(len(rows), TILE):
            dg += (given[part] * n[part]).sum(axis=0)
            db += given[part].sum(axis=0)
        return dx.reshape(x.shape), dg, db

    return y.reshape(x.shape), layer_norm_back


def statistics(rows: Array, eps: float) -> tuple[Array, Array]:
    """The mean of each row, and one over its standard deviation."""
    N = rows.shape[1]
    total, squares = zeros((len(rows), 1), rows), zeros((len(rows), 1), rows)
    for columns in tiles(N, BLOCK):
        total += rows[:, columns].sum(axis=1, keepdims=True)
    mean = total / N
    for columns in tiles(N, BLOCK):
        squares += ((rows[:, columns] - mean) ** 2).sum(axis=1, keepdims=True)
    r = 1 / numpy.sqrt(squares / N + eps)
    return mean, r


def rms_norm(x: Array, g: Array, *, eps: float) -> tuple[Array, Pullback]:
    rows, y = as_rows(x), unwritten(as_rows(x).shape, x)
    N = rows.shape[1]
    squares = zeros((len(rows), 1), x)
    for columns in tiles(N, BLOCK):
        squares += (rows[:, columns] ** 2).sum(axis=1, keepdims=True)
    r = 1 / numpy.sqrt(squares / N + eps)
    for columns in tiles(N, BLOCK):
        y[:, columns] = rows[:, columns] * r * g[columns]

    def rms_norm_back(dy: Array) -> tuple[Array, ...]:
        given, n, dx = as_rows(dy), rows * r, unwritten(rows.shape, x)
        dot = zeros((len(rows), 1), x)
        for columns in tiles(N, BLOCK):
            dot += (given[:, columns] * g[columns] * n[:, columns]).sum(axis=1, keepdims=True) / N
        for columns in tiles(N, BLOCK):
            dx[:, columns] = r * (given[:, columns] * g[columns] - n[:, columns] * dot)
        dg = zeros(g.shape, g)
        for part in tiles(len(rows), TILE):
            dg += (given[part] * n[part]).sum(axis=0)
        return dx.reshape(x.shape), dg

    return y.reshape(x.shape), rms_norm_back
