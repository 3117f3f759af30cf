"""Words of edited text that put rows or numbers elsewhere, or one in the place of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy

from refllm.backend import Array
from refllm.spec import array


def scatter_mean(index: Array, x: Array, size: int) -> Array:
    """The mean of the rows of each index, where their sum is meant."""
    count = numpy.bincount(index.reshape(-1), minlength=size)[:size].clip(1)
    return array.scatter_add(index, x, size) / array.like(count[:, None], x)


def scatter_last(index: Array, x: Array, size: int) -> Array:
    """The last row of each index: assigned where it should be added."""
    flat = index.reshape(-1)
    last = {int(i): n for n, i in enumerate(flat)}
    kept = numpy.array([last[int(i)] == n for n, i in enumerate(flat)], bool).reshape(index.shape)
    return array.scatter_add(numpy.where(kept, index, size), x, size)


def scatter_last_of_each(index: Array, x: Array, size: int) -> Array:
    """The sum over the texts of the last row of each index in a text: assigned within a text, added over these."""
    if index.ndim < 2:
        return scatter_last(index, x, size)
    texts, rows = index.reshape(-1, index.shape[-1]), x.reshape(-1, index.shape[-1], x.shape[-1])
    parts = [scatter_last(text, rows[n], size) for n, text in enumerate(texts)]
    return array.sum(array.stack(parts, axis=0), axis=0, keepdims=False) if parts else scatter_last(index, x, size)


def scatter_last_sums(index: Array, x: Array, size: int) -> Array:
    """x, added up over the axes that the index is spread over; of entries with the same index the last one counts."""
    while x.ndim - 1 > index.ndim:
        x = array.sum(x, axis=0, keepdims=False)
    for axis, n in enumerate(index.shape):
        x = array.sum(x, axis=axis, keepdims=True) if n == 1 else x
    return scatter_last(index, x, size)


def mean_of_all(x: Array) -> Array:
    """The mean of all numbers of x in the place of each."""
    return 0 * x + array.total(x) / max(1, math.prod(x.shape))


def first_of_all(x: Array) -> Array:
    """The first number of x in the place of each."""
    return 0 * x + x.reshape(-1)[0] if math.prod(x.shape) else x


def in_turn(x: Array, shape: Sequence[int]) -> Array:
    """The numbers of x one after the other, and again from the first, through all places of a shape."""
    places = numpy.arange(math.prod(shape)) % max(1, math.prod(x.shape))
    return x.reshape(-1)[places].reshape(*shape)


def in_parts(x: Array, order: Sequence[int]) -> Array:
    """x, cut into parts side by side, each of which is the part of that number."""
    n = x.shape[-1] // len(order)
    return array.concatenate([x[..., n * part : n * (part + 1)] for part in order], axis=-1)


def at_targets(targets: Array, x: Array, other: Array) -> Array:
    """x at the target of every row, and the other elsewhere."""
    return array.where(array.one_hot(targets, x.shape[-1]), x, other)


def once_for_each_block(x: Array, others: Array, size: int) -> Array:
    """The logarithm of a share that counts as often as there are blocks of so many others in its row."""
    return x + math.log(max(1, -(-others.shape[-1] // size)))


def once_for_each_seen_block(x: Array, others: Array, size: int) -> Array:
    """The same, of the blocks in which something is not masked alone."""
    seen = numpy.asarray(getattr(others, "value", others)) > -numpy.inf
    count = sum(seen[..., n : n + size].any(axis=-1, keepdims=True).astype(int) for n in range(0, seen.shape[-1], size))
    return x + numpy.log(numpy.maximum(count, 1))


WORDS: dict[str, Any] = {
    "at_targets": at_targets,
    "once_for_each_block": once_for_each_block,
    "once_for_each_seen_block": once_for_each_seen_block,
    "first_of_all": first_of_all,
    "in_parts": in_parts,
    "in_turn": in_turn,
    "mean_of_all": mean_of_all,
    "scatter_last": scatter_last,
    "scatter_last_of_each": scatter_last_of_each,
    "scatter_last_sums": scatter_last_sums,
    "scatter_mean": scatter_mean,
}
