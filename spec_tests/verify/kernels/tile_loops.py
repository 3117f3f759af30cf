"""Attention in tiles as a kernel computes it, written for the tests, with places at which a fault is put in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array

Fault = Callable[..., Any]


def nothing(*given: Any) -> Any:
    return given[0]


def attention_in_tiles(
    queries: int = 64, keys: int = 64, *, rescale: Fault = nothing, allowed_back: Fault = nothing,
    mask: Fault = nothing, merged: Fault | None = None, lse: Fault = nothing, dk: Fault = nothing,
) -> Callable[..., Any]:  # fmt: skip
    """`rescale(factor, rise, number of the tile)`, `allowed_back(allowed, rows, keys)`, `mask(mask, shape)`,
    `merged(outputs, log-sum-exp)` of keys in parts, `lse(lse, maximum)` and `dk(dk, dk of the tile)` stand in the
    place of what they are given."""

    def attention(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
        T, S, scale = q.shape[-2], k.shape[-2], 1 / numpy.sqrt(q.shape[-1])
        may = numpy.broadcast_to(numpy.tri(T, S, S - T, dtype=bool) if causal else True, (*q.shape[:-2], T, S))
        may = may if allowed is None else may & numpy.broadcast_to(mask(allowed, q.shape), may.shape)

        def scores(a: slice, c: slice, seen: Array) -> Array:
            return numpy.where(seen[..., a, c], q[..., a, :] @ k[..., c, :].swapaxes(-1, -2) * scale, -numpy.inf)

        y, L = numpy.zeros((*q.shape[:-1], v.shape[-1])), numpy.zeros((*q.shape[:-1], 1))
        for a in (slice(n, min(n + queries, T)) for n in range(0, T, queries)):
            top = numpy.full((*q.shape[:-2], a.stop - a.start, 1), -numpy.inf)
            Z, o, parts = 0 * numpy.exp(top), numpy.zeros((*top.shape[:-1], v.shape[-1])), []
            for number, c in enumerate(slice(n, min(n + keys, S)) for n in range(0, S, keys)):
                s = scores(a, c, may)
                new = numpy.maximum(top, s.max(axis=-1, keepdims=True))
                shift = numpy.where(numpy.isinf(new), 0, new)
                P, fade = numpy.exp(s - shift), rescale(numpy.exp(top - shift), new - top, number)
                Z, o, top = Z * fade + P.sum(axis=-1, keepdims=True), o * fade + P @ v[..., c, :], new
                total = P.sum(axis=-1, keepdims=True)
                parts.append((P @ v[..., c, :] / numpy.maximum(total, 1e-300), total))
            y[..., a, :] = o / numpy.where(Z == 0, 1, Z) if merged is None else merged(parts)
            shift = numpy.where(numpy.isinf(top), 0, top)
            L[..., a, :] = numpy.where(Z == 0, numpy.inf, lse(shift + numpy.log(numpy.where(Z == 0, 1, Z)), shift))

        def attention_back(dy: Array) -> Any:
            gradients = numpy.zeros(q.shape), numpy.zeros(k.shape), numpy.zeros(v.shape)
            delta = (dy * y).sum(axis=-1, keepdims=True)
            again = allowed_back(may, numpy.arange(T)[:, None], numpy.arange(S), causal)
            for c in (slice(n, min(n + keys, S)) for n in range(0, S, keys)):
                for a in (slice(n, min(n + queries, T)) for n in range(0, T, queries)):
                    P = numpy.exp(scores(a, c, again) - L[..., a, :])
                    dP = dy[..., a, :] @ v[..., c, :].swapaxes(-1, -2)
                    ds = P * (dP - delta[..., a, :]) * scale
                    gradients[0][..., a, :] += ds @ k[..., c, :]
                    gradients[1][..., c, :] = dk(gradients[1][..., c, :] + ds.swapaxes(-1, -2) @ q[..., a, :], a)
                    gradients[2][..., c, :] += P.swapaxes(-1, -2) @ dy[..., a, :]
            return tuple(x.astype(q.dtype) for x in gradients)

        return y.astype(q.dtype), attention_back

    return attention
