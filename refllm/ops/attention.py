"""Scaled dot-product attention, and the same with a bias that depends on the distance of key and query."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from refllm.backend import Array, equal_entries, known, least, namespace, overflow_is_expected, running_maximum
from refllm.differentiable import differentiable
from refllm.watching import show

QUERIES, KEYS = 64, 512  # the tile of scores that is formed at once; with several tiles of keys, 4 QUERIES high


@differentiable
def attention(
    q: Array, k: Array, v: Array, *, causal: bool, attention_mask: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """ATT, ATT-MASK: y = P v,   P = softmax(q kᵀ / √D) over the keys that a query may attend

    Causal: query t attends the keys up to t + S - T, so that the last query sees every key (a cache holds the first
    S - T); with fewer keys than queries the first T - S see none. `attention_mask` is a boolean mask, true = may
    attend, or None; both hold together.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.1, 3.2.3; documents 001 ch. 4 sec. 1 (erratum E1: the
             softmax of one score is 1, not three weights), 002 sec. 3.1 and 4.1, 003 sec. 4.1, 004 sec. 4.2 (erratum
             E3: D is the width of one head's key, not of the embedding). Tiles with a running maximum: Milakov &
             Gimelshein 2018 (arXiv:1805.02867), Dao et al. 2022 (arXiv:2205.14135).
    Shapes:  q (..., T, D); k (..., S, D); v (..., S, E); attention_mask bool broadcast to (..., T, S), or None
             -> y (..., T, E)
    Back:    dv = Pᵀ dy;  dP = dy vᵀ;  ds = P (dP - Σ_j P_j dP_j), where Σ_j P_j dP_j = Σ_e y_e dy_e;
             dq = ds k / √D;  dk = dsᵀ q / √D
    Special: a row with no key left gives y = 0 and no gradient. A key and a value that `attention_mask` forbids must be
             finite
             all the same, padding too: their weight is 0, and 0 times NaN or infinity is NaN. Memory grows with T + S:
             beyond one tile of keys the weights are formed again in `back`.
    Raises:  ValueError for shapes that do not agree or an `attention_mask` that is not boolean or does not broadcast.
    """
    y, back = _attend(_Scores(q, k, None, causal, attention_mask), v)
    return y, lambda dy: back(dy)[:3]


@differentiable
def biased_attention(
    q: Array, k: Array, v: Array, r: Array, *, causal: bool, attention_mask: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array, Array]]]:
    """ATT, T5-REL, LONG: y = P v,   P = softmax(q kᵀ / √D + bias),   bias of query t and key s = r[s - t + T - 1]

    The queries are the last T of S places, so entry i of r is for the distance i - (S - 1) from the query's place to
    the key's: negative for an earlier key, 0 for the query's own. `t5_bias_causal`, `t5_bias_bidirectional` and
    `alibi` make such an r. Masks as in `attention`.
    Source:  Shaw et al. 2018 (arXiv:1803.02155) for weights that know the distance; Raffel et al. 2020
             (arXiv:1910.10683) sec. 2.1 and Press et al. 2022 (arXiv:2108.12409) sec. 3 for one number a distance.
    Shapes:  q (..., H, T, D); k (..., H, S, D); v (..., H, S, E); r (H, T+S-1);
             attention_mask bool broadcast to (..., H, T, S), or None -> y (..., H, T, E)
    Back:    that of `attention`;  dr[i] = Σ of ds over the places where s - t + T - 1 = i, and over the leading axes
    Special: those of `attention`. The bias is formed tile by tile, so memory still grows with T + S.
             r = -inf at a distance forbids it, and takes no gradient there. Where the bias is so large that the row's
             maximum must be taken off, a weight below `tiny` of the largest, the least normal number (1e-38 in
             float32), counts as 0. That changes y by at most 2 S tiny max|v|.
    Raises:  as `attention`; ValueError if r is not (H, T+S-1).
    """
    y, back = _attend(_Scores(q, k, r, causal, attention_mask), v)
    return y, lambda dy: _with_bias(back(dy))


class _Scores:
    """The scores q kᵀ / √D + bias, a tile of queries n and keys m at a time; -inf where a query may not attend."""

    def __init__(self, q: Array, k: Array, r: Array | None, causal: bool, attention_mask: Array | None) -> None:
        self.xp, self.q, self.k, self.r, self.causal = namespace(q), q, k, r, causal
        self.T, self.S, self.past = q.shape[-2], k.shape[-2], k.shape[-2] - q.shape[-2]
        self.mask = None if attention_mask is None else self.xp.broadcast_to(attention_mask, (*q.shape[:-1], self.S))
        self.scale = 1 / math.sqrt(q.shape[-1])
        # a bias may put most keys so far down that their weights are subnormal numbers, with which a CPU is slow
        self.lowest = -math.inf if r is None else math.log(self.xp.finfo(q.dtype).tiny)
        # low blocks waste less above the diagonal, high ones less in calls
        self.height = QUERIES if self.S <= KEYS else 4 * QUERIES
        # what a block of queries must not see of the keys after its first query's own: entry (i, j) is late for j >= i
        self.late = _later(self.xp, min(self.T, self.height), q.dtype) if causal and self.T > 1 else None

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        for i in range(0, self.T, self.height):
            n = slice(i, min(i + self.height, self.T))
            end = n.stop + self.past if self.causal else self.S
            for j in range(0, end, KEYS):
                yield n, slice(j, min(j + KEYS, end))

    def tile(self, n: slice, m: slice) -> Array:
        s = (self.q[..., n, :] * self.scale) @ self.k[..., m, :].swapaxes(-1, -2)
        if self.r is not None:
            s += _by_distance(self.xp, self.r[:, self.distances(n, m)], m.stop - m.start)
        if self.late is not None:
            first = max(m.start, n.start + self.past + 1)  # the first key that the block's first query must not see
            if first < m.stop:
                shift = first - (n.start + self.past + 1)
                s[..., first - m.start :] += self.late[: n.stop - n.start, shift : shift + m.stop - first]
        if self.mask is not None:
            s += self.xp.where(self.mask[..., n, m], 0, -math.inf).astype(s.dtype)
        return s

    def exponentials(self, s: Array, top: Array | None) -> Array:
        """exp(s - top), in the place of a tile's scores s."""
        if top is not None:
            s -= top
            if self.r is not None:
                self.xp.copyto(s, -math.inf, where=s < self.lowest)
        return self.xp.exp(s, out=s)

    def distances(self, n: slice, m: slice) -> slice:
        """The part of r that a tile needs: from its last query and first key to its first query and last key."""
        return slice(m.start - n.stop + self.T, m.stop - n.start + self.T - 1)

    def tame(self, v: Array) -> Array | None:
        """(..., T, 1): the queries whose scores cannot be large, since |s| <= ‖q‖ max‖k‖ + max|r| over the keys in
        sight. Finding that out costs more than it saves for a few queries, as in decoding: None then.

        The weights of a tame row are between tiny^0.4 and tiny^-0.4. So that no product with them overflows or becomes
        subnormal, v is then between tiny^0.2 and tiny^-0.2."""
        xp, q = self.xp, self.q
        if q.shape[-1] > self.T or self.S == 0:
            return None
        tiny = float(xp.finfo(q.dtype).tiny)
        limit = -0.4 * math.log(tiny)
        if self.r is not None and self.r.size:
            limit = xp.maximum(limit - abs(self.r).max(axis=-1), 0).astype(q.dtype)[:, None]
        limit = limit / self.scale
        with overflow_is_expected():
            products = (q * q) @ equal_entries(xp, q.shape[-1], 1, q.dtype)
            products *= _largest_in_sight(xp, self.k, self.T, self.causal)  # Cauchy and Schwarz
            values = _largest_in_sight(xp, v, self.T, self.causal)
        return ((products < limit * limit) & (values > tiny**0.4) & (values < tiny**-0.4))[..., None]


def _attend(scores: _Scores, v: Array) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array, Array | None]]]:
    """softmax(scores) v and its pullback: dq, dk, dv, and dr if the scores have a bias."""
    q, k, r, xp = scores.q, scores.k, scores.r, scores.xp
    # P = e / total,   e = exp(s - top). Any `top` gives the same P; the running maximum of the row is always safe,
    # and 0 where the scores are tame.
    tame, lowest = scores.tame(v), least(xp, q.dtype) / 2  # finite: a row without keys must not give NaN
    total, y = xp.empty((*q.shape[:-1], 1), q.dtype), _with_places_outside(xp, (*q.shape[:-1], v.shape[-1]), v.dtype)
    top = None if tame is not None and known(tame.all()) else xp.empty(total.shape, q.dtype)
    kept: list[Array] = []
    if scores.S == 0 or (scores.causal and scores.past < 0):
        total[...], y[...] = 0, 0  # no tile writes to queries that see no key
    for n, m in scores.tiles():
        e = scores.tile(n, m)
        if top is not None:
            rise = xp.maximum(e.max(axis=-1, keepdims=True), top[..., n, :] if m.start > 0 else lowest)
            if tame is not None:
                rise = xp.where(tame[..., n, :], 0, rise).astype(q.dtype)
            if m.start > 0:
                shrink = xp.exp(top[..., n, :] - rise)
                total[..., n, :] *= shrink
                y[..., n, :] *= shrink
            top[..., n, :] = rise
        scores.exponentials(e, None if top is None else top[..., n, :])
        row_sums = (e @ equal_entries(xp, e.shape[-1], 1, e.dtype))[..., None]
        if m.start == 0:
            total[..., n, :], y[..., n, :] = row_sums, e @ v[..., m, :]
        else:
            total[..., n, :] += row_sums
            y[..., n, :] += e @ v[..., m, :]
        if scores.S <= KEYS:
            kept.append(e)
    inverse = 1 / (total + (total == 0))  # a row without keys has y = 0 already
    y *= inverse
    show(q, k, v, r, causal=scores.causal, attention_mask=scores.mask, y=y)

    def back(dy: Array) -> tuple[Array, Array, Array, Array | None]:
        dq, dk, dv = xp.zeros_like(q), xp.zeros_like(k), xp.zeros_like(v)
        dr = None if r is None else xp.zeros_like(r)
        ones = equal_entries(xp, v.shape[-1], 1, q.dtype)
        for i, (n, m) in enumerate(scores.tiles()):
            if m.start == 0:
                g = dy[..., n, :] * inverse[..., n, :]  # P = e inverse: the factor is applied on the narrow side, to dy
                mean = ((g * y[..., n, :]) @ ones)[..., None]
            e = kept[i] if kept else scores.exponentials(scores.tile(n, m), None if top is None else top[..., n, :])
            dv[..., m, :] += e.swapaxes(-1, -2) @ g
            ds = g @ v[..., m, :].swapaxes(-1, -2)
            ds -= mean
            ds *= e
            dq[..., n, :] += ds @ k[..., m, :]
            dk[..., m, :] += ds.swapaxes(-1, -2) @ q[..., n, :]
            if dr is not None:
                dr[:, scores.distances(n, m)] += _diagonal_sums(xp, ds)
        dq *= scores.scale
        dk *= scores.scale
        return dq, dk, dv, dr

    return y, back


def _with_bias(gradients: tuple[Array, Array, Array, Array | None]) -> tuple[Array, Array, Array, Array]:
    dq, dk, dv, dr = gradients
    assert dr is not None
    return dq, dk, dv, dr


def _with_places_outside(xp: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array (..., H, T, E) whose memory goes (..., T, H, E): what comes next puts a place's heads side by side."""
    if len(shape) < 3:
        return xp.empty(shape, dtype)
    *lead, H, T, E = shape
    return xp.empty((*lead, T, H, E), dtype).swapaxes(-2, -3)


def _by_distance(xp: Any, r: Array, keys: int) -> Array:
    """The bias of a tile as a view of its part of r: y[i, j] = r[j - i + h - 1] for its h queries i and keys j."""
    return xp.lib.stride_tricks.sliding_window_view(r, keys, axis=-1)[:, ::-1]


def _diagonal_sums(xp: Any, x: Array) -> Array:
    """The reverse: y[d] = Σ x[i, j] over j - i + h - 1 = d and the leading axes; x (..., H, h, w) to (H, h + w - 1)"""
    H, h, w = x.shape[-3:]
    x = x.reshape(-1, H, h, w)
    padded = xp.empty((H, h, w + h), x.dtype)
    padded[..., :w], padded[..., w:] = (x[0] if len(x) == 1 else x.sum(axis=0))[:, ::-1], 0
    # the same numbers read in rows that are one shorter: every row stands one place further right than the one above
    sheared = padded.reshape(H, -1)[:, : h * (w + h - 1)].reshape(H, h, w + h - 1)
    return equal_entries(xp, h, 1, x.dtype) @ sheared


@lru_cache(maxsize=16)
def _later(xp: Any, size: int, dtype: Any) -> Array:
    """What is added to the scores of a block of queries with the keys after its first: -inf for j >= i, else 0. All
    layers get the same array, to which nothing is written."""
    index = xp.arange(size)
    return xp.where(index >= index[:, None], -math.inf, 0).astype(dtype)


def _largest_in_sight(xp: Any, x: Array, T: int, causal: bool) -> Array:
    """(..., T), or (..., 1) for all: the largest squared norm among the rows of x (..., S, N) that a query sees. None
    out of a causal query's sight enters: otherwise a later token could change an earlier output in its last bit."""
    squares = (x * x) @ equal_entries(xp, x.shape[-1], 1, x.dtype)
    if not causal:
        return squares.max(axis=-1, keepdims=True)
    last = xp.arange(T) + (x.shape[-2] - T)  # the last key that a query sees
    return running_maximum(squares)[..., xp.maximum(last, 0)]
