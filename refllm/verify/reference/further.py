"""Operations that no model of refllm has, composed of its functions and of array arithmetic, by the names of the golden
files: several experts, the z-loss, the gated recurrent unit, filters of logits, further optimisers, conversions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array, namespace, to_host
from refllm.ops.cross_entropy import cross_entropy
from refllm.ops.softmax import softmax

Pullback = Callable[[Array], Any]


def functions() -> dict[str, Callable[..., Any]]:
    own: tuple[Callable[..., Any], ...] = (
        top_experts, z_loss, gru_reset_before, gru_reset_after, min_p, repetition_penalty, lion, muon, average_weights,
        accumulated_cross_entropy, narrowed, widened,
    )  # fmt: skip
    return {f.__name__: f for f in own}


def top_experts(scores: Array, *, k: int, renormalise: bool) -> tuple[Array, Pullback]:
    xp = namespace(scores)
    one, other, place = scores[..., :, None], scores[..., None, :], xp.arange(scores.shape[-1])
    chosen = ((other > one) | ((other == one) & (place < place[:, None]))).sum(axis=-1) < k
    if renormalise:  # the softmax of the scores that are left
        return softmax(xp.where(chosen, scores, scores.dtype.type(-xp.inf)))
    P, back_P = softmax(scores)
    return xp.where(chosen, P, 0), lambda dy: back_P(xp.where(chosen, dy, 0))


def z_loss(logits: Array, *, token_mask: Array | None, strength: float) -> tuple[Array, Pullback]:
    xp = namespace(logits)
    weight = xp.ones(logits.shape[:-1], logits.dtype) if token_mask is None else token_mask.astype(logits.dtype)
    largest = logits.max(axis=-1, keepdims=True)
    e = xp.exp(logits - largest)
    Z = e.sum(axis=-1, keepdims=True)
    log_Z = (largest + xp.log(Z))[..., 0]
    share = strength * weight / max(1.0, float(weight.sum()))
    return (share * log_Z * log_Z).sum(), lambda dy: (2 * dy * share * log_Z)[..., None] * (e / Z)


def gru_reset_before(
    x: Array, h: Array, Wx: Array, Wh: Array, b: Array, *, token_mask: Array | None
) -> tuple[Array, Pullback]:
    return _gru(x, h, Wx, Wh, b, None, token_mask)


def gru_reset_after(
    x: Array, h: Array, Wx: Array, Wh: Array, b: Array, c: Array, *, token_mask: Array | None
) -> tuple[Array, Pullback]:
    return _gru(x, h, Wx, Wh, b, c, token_mask)


def _gru(
    x: Array, h: Array, Wx: Array, Wh: Array, b: Array, c: Array | None, token_mask: Array | None
) -> tuple[Array, Pullback]:
    """With the inner bias c the reset gate acts on the product, without it on the state."""
    xp, (B, T, _), N = namespace(x), x.shape, h.shape[-1]
    gates, own = slice(0, 2 * N), slice(2 * N, 3 * N)
    read, state, steps = x @ Wx + b, h, []
    y = xp.empty((B, T, N), x.dtype)
    for t in range(T):
        r, z = xp.split(0.5 * (1 + xp.tanh(0.5 * (read[:, t, gates] + state @ Wh[:, gates]))), 2, axis=-1)
        inner = r * state if c is None else state @ Wh[:, own] + c
        n = xp.tanh(read[:, t, own] + (inner @ Wh[:, own] if c is None else r * inner))
        there = xp.ones((B, 1), bool) if token_mask is None else token_mask[:, t, None]
        steps.append((state, r, z, n, inner, there))
        y[:, t] = state = xp.where(there, n + z * (state - n), state)

    def back(dy: Array) -> tuple[Array, ...]:
        dread, dWh, dh = xp.zeros_like(read), xp.zeros_like(Wh), xp.zeros_like(h)
        dc = None if c is None else xp.zeros_like(c)
        for t in reversed(range(T)):
            before, r, z, n, inner, there = steps[t]
            whole = dy[:, t] + dh
            dh = xp.where(there, whole, 0)
            dn = dh * (1 - z) * (1 - n * n)
            dproduct = dn if c is None else dn * r
            through = dproduct @ Wh[:, own].T
            dr = through * before if c is None else dn * inner
            dgates = xp.concatenate([dr * r * (1 - r), dh * (before - n) * z * (1 - z)], axis=-1)
            dread[:, t, gates], dread[:, t, own] = dgates, dn
            dWh[:, gates] += before.T @ dgates
            dWh[:, own] += (inner if c is None else before).T @ dproduct
            if dc is not None:
                dc += dproduct.sum(axis=0)
            passed = dh * z + dgates @ Wh[:, gates].T + (through * r if c is None else through)
            dh = xp.where(there, passed, whole)
        rows = dread.reshape(-1, 3 * N)
        found = (dread @ Wx.T, dh, x.reshape(-1, x.shape[-1]).T @ rows, dWh, rows.sum(axis=0))
        return found if dc is None else (*found, dc)

    return y, back


def min_p(logits: Array, *, share: float) -> Array:
    xp = namespace(logits)
    p = xp.exp(logits - logits.max(axis=-1, keepdims=True))
    return xp.where(p >= share, logits, logits.dtype.type(-xp.inf))


def repetition_penalty(logits: Array, *, ids: Array, penalty: float) -> Array:
    xp = namespace(logits)
    seen = (ids[..., None] == xp.arange(logits.shape[-1])).any(axis=-2)
    return xp.where(seen, xp.where(logits > 0, logits / penalty, logits * penalty), logits)


def lion(
    p: Array, g: Array, m: Array, *, lr: float, beta1: float, beta2: float, decay: float
) -> tuple[Array, Array]:  # fmt: skip
    sign = namespace(p).sign(beta1 * m + (1 - beta1) * g)
    return p - lr * (sign + decay * p), beta2 * m + (1 - beta2) * g


def muon(
    p: Array, g: Array, v: Array, *, lr: float, momentum: float, nesterov: bool, decay: float
) -> tuple[Array, Array]:
    xp, (O, I) = namespace(p), p.shape
    v = momentum * v + g
    X = g + momentum * v if nesterov else v
    X = X / (xp.sqrt((X * X).sum()) + 1e-7)
    X = X.T if O > I else X
    for _ in range(5):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * (A @ A)) @ X
    return p * (1 - lr * decay) - lr * max(1.0, O / I) ** 0.5 * (X.T if O > I else X), v


def average_weights(a: Array, p: Array, *, step: int, decay: float, warmup: bool) -> Array:
    beta = min(decay, (1 + step) / (10 + step)) if warmup else decay
    return beta * a + (1 - beta) * p


def accumulated_cross_entropy(logits: Array, *, targets: Array, ignore: int | None) -> tuple[Array, Pullback]:
    """The loss of all micro-batches at once."""
    return cross_entropy(logits, targets=targets, ignore=ignore, reduction="mean")


_PLACES = {"bfloat16": (8, 7), "float16": (5, 10), "float8_e4m3": (4, 3), "float8_e5m2": (5, 2)}  # exponent, digits


def _values(of: str) -> Array:
    """The numbers without a sign that a type has, by pattern; what follows the largest is the next of the same rule."""
    exponents, digits = _PLACES[of]
    pattern = numpy.arange((1 << (exponents + digits)) + 1)
    exponent, rest = numpy.divmod(pattern, 1 << digits)
    lead = numpy.where(exponent == 0, rest, rest + (1 << digits))
    found: Array = numpy.ldexp(lead.astype(float), numpy.maximum(exponent, 1) - digits - (1 << (exponents - 1)) + 1)
    return found


def _last(of: str) -> int:
    """The pattern of the largest number: E4M3 alone has numbers with the largest exponent."""
    exponents, digits = _PLACES[of]
    return (1 << (exponents + digits)) - (2 if of == "float8_e4m3" else (1 << digits) + 1)


def narrowed(bits: Array, *, to: str, saturate: bool) -> Array:
    """By a search among all numbers of the type, on the host."""
    with numpy.errstate(invalid="ignore"):  # a NaN that signals, which float64 makes a quiet one
        x = to_host(bits).astype("uint32").view("float32").astype(float)
    values, last, width = _values(to), _last(to), sum(_PLACES[to])
    nan = (1 << width) - 1 if to == "float8_e4m3" else last + 1 + (1 << (_PLACES[to][1] - 1))
    size = numpy.where(numpy.isnan(x), 0, numpy.minimum(numpy.abs(x), values[last + 1]))
    low = numpy.clip(numpy.searchsorted(values, size, side="right") - 1, 0, last)
    middle = (values[low] + values[low + 1]) / 2
    y = low + ((size > middle) | ((size == middle) & (low % 2 == 1)))
    y = numpy.where(y > last, last if saturate else last + 1, y)
    y = numpy.where(numpy.isnan(x), nan, y)
    found: Array = numpy.where(y == nan, nan, y + (numpy.signbit(x).astype(int) << width))
    return found


def widened(bits: Array, *, of: str) -> Array:
    """By a table of all numbers of the type, on the host."""
    bits = to_host(bits)
    last, width = _last(of), sum(_PLACES[of])
    values = _values(of)[:-1]
    values[last + 1 :] = numpy.nan
    if of != "float8_e4m3":
        values[last + 1] = numpy.inf
    size = values[bits % (1 << width)]
    y = numpy.where(bits >> width == 1, -size, size).astype("float32").view("uint32").astype(int)
    return numpy.where(numpy.isnan(size), 0x7FC00000, y)
