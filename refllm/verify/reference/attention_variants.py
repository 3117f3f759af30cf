"""Attention with windows, packed documents, sinks, its log-sum-exp and normed queries, and rotary positions
on a part of the head or beyond the length of training. No model of refllm has these: they are put together here from
refllm.ops and NumPy, for the golden files alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array, namespace, to_host
from refllm.ops import rotary
from refllm.ops.attention import attention
from refllm.ops.rms_norm import rms_norm
from refllm.ops.softmax import softmax

Pullback = Callable[..., Any]


def functions() -> dict[str, Callable[..., Any]]:
    own = (
        sliding_window_attention, packed_attention, packed_positions, sink_attention,
        log_sum_exp, attention_with_lse, merge_attention, normed_attention, partial_rotary, linear_frequencies,
        ntk_frequencies, yarn_frequencies, llama3_frequencies,
    )  # fmt: skip
    return {f.__name__: f for f in own}


def sliding_window_attention(
    q: Array, k: Array, v: Array, *, window: int, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    T, S = q.shape[-2], k.shape[-2]
    near = namespace(q).asarray(numpy.triu(numpy.ones((T, S), bool), S - T - window + 1))
    return attention(q, k, v, causal=True, attention_mask=near if attention_mask is None else near & attention_mask)


def packed_attention(
    q: Array, k: Array, v: Array, *, borders: Array, key_borders: Array, causal: bool
) -> tuple[Array, Pullback]:
    """By the number of each place's document, and how many places of it come after."""
    query_document, queries_left = _documents(to_host(borders), q.shape[-2])
    key_document, keys_left = _documents(to_host(key_borders), k.shape[-2])
    seen = (query_document[:, None] == key_document) & (query_document >= 0)[:, None]
    if causal:
        seen &= keys_left >= queries_left[:, None]
    return attention(q, k, v, causal=False, attention_mask=namespace(q).asarray(seen))


def _documents(borders: Array, places: int) -> tuple[Array, Array]:
    place = numpy.arange(places)
    document = numpy.searchsorted(borders, place, side="right") - 1
    document = numpy.where(place < borders[-1], document, -1)
    return document, borders[document + 1] - place


def packed_positions(*, borders: Array, places: int) -> Array:
    borders, place = to_host(borders), numpy.arange(places)
    start = borders[numpy.searchsorted(borders, place, side="right") - 1]
    return numpy.where(place < borders[-1], place - start, 0)


def sink_attention(
    q: Array, k: Array, v: Array, sink: Array, *, causal: bool, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    """The sink as a first key with the value 0."""
    xp = namespace(q)
    s, back_s = _scores(q, k)
    first = xp.broadcast_to(sink[:, None, None], (*s.shape[:-1], 1))
    P, back_P = softmax(xp.concatenate([first, _hidden(s, causal, attention_mask)], axis=-1))
    values = xp.concatenate([0 * v[..., :1, :], v], axis=-2)

    def back(dy: Array) -> tuple[Array, Array, Array, Array]:
        ds = back_P(dy @ values.swapaxes(-1, -2))
        dsink = ds[..., 0].sum(axis=-1).reshape(-1, len(sink)).sum(axis=0)
        return *back_s(ds[..., 1:]), (P.swapaxes(-1, -2) @ dy)[..., 1:, :], dsink

    return P @ values, back


def log_sum_exp(x: Array) -> tuple[Array, Pullback]:
    xp = namespace(x)
    weights, _ = softmax(x)
    largest = x.max(axis=-1, keepdims=True)
    shift = xp.where(xp.isneginf(largest), 0, largest).astype(x.dtype)
    sums = xp.exp(x - shift).sum(axis=-1)
    none = sums == 0
    l = xp.where(none, x.dtype.type(-numpy.inf), shift[..., 0] + xp.log(xp.where(none, 1, sums).astype(x.dtype)))
    return l, lambda dl: weights * dl[..., None]


def attention_with_lse(
    q: Array, k: Array, v: Array, *, causal: bool, attention_mask: Array | None
) -> tuple[tuple[Array, Array], Pullback]:
    y, back_y = attention(q, k, v, causal=causal, attention_mask=attention_mask)
    s, back_s = _scores(q, k)
    l, back_l = log_sum_exp(_hidden(s, causal, attention_mask))

    def back(dy: Array, dl: Array) -> tuple[Array, Array, Array]:
        (dq, dk, dv), (more_dq, more_dk) = back_y(dy), back_s(back_l(dl))
        return dq + more_dq, dk + more_dk, dv

    return (y, l), back


def merge_attention(y1: Array, l1: Array, y2: Array, l2: Array) -> tuple[tuple[Array, Array], Pullback]:
    """As ring attention does: each part times e^(its l - l)."""
    xp = namespace(l1)
    l, _ = log_sum_exp(xp.stack([l1, l2], axis=-1))
    none = xp.where(xp.isneginf(l), 0, l).astype(l.dtype)
    w1, w2 = xp.exp(l1 - none)[..., None], xp.exp(l2 - none)[..., None]
    y = w1 * y1 + w2 * y2

    def back(dy: Array, dl: Array) -> tuple[Array, Array, Array, Array]:
        # w1 (y1 - y) = w1 w2 (y1 - y2), without a difference that cancels
        slope = w1 * w2 * (dy * (y1 - y2)).sum(axis=-1, keepdims=True)
        return w1 * dy, (slope + w1 * dl[..., None])[..., 0], w2 * dy, (w2 * dl[..., None] - slope)[..., 0]

    return (y, l), back


def normed_attention(
    q: Array, k: Array, v: Array, gq: Array, gk: Array, *, eps: float, causal: bool, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    (nq, back_q), (nk, back_k) = rms_norm(q, gq, eps=eps), rms_norm(k, gk, eps=eps)
    y, back_y = attention(nq, nk, v, causal=causal, attention_mask=attention_mask)

    def back(dy: Array) -> tuple[Array, Array, Array, Array, Array]:
        dnq, dnk, dv = back_y(dy)
        (dq, dgq), (dk, dgk) = back_q(dnq), back_k(dnk)
        return dq, dk, dv, dgq, dgk

    return y, back


def _scores(q: Array, k: Array) -> tuple[Array, Pullback]:
    scale = q.dtype.type(1 / math.sqrt(q.shape[-1]))
    return q @ k.swapaxes(-1, -2) * scale, lambda ds: (ds @ k * scale, ds.swapaxes(-1, -2) @ q * scale)


def _hidden(s: Array, causal: bool, attention_mask: Array | None) -> Array:
    """The scores, -∞ where a query may not attend a key."""
    T, S = s.shape[-2:]
    seen = numpy.tril(numpy.ones((T, S), bool), S - T) if causal else numpy.ones((T, S), bool)
    xp = namespace(s)
    seen = xp.asarray(seen)
    return xp.where(seen if attention_mask is None else seen & attention_mask, s, s.dtype.type(-numpy.inf))


def partial_rotary(x: Array, *, positions: Array, base: float, turned: int, layout: str) -> tuple[Array, Pullback]:
    turn = rotary.rotary_halves if layout == "halves" else rotary.rotary_interleaved
    xp = namespace(x)
    first, back_first = turn(x[..., :turned], positions=positions, base=base)

    def back(dy: Array) -> Array:
        return xp.concatenate([back_first(dy[..., :turned]), dy[..., turned:]], axis=-1)

    return xp.concatenate([first, x[..., turned:]], axis=-1), back


def linear_frequencies(*, width: int, base: float, factor: float) -> Array:
    return _frequencies(width, base) / factor


def ntk_frequencies(*, width: int, base: float, factor: float) -> Array:
    return _frequencies(width, base * factor ** (width / (width - 2)))


def yarn_frequencies(
    *, width: int, base: float, factor: float, original: int, beta_fast: float, beta_slow: float
) -> tuple[Array, Array]:
    """As the paper's code: the pair with so many turns by a logarithm, rounded outwards."""

    def pair(turns: float) -> float:
        return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(math.floor(pair(beta_fast)), 0), min(math.ceil(pair(beta_slow)), width - 1)
    kept = 1 - numpy.clip((numpy.arange(width // 2) - low) / max(high - low, 0.001), 0, 1)
    f = _frequencies(width, base)
    return f / factor * (1 - kept) + f * kept, numpy.array(0.1 * math.log(factor) + 1 if factor > 1 else 1.0)


def llama3_frequencies(
    *, width: int, base: float, factor: float, original: int, low_factor: float, high_factor: float
) -> Array:
    """As Llama's code: by wavelengths."""
    f = _frequencies(width, base)
    wavelength = 2 * math.pi / f
    smooth = (original / wavelength - low_factor) / (high_factor - low_factor)
    between = (1 - smooth) * f / factor + smooth * f
    return numpy.where(
        wavelength > original / low_factor, f / factor, numpy.where(wavelength < original / high_factor, f, between)
    )


def _frequencies(width: int, base: float) -> Array:
    return 1 / base ** (numpy.arange(0, width, 2) / width)
