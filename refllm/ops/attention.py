"""Scaled dot-product attention, and the same with a bias that depends on the distance of key and query.

The text (refllm/spec/attention.py) forms the whole matrix of scores. Here it is formed in tiles, and the weights of a
tile are divided by their sum only in y. Three parts stand beside this file: the tiles (tiles.py), the masks (masks.py)
and the running softmax (running_softmax.py); distance_bias.py has the bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from refllm.backend import Array, equal_entries, namespace
from refllm.differentiable import differentiable
from refllm.ops.distance_bias import DistanceBias
from refllm.ops.masks import Masks
from refllm.ops.running_softmax import RunningSoftmax
from refllm.ops.tiles import Tiles
from refllm.watching import show


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
             finite all the same, padding too: their weight is 0, and 0 times NaN or infinity is NaN. Memory grows with
             T + S: beyond one tile of keys the weights are formed again in `back`.
    Raises:  ValueError for shapes that do not agree or an `attention_mask` that is not boolean or does not broadcast.

    >>> v = array([[0.0], [4.0]])
    >>> attention(zeros((2, 3)), zeros((2, 3)), v, causal=True, attention_mask=None)[0].tolist()  # first: itself
    [[0.0], [2.0]]
    >>> attention(zeros((2, 3)), zeros((2, 3)), v, causal=False, attention_mask=array([False, False]))[0].tolist()
    [[0.0], [0.0]]
    """
    return _attend(q, k, v, None, cap=None, causal=causal, attention_mask=attention_mask)


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

    >>> q, v = zeros((1, 1, 3)), array([[[0.0], [4.0]]])
    >>> r = array([[0.0, math.log(3)]])  # the key before the query, and the query's own: weights 1/4 and 3/4
    >>> biased_attention(q, zeros((1, 2, 3)), v, r, causal=True, attention_mask=None)[0].round(12).tolist()
    [[[3.0]]]
    """
    return _attend(q, k, v, r, cap=None, causal=causal, attention_mask=attention_mask)


def _attend(
    q: Array, k: Array, v: Array, r: Array | None, *, cap: float | None, causal: bool, attention_mask: Array | None
) -> tuple[Array, Callable[[Array], Any]]:
    """y and its pullback, which gives dq, dk, dv, and dr if there is an r. Step 4 of the one is undone in step 4 of the
    other, and so on."""
    xp, (T, D), S = namespace(q), q.shape[-2:], k.shape[-2]
    scale = 1 / math.sqrt(D)
    tiles, height, whole_rows = Tiles.of(T, S, causal)
    masks = Masks(xp, q, S, causal, attention_mask, height)
    softmax = RunningSoftmax(xp, q, k, v, r, causal)
    bias = None if r is None else DistanceBias(xp, r, T)
    y, kept = softmax.y, list[Array]()

    def scores(n: slice, m: slice) -> Array:
        s = _products(q[..., n, :], k[..., m, :], scale)  # 1  s = q kᵀ / √D
        if cap is not None:  # 1a  s = cap tanh(s / cap), before the masks: capped, -inf would be -cap
            s = _capped(xp, s, cap)
            s *= cap
        if bias is not None:
            s += bias.tile(n, m)  # 2  s += bias
        masks.forbid(s, n, m)  # 3  s = -inf where a query may not attend
        return s

    for n, m in tiles:
        e = softmax.add(scores(n, m), v[..., m, :], n, m)  # 4  e = exp(s - top);   5  total = Σ e and y = e v
        if whole_rows:
            kept.append(e)
    inverse = softmax.divide()  # 6  y = y / total
    show(q, k, v, r, causal=causal, attention_mask=masks.given, y=y)

    def back(dy: Array) -> tuple[Array, ...]:
        dq, dk, dv = xp.zeros_like(q), xp.zeros_like(k), xp.zeros_like(v)
        dr = None if r is None else xp.zeros_like(r)
        ones = equal_entries(xp, v.shape[-1], 1, q.dtype)
        for i, (n, m) in enumerate(tiles):
            if m.start == 0:
                g = dy[..., n, :] * inverse[..., n, :]  # 6  g = dy / total is the gradient of e v,
                sums = ((g * y[..., n, :]) @ ones)[..., None]  # 6  and -Σ g y that of total
            e = kept[i] if kept else softmax.exponentials(scores(n, m), n)
            dv[..., m, :] += e.swapaxes(-1, -2) @ g  # 5
            ds = g @ v[..., m, :].swapaxes(-1, -2)  # 5  de = g vᵀ - Σ g y
            ds -= sums
            ds *= e  # 4  ds = de e; any top gives the same y, so it has no gradient
            # 3  nothing: where a query may not attend, e and so ds is 0
            if bias is not None and dr is not None:
                bias.add_gradient(dr, ds, n, m)  # 2
            if cap is not None:
                t = _capped(xp, _products(q[..., n, :], k[..., m, :], scale), cap)
                ds *= 1 - t * t  # 1a
            dq[..., n, :] += ds @ k[..., m, :]  # 1
            dk[..., m, :] += ds.swapaxes(-1, -2) @ q[..., n, :]
        dq *= scale
        dk *= scale
        return (dq, dk, dv) if dr is None else (dq, dk, dv, dr)

    return y, back


def _products(q: Array, k: Array, scale: float) -> Array:
    return (q * scale) @ k.swapaxes(-1, -2)  # scaled on the narrow side


def _capped(xp: Any, s: Array, cap: float) -> Array:
    """tanh(s / cap), in the place of s."""
    s *= 1 / cap
    return xp.tanh(s, out=s)
