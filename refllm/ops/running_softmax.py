"""The running softmax: softmax(s) v of scores s that come a tile at a time, without ever holding a whole row of them.

The weights are P = e / total with e = exp(s - top) and total = Σ e. Any `top` gives the same P. The largest score of
the row is always safe; while tiles come in, that is the largest so far, and what was summed before is shrunk by
exp(old top - new top) when it rises (Milakov & Gimelshein 2018; Dao et al. 2022).
"""

from __future__ import annotations

import math
from typing import Any

from refllm.backend import Array, equal_entries, known, least, overflow_is_expected, running_maximum


class RunningSoftmax:
    """For every query: top, total = Σ e, and y = Σ e v, which `divide` makes the softmax times v."""

    def __init__(self, xp: Any, q: Array, k: Array, v: Array, r: Array | None, causal: bool) -> None:
        self.xp = xp
        self.total = xp.empty((*q.shape[:-1], 1), q.dtype)
        self.y = _with_places_outside(xp, (*q.shape[:-1], v.shape[-1]), v.dtype)
        # tame rows have top = 0, which saves the search for their maximum
        self.tame = _tame_rows(xp, q, k, v, r, causal)
        self.top = None if self.tame is not None and known(self.tame.all()) else xp.empty(self.total.shape, q.dtype)
        self.lowest = least(xp, q.dtype) / 2  # finite: a row without keys must not give -inf - -inf
        # a bias may put most keys so far down that their weights are subnormal numbers, with which a CPU is slow
        self.negligible = None if r is None else math.log(xp.finfo(q.dtype).tiny)
        if k.shape[-2] == 0 or (causal and k.shape[-2] < q.shape[-2]):
            self.total[...], self.y[...] = 0, 0  # no tile writes to queries that see no key

    def add(self, s: Array, v: Array, n: slice, m: slice) -> Array:
        """Takes in the scores s (..., n, m) of a tile and its values v; returns its e, in the place of s."""
        if self.top is not None:
            self._raise_top(s, n, first=m.start == 0)
        e = self.exponentials(s, n)
        row_sums = (e @ equal_entries(self.xp, e.shape[-1], 1, e.dtype))[..., None]
        if m.start == 0:
            self.total[..., n, :], self.y[..., n, :] = row_sums, e @ v
        else:
            self.total[..., n, :] += row_sums
            self.y[..., n, :] += e @ v
        return e

    def exponentials(self, s: Array, n: slice) -> Array:
        """e = exp(s - top), in the place of s."""
        if self.top is not None:
            s -= self.top[..., n, :]
            if self.negligible is not None:
                self.xp.copyto(s, -math.inf, where=s < self.negligible)
        return self.xp.exp(s, out=s)

    def divide(self) -> Array:
        """1 / total (..., T, 1), after y was multiplied by it. A row without keys has y = 0 and stays so."""
        inverse = 1 / (self.total + (self.total == 0))
        self.y *= inverse
        return inverse

    def _raise_top(self, s: Array, n: slice, *, first: bool) -> None:
        """The top of the rows n after a tile more, and what was summed before relative to it."""
        xp, top = self.xp, self.top
        assert top is not None
        now = xp.maximum(s.max(axis=-1, keepdims=True), self.lowest if first else top[..., n, :])
        if self.tame is not None:
            now = xp.where(self.tame[..., n, :], 0, now).astype(s.dtype)
        if not first:
            shrink = xp.exp(top[..., n, :] - now)
            self.total[..., n, :] *= shrink
            self.y[..., n, :] *= shrink
        top[..., n, :] = now


def _tame_rows(xp: Any, q: Array, k: Array, v: Array, r: Array | None, causal: bool) -> Array | None:
    """(..., T, 1): the queries whose scores cannot be large, since |s| <= ‖q‖ max‖k‖ / √D + max|r| over the keys in
    sight. Finding that out costs more than it saves for a few queries, as in decoding: None then.

    The weights of a tame row are between tiny^0.4 and tiny^-0.4. So that no product with them overflows or becomes
    subnormal, v is then between tiny^0.2 and tiny^-0.2."""
    T, D = q.shape[-2:]
    if D > T or k.shape[-2] == 0:
        return None
    tiny = float(xp.finfo(q.dtype).tiny)
    limit = -0.4 * math.log(tiny)
    if r is not None and r.size:
        limit = xp.maximum(limit - abs(r).max(axis=-1), 0).astype(q.dtype)[:, None]
    limit = limit / (1 / math.sqrt(D))
    with overflow_is_expected():
        products = (q * q) @ equal_entries(xp, D, 1, q.dtype)
        products *= _largest_in_sight(xp, k, T, causal)  # Cauchy and Schwarz
        values = _largest_in_sight(xp, v, T, causal)
    return ((products < limit * limit) & (values > tiny**0.4) & (values < tiny**-0.4))[..., None]


def _largest_in_sight(xp: Any, x: Array, T: int, causal: bool) -> Array:
    """(..., T), or (..., 1) for all: the largest squared norm among the rows of x (..., S, N) that a query sees. None
    out of a causal query's sight enters: otherwise a later token could change an earlier output in its last bit."""
    squares = (x * x) @ equal_entries(xp, x.shape[-1], 1, x.dtype)
    if not causal:
        return squares.max(axis=-1, keepdims=True)
    last = xp.arange(T) + (x.shape[-2] - T)  # the last key that a query sees
    return running_maximum(squares)[..., xp.maximum(last, 0)]


def _with_places_outside(xp: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array (..., H, T, E) whose memory goes (..., T, H, E): what comes next puts a place's heads side by side."""
    if len(shape) < 3 or shape[-2] == 1:  # of one place both orders are the same
        return xp.empty(shape, dtype)
    *lead, H, T, E = shape
    return xp.empty((*lead, T, H, E), dtype).swapaxes(-2, -3)
