"""Cross-entropy without the probabilities in memory: the sum of the exponentials of a row, then its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.kernels.machine import BLOCK, as_rows, tiles, unwritten, zeros
from refllm.verify.kernels.softmaxes import online

Pullback = Callable[[Any], Array]


def cross_entropy(logits: Array, *, targets: Array, ignore: int | None, reduction: str) -> tuple[Any, Pullback]:
    return smoothed_cross_entropy(logits, targets=targets, ignore=ignore, smoothing=0.0, reduction=reduction)


def smoothed_cross_entropy(
    logits: Array, *, targets: Array, ignore: int | None, smoothing: float, reduction: str
) -> tuple[Any, Pullback]:
    rows, index = as_rows(logits), targets.reshape(-1)
    counted = numpy.ones(index.shape, bool) if ignore is None else index != ignore
    index = numpy.where(counted, index, 0)
    number, V = numpy.arange(len(rows)), rows.shape[1]
    shift, Z = online(rows)
    picked = zeros((len(rows),), logits)
    for columns in tiles(V, BLOCK):
        here = (columns.start <= index) & (index < columns.stop)
        place = numpy.minimum(numpy.maximum(index, columns.start), columns.stop - 1)
        picked += numpy.where(here, rows[number, place], 0)
    losses = numpy.log(Z)[:, 0] - (1 - smoothing) * (picked - shift[:, 0])
    if smoothing:
        for columns in tiles(V, BLOCK):
            losses -= smoothing / V * (rows[:, columns] - shift).sum(axis=1)
    losses = numpy.where(counted, losses, 0)
    count = max(1, int(counted.sum()))

    def cross_entropy_back(dy: Any) -> Array:
        dx = unwritten(rows.shape, logits)
        share = zeros((len(rows),), logits) + numpy.reshape(dy, -1) / (count if reduction == "mean" else 1)
        share = numpy.where(counted, share, 0)[:, None]
        for columns in tiles(V, BLOCK):
            places = numpy.arange(columns.start, columns.stop)
            target = (1 - smoothing) * (places == index[:, None]) + smoothing / V
            p = numpy.exp(rows[:, columns] - shift) / Z
            dx[:, columns] = (p - target.astype(logits.dtype)) * share
        return dx.reshape(logits.shape)

    if reduction == "none":
        return losses.reshape(targets.shape), cross_entropy_back
    return losses.sum() / (count if reduction == "mean" else 1), cross_entropy_back
