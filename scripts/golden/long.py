"""Formulas of the Llama and T5 families and of longer context: RMS norm, gates, rotary positions, biases by distance.

The identifiers (LONG, T5-REL ...) are those of the specification.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mpmath import mp, mpf

from golden.formulas import Array, attention, each, mean, over_root, rows
from golden.tape import Node, constant, cos, sigmoid, sin, wide

SMALL = 64  # radians, ten turns


def rms_norm(x: Array, g: Array, *, eps: float) -> Array:
    """T5-REL (Zhang & Sennrich 2019): g x / sqrt(mean(x^2) + eps)."""

    def normalise(row: Array) -> list[Node]:
        return over_root(row, mean([a * a for a in row]) + eps)

    return rows(normalise, x) * g


def silu(x: Array) -> Array:
    """FFN (Shazeer 2020): x sigmoid(x)."""
    return each(lambda a: a * sigmoid(a), x)


def multiply(a: Array, b: Array) -> Array:
    """FFN (Shazeer 2020): the product of a gated unit, element by element."""
    return a * b


def rotary_halves(x: Array, *, positions: Array, base: float) -> Array:
    """LONG (Su 2021) with the pairs (i, i + D/2): x_i cos - x_(i+D/2) sin, x_(i+D/2) cos + x_i sin."""
    D = x.shape[-1]
    return _rotated(x, positions, base, [(i, i + D // 2) for i in range(D // 2)])


def rotary_interleaved(x: Array, *, positions: Array, base: float) -> Array:
    """LONG (Su 2021, 3.2) with the pairs (2i, 2i + 1), as in the paper."""
    return _rotated(x, positions, base, [(2 * i, 2 * i + 1) for i in range(x.shape[-1] // 2)])


def _rotated(x: Array, positions: Array, base: float, pairs: list[tuple[int, int]]) -> Array:
    """Pair i of the row at position p turned by the angle p base^(-2i/D)."""
    places = np.broadcast_to(positions, x.shape[:-1])
    waves = {p: [_wave(p, i, x.shape[-1], base) for i in range(len(pairs))] for p in set(places.reshape(-1).tolist())}
    y = np.empty(x.shape, dtype=object)
    for row in np.ndindex(places.shape):
        for (first, second), (c, s) in zip(pairs, waves[int(places[row])], strict=True):
            a, b = x[(*row, first)], x[(*row, second)]
            y[(*row, first)] = a * c - b * s
            y[(*row, second)] = b * c + a * s
    return y


def _wave(position: int, i: int, D: int, base: float) -> tuple[Node, Node]:
    """A small angle is a number like others. A large one loses its turn in a narrow dtype and is formed in float64:
    position and base are known before any array is."""
    place, rate = constant(position), constant(mp.power(mpf(base), -mpf(2 * i) / D))
    angle = place * rate
    if abs(angle.value) > SMALL:
        place, rate, angle = wide(place), wide(rate), wide(angle)
    return cos(angle), sin(angle)


def repeat_heads(k: Array, *, groups: int) -> Array:
    """LONG, grouped queries (Ainslie 2023): query head h uses key head h // groups."""
    return np.repeat(k, groups, axis=-3)


# --- a bias of the scores by the distance of key and query -----------------------------------------------------------


def relative_attention(
    q: Array, k: Array, v: Array, r: Array, *, causal: bool, allowed: Array | None, **conventions: Any
) -> Array:
    """T5-REL, LONG: attention with the score of query t and key s raised by r[h, s - t + T - 1]."""
    T, S = q.shape[-2], k.shape[-2]
    bias = r[:, np.arange(S) - np.arange(T)[:, None] + T - 1]  # (H, T, S)
    return attention(q, k, v, causal=causal, allowed=allowed, bias=bias, **conventions)


def distances(queries: int, keys: int) -> list[int]:
    """What the entries of r stand for: key position less query position, where the queries are the last keys."""
    return [j - (keys - 1) for j in range(queries + keys - 1)]


def t5_bias_causal(E: Array, *, queries: int, keys: int, farthest: int) -> Array:
    """T5-REL (Raffel 2020, 2.1): a row of the table for every distance into the past; later keys share row 0."""
    buckets = [bucket(max(-d, 0), len(E), farthest) for d in distances(queries, keys)]
    return E[buckets].T


def t5_bias_bidirectional(E: Array, *, queries: int, keys: int, farthest: int) -> Array:
    """T5-REL: half of the rows for keys before the query and at it, the other half for keys after it."""
    half = len(E) // 2
    buckets = [bucket(abs(d), half, farthest) + half * (d > 0) for d in distances(queries, keys)]
    return E[buckets].T


def bucket(distance: int, buckets: int, farthest: int) -> int:
    """The first half of the buckets holds a distance each; the others grow by one factor until `farthest`, and the
    last holds what is beyond: exact + floor((buckets - exact) ln(distance / exact) / ln(farthest / exact)).

    Decided in whole numbers, so that no rounding of a logarithm moves a border.
    """
    exact = buckets // 2
    if distance < exact:
        return distance
    step, wide = 0, buckets - exact
    while exact + step + 1 < buckets and _reaches(distance, exact, farthest, step + 1, wide):
        step += 1
    return exact + step


def _reaches(distance: int, exact: int, farthest: int, step: int, steps: int) -> bool:
    """(farthest / exact)^(step / steps) <= distance / exact"""
    return bool(farthest**step * exact**steps <= distance**steps * exact**step)


def alibi(m: Array, *, queries: int, keys: int) -> Array:
    """LONG (Press 2022): -m |distance| for the slope m of each head."""
    far = np.array([abs(d) for d in distances(queries, keys)])
    return each(lambda slope, d: -(slope * int(d)), m[:, None], far)
