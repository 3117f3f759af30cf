"""What edited text says of sums of many numbers: which of the numbers are in them, and how far they have come."""

from __future__ import annotations

from typing import Any

import numpy

from refllm.backend import Array
from refllm.spec import array


def without_tail(x: Array, size: int, axis: int = -1) -> Array:
    """x with 0 after the last whole part of so many places."""
    n = x.shape[axis]
    return _kept(x, numpy.arange(n) < n // size * size, axis)


def without_tail_of_long(x: Array, size: int, axis: int = -1) -> Array:
    """x with 0 after the last whole part of so many places, where there is one."""
    return without_tail(x, size, axis) if x.shape[axis] >= size else x


def first_alone(x: Array, size: int, axis: int = -1) -> Array:
    """x with 0 after the first so many places."""
    return _kept(x, numpy.arange(x.shape[axis]) < size, axis)


def without_last_part(x: Array, size: int, axis: int = -1) -> Array:
    """x with 0 in its last part of so many places, whole or not."""
    n = x.shape[axis]
    return _kept(x, numpy.arange(n) < (n - 1) // size * size, axis)


def last_part_alone(x: Array, size: int, axis: int = -1) -> Array:
    """x with 0 before its last part of so many places."""
    n = x.shape[axis]
    return _kept(x, numpy.arange(n) >= (n - 1) // size * size, axis)


def half_of_lanes(x: Array, size: int, axis: int = -1) -> Array:
    """x with 0 in the second half of each part of so many places."""
    return _kept(x, numpy.arange(x.shape[axis]) % size < size // 2, axis)


def with_stale_tail(x: Array, size: int, before: int = 1, axis: int = -1) -> Array:
    """x as it is added up where its last, partial part has behind its end the numbers of a part before it: of the one
    before, or of the one so many before."""
    n = x.shape[axis]
    part = n // size - before
    place = numpy.arange(n) - part * size
    again = (part >= 0) & (n % size > 0) & (place >= n % size) & (place < size)
    return x + _kept(x, again, axis)


def running_sum(x: Array, size: int) -> Array:
    """For each place the sum of all parts of so many places up to its own."""
    sums = numpy.add.reduceat(x, numpy.arange(0, x.shape[-1], size), axis=-1).cumsum(axis=-1)
    return numpy.repeat(sums, size, axis=-1)[..., : x.shape[-1]].astype(x.dtype)


def sum_of_part(x: Array, size: int) -> Array:
    """For each place the sum of its own part of so many places."""
    sums = numpy.add.reduceat(x, numpy.arange(0, x.shape[-1], size), axis=-1)
    return numpy.repeat(sums, size, axis=-1)[..., : x.shape[-1]]


def padded_mean(x: Array, size: int) -> Array:
    """The sum of every row, divided by its length rounded up to a multiple of so many places."""
    return array.sum(x) / max(1, -(-x.shape[-1] // size) * size)


def _kept(x: Array, there: Array, axis: int) -> Array:
    shape = [1] * len(x.shape)
    shape[axis] = -1
    return array.where(there.reshape(shape), x, 0)


WORDS: dict[str, Any] = {
    "first_alone": first_alone,
    "half_of_lanes": half_of_lanes,
    "last_part_alone": last_part_alone,
    "padded_mean": padded_mean,
    "running_sum": running_sum,
    "sum_of_part": sum_of_part,
    "with_stale_tail": with_stale_tail,
    "without_last_part": without_last_part,
    "without_tail": without_tail,
    "without_tail_of_long": without_tail_of_long,
}
