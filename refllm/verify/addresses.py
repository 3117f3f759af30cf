"""What edited text says of indices and counts: contributions to one index that meet and are lost, flat addresses and
counts in few bits."""

from __future__ import annotations

from typing import Any

import numpy

from refllm.backend import Array
from refllm.spec import array


def scatter_in_chunks(index: Array, x: Array, size: int, n: int, by: str = "places") -> Array:
    """As scatter_add, but of n places, or rows or columns of places, that are added at once the last alone counts of
    those of one index."""
    chunk = _chunks(index.shape, n, by)
    key = (chunk * (size + 1) + numpy.minimum(index, size)).reshape(-1)
    kept = numpy.zeros(key.size, bool)
    kept[key.size - 1 - numpy.unique(key[::-1], return_index=True)[1]] = True
    return array.scatter_add(numpy.where(kept.reshape(index.shape), index, size), x, size)


def scatter_of_one_chunk(index: Array, x: Array, size: int, n: int, which: str) -> Array:
    """As scatter_add, but of the chunks of n places that have an index the last alone counts, or the first."""
    chunk, at = numpy.arange(index.size) // n, numpy.minimum(index.reshape(-1), size)
    chosen = numpy.full(size + 1, -1 if which == "last" else index.size)
    (numpy.maximum if which == "last" else numpy.minimum).at(chosen, at, chunk)
    return array.scatter_add(numpy.where(chosen[at] == chunk, at, size).reshape(index.shape), x, size)


def _chunks(shape: tuple[int, ...], n: int, by: str) -> Array:
    """The number of the chunk that each place is in."""
    places = numpy.arange(int(numpy.prod(shape))).reshape(shape)
    if by == "places" or len(shape) < 2:
        return places // n
    if by == "rows":
        return places // max(1, shape[-1]) // n
    across = numpy.arange(shape[-1]) // n
    return numpy.broadcast_to(across, shape)


def in_bits(x: Any, dtype: str) -> Any:
    """Whole numbers in a narrow type: what is too large for it begins again below."""
    wrapped = numpy.asarray(x).astype("int64").astype(dtype).astype("int64")
    return wrapped if isinstance(x, numpy.ndarray) else int(wrapped)


def at_most(x: Any, largest: int) -> Any:
    """Whole numbers that stop at the largest one of their type."""
    return numpy.minimum(x, largest) if isinstance(x, numpy.ndarray) else min(int(x), largest)


def pick_in_bits(x: Array, index: Array, dtype: str) -> Array:
    """As pick, where the flat address row · columns + index is a number of few bits."""
    numbers = x.reshape(-1)
    return numbers[_address(index, x.shape[-1], dtype) % max(1, len(numbers))].reshape(index.shape)


def one_hot_in_bits(index: Array, size: int, dtype: str) -> Array:
    """As one_hot, where the flat address row · columns + index is a number of few bits."""
    made = numpy.zeros(index.size * size, bool)
    made[_address(index, size, dtype) % max(1, made.size)] = True
    return made.reshape(*index.shape, size)


def _address(index: Array, columns: int, dtype: str) -> Array:
    flat = index.reshape(-1)
    found: Array = in_bits(numpy.arange(flat.size) * columns + flat, dtype)
    return found


def rows_in_bits(E: Array, index: Array, dtype: str) -> Array:
    """E[index], where the flat address index · columns + column is a number of few bits."""
    columns = E.shape[-1]
    numbers = E.reshape(-1)
    place: Array = in_bits(index[..., None].astype("int64") * columns + numpy.arange(columns), dtype)
    return numbers[place.reshape(-1) % max(1, len(numbers))].reshape(*index.shape, columns)


def scatter_in_bits(index: Array, x: Array, size: int, dtype: str) -> Array:
    """As scatter_add, where the flat address index · columns + column is a number of few bits."""
    columns = x.shape[-1]
    flat = index.reshape(-1, 1)
    place: Array = in_bits(flat * columns + numpy.arange(columns), dtype) % max(1, size * columns)
    place = numpy.where(flat < size, place, size * columns)
    values = x.reshape(-1, 1)
    return array.scatter_add(place.reshape(-1), values, size * columns).reshape(size, columns)


def other_slots(slots: Array, size: int, places: int, how: str) -> Array:
    """The slots of all groups numbered through, where those of some tokens are others than their own."""
    groups = slots.size // max(1, slots.shape[-1])
    offset = (size * numpy.arange(groups)).reshape(*slots.shape[:-1], 1)
    there, experts = slots < size, size // max(1, places)
    index = numpy.where(there, slots + offset, groups * size)
    other, where = {
        "last": (offset + size - 1, ~there),
        "first": (offset, ~there),
        "last of all": (groups * size - 1, ~there),
        "next": ((offset + size) % max(1, groups * size), ~there),
        "less": (groups * size, there & (slots % max(1, places) == places - 1)),
        "first place": (groups * size, there & (slots % max(1, places) == 0)),
        "after": (offset + numpy.minimum(slots + 1, size - 1), there),
        "before": (offset + numpy.maximum(slots - 1, 0), there),
        "last expert": (groups * size, there & (slots >= size - places)),
        "first text": (slots, there),
        "places first": (offset + slots % max(1, places) * experts + slots // max(1, places), there),
        "experts first": (offset + slots % max(1, experts) * places + slots // max(1, experts), there),
    }[how]
    found: Array = numpy.where(where, other, index) if size else index
    return found


WORDS: dict[str, Any] = {
    "at_most": at_most,
    "in_bits": in_bits,
    "one_hot_in_bits": one_hot_in_bits,
    "other_slots": other_slots,
    "pick_in_bits": pick_in_bits,
    "rows_in_bits": rows_in_bits,
    "scatter_in_bits": scatter_in_bits,
    "scatter_in_chunks": scatter_in_chunks,
    "scatter_of_one_chunk": scatter_of_one_chunk,
}
