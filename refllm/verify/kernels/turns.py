"""Rotary positions, a pair of entries at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from refllm.backend import Array
from refllm.verify.kernels.machine import TILE, narrow, tiles, unwritten

Pullback = Callable[[Array], Array]


def rotary_halves(x: Array, *, positions: Array, base: float) -> tuple[Array, Pullback]:
    half = x.shape[-1] // 2

    def rotary_halves_back(dy: Array) -> Array:
        return turned(dy, positions, base, slice(0, half), slice(half, None), -1)

    return turned(x, positions, base, slice(0, half), slice(half, None), 1), rotary_halves_back


def rotary_interleaved(x: Array, *, positions: Array, base: float) -> tuple[Array, Pullback]:
    def rotary_interleaved_back(dy: Array) -> Array:
        return turned(dy, positions, base, slice(0, None, 2), slice(1, None, 2), -1)

    return turned(x, positions, base, slice(0, None, 2), slice(1, None, 2), 1), rotary_interleaved_back


def turned(x: Array, positions: Array, base: float, one: slice, other: slice, sign: int) -> Array:
    """Every pair turned by the angle of its position and place, which is formed in float64."""
    y, D = unwritten(x.shape, x), x.shape[-1]
    frequencies = base ** (-numpy.arange(0, D, 2) / D)
    for rows in tiles(x.shape[-2], TILE):
        angles = positions[rows, None] * frequencies
        c, s = numpy.cos(angles).astype(x.dtype), (sign * numpy.sin(angles)).astype(x.dtype)
        a, b = x[..., rows, one], x[..., rows, other]
        y[..., rows, one] = a * c - b * s
        y[..., rows, other] = b * c + a * s
    return y


def turned_on(positions: Array, frequencies: Array, dtype: str) -> tuple[Array, Array]:
    """The cosines and sines of positions that follow each other, each of them that before turned once more, in a narrow
    type: the roundings of all before are in them."""
    angles = positions[:, None] * frequencies
    c, s, u, w = (narrow(f(a), dtype) for a in (angles, frequencies) for f in (numpy.cos, numpy.sin))
    for t in range(1, len(positions)):
        if positions[t] == positions[t - 1] + 1:
            c[t] = narrow(narrow(c[t - 1] * u, dtype) - narrow(s[t - 1] * w, dtype), dtype)
            s[t] = narrow(narrow(s[t - 1] * u, dtype) + narrow(c[t - 1] * w, dtype), dtype)
    return c, s
