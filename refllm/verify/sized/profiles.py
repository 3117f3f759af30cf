"""Tensors of sized cases: what a recipe makes of the words of the generator.

    made({"profile": "normal", "shape": [33, 1025]}, seed, "inputs.x")      an array of float64

A number is m · 2^(e + exponent), with a whole m of at most 8 significant bits, so that it is exact in bfloat16 and in
every wider type; `exponent` stands in the recipe (0 if it does not). Element i of the tensor, row-major, has word i.
Row r of its last axis has word N + r, N being the number of elements.

    profile     m                                                    e
    normal      a + b + c + d - 126, the four topmost sixes of bits  -5        deviation 1.15, at most 3.94
    positive    1 + the 7 topmost bits                               -6        above 0, at most 2
    peaked      as normal                                            -5, and -1 where the 4 lowest bits are 0
    offset      248 + the 3 topmost bits                             -5        mean 7.86, deviation 0.07
    low         -(248 + the 3 topmost bits)                          2         rows far below 0: -1020 to -992
    wide        ±(128 + the 7 topmost bits), - if bit 0 is set       -15 + bits 8 to 11       2^-8 to 2^8
    outlier     as normal; ±255 at column below(row's word, n)       -5; 2                    one of 1020 in each row
    subnormal   ±(1 or the odd number of the 7 topmost bits)         -133      below 2^-126 without an exponent
    masked      as normal; -∞ where the 2 lowest bits are 0, and in a whole row where those of the row's word are
    constant    `value`                                              0
    integers    start + below(word, below); `instead` where the 3 lowest bits are 0, if the recipe has it
    count       start + step · column, modulo `modulus` if the recipe has it
    listed      `values`
    bits        true where the 8 topmost bits are less than `chance`
    lengths     true where column < lengths[row]
    documents   true where the row modulo n and the column have equally many `borders` at or before them
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.sized.generator import below, stream, words

Recipe = Mapping[str, Any]
INTEGERS = ("integers", "count", "listed")
BOOLEANS = ("bits", "lengths", "documents")


def made(recipe: Recipe, seed: int, name: str) -> Array:
    """The tensor of a recipe: float64, int64 or bool."""
    shape = tuple(recipe["shape"])
    size, n = math.prod(shape), shape[-1] if shape else 1
    rows = size // n if n else 0
    start = stream(seed, name)
    values = PROFILES[recipe["profile"]](recipe, words(start, 0, size), words(start, size, rows), n)
    if "exponent" in recipe:
        values = numpy.ldexp(values, recipe["exponent"])
    return values.reshape(shape)


def _bits(w: Array, lowest: int, count: int) -> Array:
    return ((w >> numpy.uint64(lowest)) & numpy.uint64((1 << count) - 1)).astype(numpy.int64)


def _column(rows: Array, n: int) -> Array:
    return numpy.tile(numpy.arange(n, dtype=numpy.int64), len(rows))


def _sixes(w: Array) -> Array:
    return _bits(w, 58, 6) + _bits(w, 52, 6) + _bits(w, 46, 6) + _bits(w, 40, 6) - 126


def _signed(w: Array, m: Array) -> Array:
    return numpy.where(_bits(w, 0, 1) == 1, -m, m)


def _normal(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    return numpy.ldexp(_sixes(w).astype(float), -5)


def _positive(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    return numpy.ldexp((_bits(w, 57, 7) + 1).astype(float), -6)


def _peaked(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    return numpy.ldexp(_sixes(w).astype(float), numpy.where(_bits(w, 0, 4) == 0, -1, -5))


def _offset(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    return numpy.ldexp((_bits(w, 61, 3) + 248).astype(float), -5)


def _low(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    return -numpy.ldexp((_bits(w, 61, 3) + 248).astype(float), 2)


def _wide(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    return numpy.ldexp(_signed(w, 128 + _bits(w, 57, 7)).astype(float), _bits(w, 8, 4) - 15)


def _outlier(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    values = _normal(recipe, w, rows, n)
    values[numpy.arange(len(rows)) * n + below(rows, n)] = _signed(rows, numpy.full(len(rows), 1020)).astype(float)
    return values


def _subnormal(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    return numpy.ldexp(_signed(w, _bits(w, 57, 7) | 1).astype(float), -133)


def _masked(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    hidden = (_bits(w, 0, 2) == 0) | numpy.repeat(_bits(rows, 0, 2) == 0, n)
    return numpy.where(hidden, -math.inf, _normal(recipe, w, rows, n))


def _constant(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    return numpy.full(len(w), float(recipe["value"]))


def _integers(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    values = below(w, recipe["below"]) + recipe.get("start", 0)
    return numpy.where(_bits(w, 0, 3) == 0, recipe["instead"], values) if "instead" in recipe else values


def _count(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    values = recipe.get("start", 0) + recipe.get("step", 1) * _column(rows, n)
    return values % recipe["modulus"] if "modulus" in recipe else values


def _listed(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    return numpy.array(recipe["values"], numpy.int64)


def _chance(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    return _bits(w, 56, 8) < recipe["chance"]


def _lengths(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    return _column(rows, n) < numpy.repeat(numpy.array(recipe["lengths"], numpy.int64), n)


def _documents(recipe: Recipe, w: Array, rows: Array, n: int) -> Array:
    column, row = _column(rows, n), numpy.repeat(numpy.arange(len(rows)) % max(n, 1), n)
    place = (numpy.searchsorted(recipe["borders"], x, side="right") for x in (row, column))
    return numpy.equal(*place)


PROFILES: Mapping[str, Callable[[Recipe, Array, Array, int], Array]] = {
    "normal": _normal, "positive": _positive, "peaked": _peaked, "offset": _offset, "low": _low, "wide": _wide,
    "outlier": _outlier, "subnormal": _subnormal, "masked": _masked, "constant": _constant,
    "integers": _integers, "count": _count, "listed": _listed,
    "bits": _chance, "lengths": _lengths, "documents": _documents,
}  # fmt: skip
