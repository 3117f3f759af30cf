"""Which elements of a tensor are looked at, and with which signs its elements are added up.

    probes((33, 1025), seed, "outputs.y")       64 places, as numbers of elements in row-major order
    signs(33 * 1025, seed, "outputs.y")         an array of +1 and -1

Coordinate a of probe j, along an axis of length n, comes from word 8 j + a of the stream "probes.outputs.y":

    j < 8        a corner:  0 if the lowest bit of the word is 0, else n - 1
    j < 32       the border of a tile:  B below(word, n // B + 1) - bit 2,  cut off at 0 and n - 1;
                 B is 32, 64, 128 or 1,024 by the two lowest bits
    otherwise    below(word, n)

The sign of element i is - where the topmost bit of word i of the stream "signs.outputs.y" is set.
"""

from __future__ import annotations

import math

import numpy

from refllm.backend import Array
from refllm.verify.sized.generator import below, stream, words

COUNT, CORNERS, BORDERS = 64, 8, 32  # probes; those before these numbers are corners, and borders of tiles
TILES = numpy.array([32, 64, 128, 1024])


def probes(shape: tuple[int, ...], seed: int, name: str) -> Array:
    """The numbers of the elements that are looked at; none of a tensor without elements."""
    if not math.prod(shape):
        return numpy.zeros(0, numpy.int64)
    w = words(stream(seed, f"probes.{name}"), 0, 8 * COUNT).reshape(COUNT, 8)
    place = numpy.zeros(COUNT, numpy.int64)
    for axis, n in enumerate(shape):
        place = place * n + _coordinates(w[:, axis], n)
    return place


def _coordinates(w: Array, n: int) -> Array:
    low = (w & numpy.uint64(7)).astype(numpy.int64)
    tile = TILES[low & 3]
    border = numpy.array([int(below(x, n // B + 1)) for x, B in zip(w, tile.tolist(), strict=True)])
    border = numpy.clip(border * tile - (low >> 2), 0, n - 1)
    j = numpy.arange(len(w))
    return numpy.where(j < CORNERS, (low & 1) * (n - 1), numpy.where(j < BORDERS, border, below(w, n)))


def signs(size: int, seed: int, name: str) -> Array:
    """+1 or -1 for every element."""
    topmost = (words(stream(seed, f"signs.{name}"), 0, size) >> numpy.uint64(63)).astype(float)
    return 1 - 2 * topmost
