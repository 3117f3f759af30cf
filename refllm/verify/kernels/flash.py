"""Attention in tiles of queries and keys: softmax on the way, and the log-sum-exp L of each row for the way back. What
other kinds of attention do besides stands in `attention_kinds`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy

from refllm.backend import Array
from refllm.verify.kernels.attention_kinds import PLAIN, Biased, Capped, Kind, Sunk, WithLse
from refllm.verify.kernels.machine import INFINITY, ROWS, TILE, swap, tiles, unwritten, zeros

Pullback = Callable[..., tuple[Array, ...]]


def attention(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> tuple[Array, Pullback]:
    y, _, back = attended(q, k, v, causal, allowed, PLAIN)
    return y, back


def capped_attention(
    q: Array, k: Array, v: Array, *, cap: float, causal: bool, allowed: Array | None
) -> tuple[Array, Pullback]:
    y, _, back = attended(q, k, v, causal, allowed, Capped(cap))
    return y, back


def relative_attention(
    q: Array, k: Array, v: Array, r: Array, *, causal: bool, allowed: Array | None
) -> tuple[Array, Pullback]:
    y, _, back = attended(q, k, v, causal, allowed, Biased(r, q.shape[-2]))
    return y, back


def sink_attention(
    q: Array, k: Array, v: Array, sink: Array, *, causal: bool, allowed: Array | None
) -> tuple[Array, Pullback]:
    y, _, back = attended(q, k, v, causal, allowed, Sunk(sink))
    return y, back


def attention_with_lse(
    q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None
) -> tuple[tuple[Array, Array], Pullback]:
    y, L, back = attended(q, k, v, causal, allowed, PLAIN)
    l = numpy.where(L == INFINITY, -INFINITY, L)

    def attention_with_lse_back(dy: Array, dl: Array) -> tuple[Array, ...]:
        gradients: tuple[Array, ...] = back(dy, WithLse(dl))
        return gradients

    return (y, l), attention_with_lse_back


def attended(
    q: Array, k: Array, v: Array, causal: bool, allowed: Array | None, kind: Kind
) -> tuple[Array, Array, Pullback]:
    """The value, the log-sum-exp of each row, and the pullback, of the same kind unless it is called with another."""
    y, L = forward(q, k, v, causal, allowed, None, kind)

    def attended_back(dy: Array, other: Kind | None = None) -> tuple[Array, ...]:
        return backward(q, k, v, y, L, dy, causal, allowed, None, other or kind)

    return y, L, attended_back


def sliding_window_attention(
    q: Array, k: Array, v: Array, *, window: int, allowed: Array | None
) -> tuple[Array, Pullback]:
    y, L = forward(q, k, v, True, allowed, window)

    def sliding_window_attention_back(dy: Array) -> tuple[Array, ...]:
        return backward(q, k, v, y, L, dy, True, allowed, window)

    return y, sliding_window_attention_back


def forward(
    q: Array, k: Array, v: Array, causal: bool, allowed: Array | None, window: int | None, kind: Kind = PLAIN
) -> tuple[Array, Array]:
    T, S = q.shape[-2], k.shape[-2]
    y, L = unwritten((*q.shape[:-1], v.shape[-1]), q), unwritten(q.shape[:-1], q)
    for rows in tiles(T, ROWS):
        top = numpy.full((*q.shape[:-2], rows.stop - rows.start, 1), -INFINITY, q.dtype)
        shift, Z, sums = zeros(top.shape, q), zeros(top.shape, q), zeros((*top.shape[:-1], v.shape[-1]), q)
        top, shift, Z = kind.begun(top, shift, Z)
        for keys in tiles(S, TILE):
            if causal and keys.start > rows.stop - 1 + S - T:
                break
            s = scores(q, k, rows, keys, causal, allowed, window, kind)
            new = numpy.maximum(top, s.max(axis=-1, keepdims=True))
            shift = numpy.where(new == -INFINITY, 0, new)
            rescale = numpy.exp(top - shift)
            P = numpy.exp(s - shift)
            Z = Z * rescale + P.sum(axis=-1, keepdims=True)
            sums = sums * rescale
            sums = sums + P @ v[..., keys, :]
            top = new
        y[..., rows, :] = sums / numpy.where(Z == 0, 1, Z)
        L[..., rows] = numpy.where(Z == 0, INFINITY, shift + numpy.log(numpy.where(Z == 0, 1, Z)))[..., 0]
    return y, L


def backward(
    q: Array, k: Array, v: Array, y: Array, L: Array, dy: Array,
    causal: bool, allowed: Array | None, window: int | None, kind: Kind = PLAIN,
) -> tuple[Array, ...]:  # fmt: skip
    T, S, scale = q.shape[-2], k.shape[-2], 1 / math.sqrt(q.shape[-1])
    dq, dk, dv = zeros(q.shape, q), unwritten(k.shape, k), unwritten(v.shape, v)
    delta = (dy * y).sum(axis=-1, keepdims=True)
    delta = kind.delta(delta)
    more = kind.gradient(L, delta)
    for keys in tiles(S, TILE):
        dk_here, dv_here = zeros(k[..., keys, :].shape, k), zeros(v[..., keys, :].shape, v)
        for rows in tiles(T, ROWS):
            if causal and keys.start > rows.stop - 1 + S - T:
                continue
            P = numpy.exp(scores(q, k, rows, keys, causal, allowed, window, kind) - L[..., rows, None])
            dv_here += swap(P) @ dy[..., rows, :]
            dP = dy[..., rows, :] @ swap(v[..., keys, :])
            ds = P * (dP - delta[..., rows, :])
            more = kind.gathered(more, ds, rows, keys)
            ds = kind.unbent(ds, q[..., rows, :], k[..., keys, :])
            dk_here += swap(ds) @ q[..., rows, :] * scale
            dq[..., rows, :] += ds @ k[..., keys, :] * scale
        dk[..., keys, :], dv[..., keys, :] = dk_here, dv_here
    if more is not None:
        return dq, dk, dv, more
    return dq, dk, dv


def scores(
    q: Array, k: Array, rows: slice, keys: slice,
    causal: bool, allowed: Array | None, window: int | None, kind: Kind = PLAIN,
) -> Array:  # fmt: skip
    """A tile of q kᵀ / √D, with -∞ where a query may not attend a key."""
    T, S, D = q.shape[-2], k.shape[-2], q.shape[-1]
    s = q[..., rows, :] @ swap(k[..., keys, :]) * (1 / math.sqrt(D))
    row, key = numpy.arange(rows.start, rows.stop)[:, None], numpy.arange(keys.start, keys.stop)
    s = kind.bent(s, row, key)
    if causal:
        s = numpy.where(key <= row + S - T, s, -INFINITY)
    if window is not None:
        s = numpy.where(key > row + S - T - window, s, -INFINITY)
    if allowed is not None:
        mask = numpy.broadcast_to(allowed, (*allowed.shape[:-2], T, S))
        s = numpy.where(mask[..., rows, keys], s, -INFINITY)
    return s.astype(q.dtype)


def in_parts(
    q: Array, k: Array, v: Array, causal: bool, allowed: Array | None, kind: Kind, size: int
) -> tuple[Array, Array, Array, Array]:
    """Attention over so many keys at once: the outputs of the parts, their log-sum-exp, their largest scores, and how
    many keys each query sees there. Merged by w = exp(log-sum-exp), Σ w y / Σ w is attention over all."""
    T, S = q.shape[-2], k.shape[-2]
    seen = numpy.tri(T, S, S - T, dtype=bool) if causal else numpy.ones((T, S), bool)
    seen = seen if allowed is None else seen & allowed
    Y, M, R, C = [], [], [], []
    for keys in tiles(S, size):
        part, all_rows, all_keys = k[..., keys, :], slice(0, T), slice(0, keys.stop - keys.start)
        y, L = forward(q, part, v[..., keys, :], False, seen[..., keys], None, kind.of_keys(keys))
        s = scores(q, part, all_rows, all_keys, False, seen[..., keys], None, kind.of_keys(keys))
        R.append(s.max(axis=-1, keepdims=True))
        C.append(numpy.broadcast_to(seen[..., keys].sum(axis=-1, keepdims=True), R[-1].shape))
        Y.append(y)
        M.append(numpy.where(L == INFINITY, -INFINITY, L)[..., None])
    return numpy.stack(Y), numpy.stack(M), numpy.stack(R), numpy.stack(C)
