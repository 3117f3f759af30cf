"""Scaled dot-product attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from refllm.backend import Array, known, namespace, overflow_is_expected, running_maximum
from refllm.shapes import require

QUERIES, KEYS = 64, 512  # the tile of scores that is formed at once; with several tiles of keys, 4 QUERIES high


def attention(
    q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """ATT, ATT-MASK: y = P v,   P = softmax(q kᵀ / √D) over the keys that a query may attend

    Causal: query t attends the keys up to t + S - T, so that the last query sees every key (a cache holds the first
    S - T); with fewer keys than queries the first T - S see none. `allowed` is a boolean mask, true = may attend, or
    None; both hold together.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.1, 3.2.3; documents 001, 002 sec. 3.1 and 4.1, 003 sec.
             4.1, 004 sec. 4.2 (erratum E3: D is the width of one head's key, not of the embedding). Tiles with a
             running maximum: Milakov & Gimelshein 2018 (arXiv:1805.02867), Dao et al. 2022 (arXiv:2205.14135).
    Shapes:  q (..., T, D); k (..., S, D); v (..., S, E); allowed bool (..., T, S) -> y (..., T, E)
    Back:    dv = Pᵀ dy;  dP = dy vᵀ;  ds = P (dP - Σ_j P_j dP_j), where Σ_j P_j dP_j = Σ_e y_e dy_e;
             dq = ds k / √D;  dk = dsᵀ q / √D
    Special: a row with no key left gives y = 0 and no gradient. Memory grows with T + S: beyond one tile of keys the
             weights are formed again in `back`.
    Raises:  ValueError for shapes that do not agree or an `allowed` that is not boolean or does not broadcast.
    """
    sizes = require("attention", "q (..., T, D); k (..., S, D); v (..., S, E)", q, k, v)
    T, S, past = sizes["T"], sizes["S"], sizes["S"] - sizes["T"]
    xp = namespace(q)
    mask = None if allowed is None else _full_mask(xp, allowed, (*q.shape[:-1], S))
    scale = 1 / math.sqrt(sizes["D"])
    scaled = q * scale
    height = QUERIES if S <= KEYS else 4 * QUERIES  # low blocks waste less above the diagonal, high ones less in calls
    # what a block of queries must not see of the keys after its first query's own: entry (i, j) is late for j >= i
    late = _later(xp, min(T, height), q.dtype) if causal and T > 1 else None

    def tiles() -> Iterator[tuple[slice, slice]]:
        for i in range(0, T, height):
            n = slice(i, min(i + height, T))
            for j in range(0, n.stop + past if causal else S, KEYS):
                yield n, slice(j, min(j + KEYS, n.stop + past if causal else S))

    def scores(n: slice, m: slice) -> Array:
        s = scaled[..., n, :] @ k[..., m, :].swapaxes(-1, -2)
        if late is not None:
            first = max(m.start, n.start + past + 1)  # the first key that the block's first query must not see
            if first < m.stop:
                shift = first - (n.start + past + 1)
                s[..., first - m.start :] += late[: n.stop - n.start, shift : shift + m.stop - first]
        if mask is not None:
            s += xp.where(mask[..., n, m], 0, -math.inf).astype(s.dtype)
        return s

    # P = e / total,   e = exp(s - top). Any `top` gives the same P; the running maximum of the row is always safe.
    # Rows whose scores cannot be large, since |s| <= ‖q‖ max‖k‖ over the keys in sight, need none: top = 0. For a few
    # queries, as in decoding, the maximum costs less than that bound.
    limit = math.log(xp.finfo(q.dtype).max) * 2 / 3
    if sizes["D"] > T:
        tame = xp.zeros((*q.shape[:-1], 1), bool)
    else:
        tame = _largest_score_squared(xp, scaled, k, causal) < limit * limit
    start = xp.where(tame, 0, float(xp.finfo(q.dtype).min) / 2).astype(q.dtype)
    top = None if known(tame.all()) else start
    total = xp.empty((*q.shape[:-1], 1), q.dtype)
    y = xp.empty_like(v, shape=(*q.shape[:-1], sizes["E"]))
    kept: list[Array] = []
    if S == 0 or (causal and past < 0):
        total[...], y[...] = 0, 0  # no tile writes to queries that see no key
    for n, m in tiles():
        e = scores(n, m)
        if top is not None:
            rise = xp.where(tame[..., n, :], 0, xp.maximum(top[..., n, :], e.max(axis=-1, keepdims=True)))
            rise = rise.astype(q.dtype)
            e -= rise
            if m.start > 0:
                shrink = xp.exp(top[..., n, :] - rise)
                total[..., n, :] *= shrink
                y[..., n, :] *= shrink
            top[..., n, :] = rise
        xp.exp(e, out=e)
        row_sums = (e @ xp.ones(e.shape[-1], e.dtype))[..., None]
        if m.start == 0:
            total[..., n, :], y[..., n, :] = row_sums, e @ v[..., m, :]
        else:
            total[..., n, :] += row_sums
            y[..., n, :] += e @ v[..., m, :]
        if S <= KEYS:
            kept.append(e)
    inverse = 1 / (total + (total == 0))  # a row without keys has y = 0 already
    y *= inverse

    def back(dy: Array) -> tuple[Array, Array, Array]:
        dq, dk, dv = xp.zeros_like(q), xp.zeros_like(k), xp.zeros_like(v)
        g = dy * inverse  # P = e inverse: the factor is applied on the narrow side, to dy
        mean = ((g * y) @ xp.ones(sizes["E"], q.dtype))[..., None]
        for i, (n, m) in enumerate(tiles()):
            e = kept[i] if kept else _exponentials(xp, scores(n, m), None if top is None else top[..., n, :])
            dv[..., m, :] += e.swapaxes(-1, -2) @ g[..., n, :]
            ds = g[..., n, :] @ v[..., m, :].swapaxes(-1, -2)
            ds -= mean[..., n, :]
            ds *= e
            dq[..., n, :] += ds @ k[..., m, :]
            dk[..., m, :] += ds.swapaxes(-1, -2) @ scaled[..., n, :]
        dq *= scale
        return dq, dk, dv

    return y, back


def _later(xp: Any, size: int, dtype: Any) -> Array:
    """What is added to the scores of a block of queries with the keys after its first: -inf for j >= i, else 0."""
    index = xp.arange(size)
    return xp.where(index >= index[:, None], -math.inf, 0).astype(dtype)


def _exponentials(xp: Any, scores: Array, top: Array | None) -> Array:
    """exp(scores - top), in the place of the scores."""
    if top is not None:
        scores -= top
    return xp.exp(scores, out=scores)


def _largest_score_squared(xp: Any, q: Array, k: Array, causal: bool) -> Array:
    """A bound of a query's squared scores by Cauchy and Schwarz, ‖q_t‖² max‖k_s‖², that no key out of a causal query's
    sight enters: otherwise a later token could change an earlier output in its last bit."""
    if k.shape[-2] == 0:
        return xp.zeros((*q.shape[:-1], 1), q.dtype)
    ones = xp.ones(q.shape[-1], q.dtype)
    with overflow_is_expected():
        keys = (k * k) @ ones
        if causal:
            last = xp.arange(q.shape[-2]) + (k.shape[-2] - q.shape[-2])  # the last key that a query sees
            keys = running_maximum(keys)[..., xp.maximum(last, 0)]
        else:
            keys = keys.max(axis=-1, keepdims=True)
        return ((q * q) @ ones * keys)[..., None]


def _full_mask(xp: Any, allowed: Array, shape: tuple[int, ...]) -> Array:
    """`allowed` as a boolean array of the scores' shape."""
    if allowed.dtype.kind != "b":
        raise ValueError(f"attention: allowed must be boolean, true = may attend; got {allowed.dtype}")
    try:
        return xp.broadcast_to(allowed, shape)
    except ValueError:
        raise ValueError(
            f"attention: allowed must broadcast to (..., T, S) = {shape}, the scores of q and k; got {allowed.shape}"
        ) from None
