"""What edited text says of one number that is made of many: the largest, the smallest, the first, the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.spec import array


def largest(x: Array, mask: Array | None, axis: int = -1, keepdims: bool = True) -> Array:
    """The largest number along an axis, of those that a mask marks."""
    return _one(x, mask, axis, keepdims, lambda values, there: numpy.where(there, values, -numpy.inf).argmax(axis))


def smallest(x: Array, mask: Array | None, axis: int = -1, keepdims: bool = True) -> Array:
    """The smallest number along an axis, of those that a mask marks."""
    return _one(x, mask, axis, keepdims, lambda values, there: numpy.where(there, values, numpy.inf).argmin(axis))


def first_of(x: Array, mask: Array | None, axis: int = -1, keepdims: bool = True) -> Array:
    """The first number along an axis, of those that a mask marks."""
    return _one(x, mask, axis, keepdims, lambda values, there: there.argmax(axis))


def last_of(x: Array, mask: Array | None, axis: int = -1, keepdims: bool = True) -> Array:
    """The last number along an axis, of those that a mask marks."""
    size = x.shape[axis]
    return _one(x, mask, axis, keepdims, lambda values, there: size - 1 - numpy.flip(there, axis).argmax(axis))


def _one(x: Array, mask: Array | None, axis: int, keepdims: bool, choose: Callable[[Any, Any], Any]) -> Array:
    """The number at the place that is chosen; 0 where nothing is marked."""
    values = numpy.asarray(getattr(x, "value", x))
    there = numpy.broadcast_to(True if mask is None else mask, values.shape)
    place = numpy.expand_dims(choose(values, there), axis)
    shape = [1] * values.ndim
    shape[axis] = -1
    chosen = (numpy.arange(values.shape[axis]).reshape(shape) == place) & there
    return array.sum(array.where(chosen, x, 0), axis=axis, keepdims=keepdims)


WORDS: dict[str, Any] = {"first_of": first_of, "largest": largest, "last_of": last_of, "smallest": smallest}
