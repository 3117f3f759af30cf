"""Wrong implementations as people write them: in NumPy, without a look at the specification or at any list of mistakes.

Each is (operation, function, what the diff of the specification must say). Gradients are left out where the author has
none, as in inference code, and are those of the mistaken formula where a framework would have made them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
STRANGERS: dict[str, tuple[str, Callable[..., Any], tuple[str, ...]]] = {}


def stranger(operation: str, *says: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`says`: texts, one of which stands in the diff that explains the mistake."""

    def keep(f: Callable[..., Any]) -> Callable[..., Any]:
        STRANGERS[f.__name__] = (operation, f, says)
        return f

    return keep


def softmax(x: Array, axis: int = -1) -> Array:
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    e = np.exp(x - np.where(np.isfinite(top), top, 0))
    Z = e.sum(axis=axis, keepdims=True)
    return e / np.where(Z == 0, 1, Z)


def log_softmax(x: Array) -> Array:
    top = x.max(-1, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(-1, keepdims=True))


def erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[float])(x)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


# --- softmax and losses ----------------------------------------------------------------------------------------------


@stranger("softmax", "+ Z = sum(e) + 1", "Z + 1", "(Z + 1)")
def softmax_one_in_the_denominator(x: Array) -> Array:
    e = np.exp(x - np.where(np.isfinite(m := x.max(-1, keepdims=True)), m, 0))
    return e / (1 + e.sum(-1, keepdims=True))


@stranger("softmax", "columns(softmax)")
def softmax_of_columns(x: Array) -> Array:
    return softmax(x, axis=-2) if x.ndim > 1 else softmax(x)


@stranger("log_softmax", "return softmax(x)")
def log_softmax_without_log(x: Array) -> Array:
    return softmax(x)


def _cross_entropy(logits: Array, targets: Array, reduction: str, counted: Array, divisor: float) -> Array:
    at = np.take_along_axis(log_softmax(logits), np.where(counted, targets, 0)[..., None], -1)[..., 0]
    losses = np.where(counted, -at, 0)
    return losses if reduction == "none" else losses.sum() / (max(1, divisor) if reduction == "mean" else 1)


@stranger("cross_entropy", "counted.size")
def cross_entropy_mean_over_padding(logits: Array, *, targets: Array, ignore: int | None, reduction: str) -> Array:
    counted = np.ones(targets.shape, bool) if ignore is None else targets != ignore
    return _cross_entropy(logits, targets, reduction, counted, targets.size)


@stranger("cross_entropy", "ignore = -100")
def cross_entropy_ignores_minus_100(logits: Array, *, targets: Array, ignore: int | None, reduction: str) -> Array:
    counted = targets != -100
    return _cross_entropy(logits, targets, reduction, counted, counted.sum())


@stranger("cross_entropy", 'reduction = "sum"', "total(losses)")
def cross_entropy_always_summed(logits: Array, *, targets: Array, ignore: int | None, reduction: str) -> Array:
    counted = np.ones(targets.shape, bool) if ignore is None else targets != ignore
    return _cross_entropy(logits, targets, "none" if reduction == "none" else "sum", counted, 1)


@stranger("smoothed_cross_entropy", "smoothing = 0.0", "(1 - smoothing)", "smoothing")
def smoothing_forgets_the_target_share(
    logits: Array, *, targets: Array, ignore: int | None, smoothing: float, reduction: str
) -> Array:
    counted = np.ones(targets.shape, bool) if ignore is None else targets != ignore
    log_p = log_softmax(logits)
    at = np.take_along_axis(log_p, np.where(counted, targets, 0)[..., None], -1)[..., 0]
    losses = np.where(counted, -(at + smoothing * log_p.mean(-1)), 0)
    return losses if reduction == "none" else losses.sum() / (max(1, counted.sum()) if reduction == "mean" else 1)


@stranger("smoothed_cross_entropy", "sum(where(nothing, 0, log_p))")
def smoothing_without_the_number_of_classes(
    logits: Array, *, targets: Array, ignore: int | None, smoothing: float, reduction: str
) -> Array:
    counted = np.ones(targets.shape, bool) if ignore is None else targets != ignore
    log_p = log_softmax(logits)
    at = np.take_along_axis(log_p, np.where(counted, targets, 0)[..., None], -1)[..., 0]
    losses = np.where(counted, -((1 - smoothing) * at + smoothing * log_p.sum(-1)), 0)
    return losses if reduction == "none" else losses.sum() / (max(1, counted.sum()) if reduction == "mean" else 1)


@stranger("info_nce", "* temperature", "1 / temperature")
def info_nce_times_temperature(a: Array, b: Array, *, temperature: float) -> Array:
    n, m = (x / np.maximum(np.sqrt((x * x).sum(-1, keepdims=True)), 1e-300) for x in (a, b))
    return -np.diag(log_softmax(n @ m.T * temperature)).mean()


@stranger("info_nce", "direction", "n = x", "size")
def info_nce_without_norms(a: Array, b: Array, *, temperature: float) -> Array:
    return -np.diag(log_softmax(a @ b.T / temperature)).mean()


@stranger("mean_squared_error", "total((x - t) * (x - t))")
def squared_error_summed(x: Array, t: Array) -> Array:
    return ((x - t) ** 2).sum()


@stranger("perplexity", "exp(", "2")
def perplexity_is_the_loss(logits: Array, *, ids: Array) -> Array:
    return -np.take_along_axis(log_softmax(logits), ids[..., None], -1).mean()


# --- attention -------------------------------------------------------------------------------------------------------


def _attention(q: Array, k: Array, v: Array, scores: Callable[[Array], Array], scale: float) -> Array:
    return softmax(scores(q @ np.swapaxes(k, -1, -2) * scale)) @ v


def _mask(s: Array, causal: bool, allowed: Array | None, *, shift: int = 0, low: float = -np.inf) -> Array:
    T, S = s.shape[-2:]
    if causal:
        s = np.where(np.tri(T, S, S - T + shift, dtype=bool), s, low)
    return s if allowed is None else np.where(allowed, s, low)


@stranger("attention", "/ D", "sqrt(D)")
def attention_scaled_by_width(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Array:
    return _attention(q, k, v, lambda s: _mask(s, causal, allowed), 1 / q.shape[-1])


@stranger("attention", "/ sqrt(S)", "k.shape[-2]", "sqrt(T)")
def attention_scaled_by_length(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Array:
    return _attention(q, k, v, lambda s: _mask(s, causal, allowed), 1 / math.sqrt(max(1, k.shape[-2])))


@stranger("attention", "+ s = s + attention_mask", "s + attention_mask")
def attention_adds_a_boolean_mask(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Array:
    def scores(s: Array) -> Array:
        s = _mask(s, causal, None)
        return s if allowed is None else s + allowed

    return _attention(q, k, v, scores, 1 / math.sqrt(q.shape[-1]))


@stranger("attention", "-1e4", "-10000")
def attention_masks_with_minus_ten_thousand(
    q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None
) -> Array:
    return _attention(q, k, v, lambda s: _mask(s, causal, allowed, low=-1e4), 1 / math.sqrt(q.shape[-1]))


@stranger("attention", "<", "- 1", "+ 1")
def attention_sees_one_token_ahead(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Array:
    return _attention(q, k, v, lambda s: _mask(s, causal, allowed, shift=1), 1 / math.sqrt(q.shape[-1]))


@stranger("attention", "S - T", "[:, None]")
def attention_aligned_top_left(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Array:
    past = k.shape[-2] - q.shape[-2]
    return _attention(q, k, v, lambda s: _mask(s, causal, allowed, shift=-past), 1 / math.sqrt(q.shape[-1]))


@stranger("attention", "+ s = s", "if False", "pass", "causal = False")
def attention_never_causal(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Array:
    return _attention(q, k, v, lambda s: _mask(s, False, allowed), 1 / math.sqrt(q.shape[-1]))


@stranger("attention", "dk =")
def attention_forgets_the_scale_of_dk(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
    P = softmax(_mask(q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1]), causal, allowed))

    def back(dy: Array) -> Any:
        dP = dy @ np.swapaxes(v, -1, -2)
        ds = P * (dP - (P * dP).sum(-1, keepdims=True))
        return ds @ k / math.sqrt(q.shape[-1]), np.swapaxes(ds, -1, -2) @ q, np.swapaxes(P, -1, -2) @ dy

    return P @ v, back


@stranger("attention", "- sum(p * dp)", "p * dp", "sum(dp)")
def attention_softmax_back_without_the_sum(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
    P = softmax(_mask(q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1]), causal, allowed))

    def back(dy: Array) -> Any:
        ds = P * (dy @ np.swapaxes(v, -1, -2)) / math.sqrt(q.shape[-1])
        return ds @ k, np.swapaxes(ds, -1, -2) @ q, np.swapaxes(P, -1, -2) @ dy

    return P @ v, back


# --- norms and activations -------------------------------------------------------------------------------------------


def _normed(x: Array, eps: float, ddof: int = 0) -> Array:
    m = x.mean(-1, keepdims=True)
    return (x - m) / np.sqrt(((x - m) ** 2).sum(-1, keepdims=True) / (x.shape[-1] - ddof) + eps)


@stranger("layer_norm", ".shape[-1] - 1")
def layer_norm_unbiased(x: Array, g: Array, b: Array, *, eps: float) -> Array:
    return g * _normed(x, eps, ddof=1) + b


@stranger("layer_norm", "eps = 1e-6")
def layer_norm_fixed_eps(x: Array, g: Array, b: Array, *, eps: float) -> Array:
    return g * _normed(x, 1e-6) + b


@stranger("layer_norm", "+ eps)")
def layer_norm_eps_outside(x: Array, g: Array, b: Array, *, eps: float) -> Array:
    m = x.mean(-1, keepdims=True)
    return g * (x - m) / (np.sqrt(((x - m) ** 2).mean(-1, keepdims=True)) + eps) + b


@stranger("layer_norm", "g + 1", "(g + 1)")
def layer_norm_one_plus_gain(x: Array, g: Array, b: Array, *, eps: float) -> Array:
    return (1 + g) * _normed(x, eps) + b


@stranger("layer_norm", "mean(dn)")
def layer_norm_back_forgets_the_mean(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    n = _normed(x, eps)
    r = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)

    def back(dy: Array) -> Any:
        dn = dy * g
        lead = tuple(range(dy.ndim - 1))
        return r * (dn - n * (dn * n).mean(-1, keepdims=True)), (dy * n).sum(lead), dy.sum(lead)

    return g * n + b, back


@stranger("rms_norm", "+ eps", "eps)")
def rms_norm_eps_outside(x: Array, g: Array, *, eps: float) -> Array:
    return g * x / (np.sqrt((x * x).mean(-1, keepdims=True)) + eps)


@stranger("rms_norm", "eps = 1e-6")
def rms_norm_fixed_eps(x: Array, g: Array, *, eps: float) -> Array:
    return g * x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)


@stranger("rms_norm", "sum(x * x)")
def rms_norm_of_the_sum(x: Array, g: Array, *, eps: float) -> Array:
    return g * x / np.sqrt((x * x).sum(-1, keepdims=True) + eps)


@stranger("gelu_erf", "gelu_tanh")
def gelu_tanh_for_erf(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@stranger("gelu_tanh", "44715")
def gelu_tanh_with_a_slipped_digit(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.44715 * x**3)))


@stranger("gelu_erf", "sqrt(2)")
def gelu_without_the_root(x: Array) -> Array:
    return 0.5 * x * (1 + erf(x))


@stranger("silu", "return s, silu_back", "- return x * s")
def silu_is_only_the_gate(x: Array) -> Array:
    return sigmoid(x)


@stranger("dropout", "(1 - rate)", "x,")
def dropout_not_scaled(x: Array, *, keep: Array, rate: float) -> Array:
    return x * keep


@stranger("dropout", "~dropout_mask")
def dropout_keeps_what_it_drops(x: Array, *, keep: Array, rate: float) -> Array:
    return x * ~keep / (1 - rate)


# --- positions -------------------------------------------------------------------------------------------------------


@stranger("sinusoidal", "cos(angles), sin(angles)", "waves(cos")
def sinusoidal_cosine_first(p: Array, *, width: int) -> Array:
    a = p[..., None] / 10000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.cos(a), np.sin(a)], -1).reshape(*p.shape, -1)[..., :width]


@stranger("sinusoidal", "p + 1", "arange(1", "p - 1")
def sinusoidal_from_one(p: Array, *, width: int) -> Array:
    a = (p[..., None] + 1) / 10000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(a), np.cos(a)], -1).reshape(*p.shape, -1)[..., :width]


def _rotated(x: Array, a: Array) -> Array:
    h = x.shape[-1] // 2
    c, s = np.cos(a), np.sin(a)
    return np.concatenate([x[..., :h] * c - x[..., h:] * s, x[..., h:] * c + x[..., :h] * s], -1)


@stranger("rotary_halves", "base = 10000.0")
def rotary_with_a_fixed_base(x: Array, *, positions: Array, base: float) -> Array:
    D = x.shape[-1]
    return _rotated(x, positions[..., None] * 10000.0 ** (-np.arange(0, D, 2) / D))


@stranger("rotary_halves", "-")
def rotary_the_other_way(x: Array, *, positions: Array, base: float) -> Array:
    D = x.shape[-1]
    return _rotated(x, -positions[..., None] * base ** (-np.arange(0, D, 2) / D))


@stranger("rotary_halves", "positions + 1")
def rotary_from_one(x: Array, *, positions: Array, base: float) -> Array:
    D = x.shape[-1]
    return _rotated(x, (positions[..., None] + 1) * base ** (-np.arange(0, D, 2) / D))


@stranger("alibi", "m[:, None] * far")
def alibi_of_the_wrong_sign(m: Array, *, queries: int, keys: int) -> Array:
    return m[:, None] * abs(np.arange(1 - keys, queries))


# --- recurrent, optimisers -------------------------------------------------------------------------------------------


@stranger("rnn", "h", "states")
def rnn_ignores_the_first_state(x: Array, h: Array, Wx: Array, Wh: Array, b: Array, *, valid: Array | None) -> Array:
    state, seen = h * 0, []
    for t in range(x.shape[1]):
        new = np.tanh(x[:, t] @ Wx + state @ Wh + b)
        state = new if valid is None else np.where(valid[:, t, None], new, state)
        seen.append(state)
    return np.stack(seen, 1)


@stranger("lstm", "o * ")
def lstm_without_the_last_tanh(
    x: Array, h: Array, c: Array, Wx: Array, Wh: Array, b: Array, *, valid: Array | None
) -> Any:
    seen = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ Wx + h @ Wh + b, 4, -1)
        c2 = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h2 = sigmoid(o) * c2
        live = np.ones((len(x), 1), bool) if valid is None else valid[:, t, None]
        h, c = np.where(live, h2, h), np.where(live, c2, c)
        seen.append(h)
    return np.stack(seen, 1), c


def _adam(p: Array, g: Array, m: Array, v: Array, *, step: int, beta1: float, beta2: float) -> tuple[Array, ...]:
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return m, v, m / (1 - beta1**step), v / (1 - beta2**step)


@stranger("adam", "sqrt(corrected_v + eps)")
def adam_eps_inside_the_root(
    p: Array, g: Array, m: Array, v: Array, *, lr: float, eps: float, decay: float, **how: Any
) -> Any:
    m, v, mh, vh = _adam(p, g + decay * p, m, v, **how)
    return p - lr * mh / np.sqrt(vh + eps), m, v


@stranger("adam", "corrected", "power(")
def adam_without_correction_of_the_second(
    p: Array, g: Array, m: Array, v: Array, *, lr: float, eps: float, decay: float, **how: Any
) -> Any:
    m, v, mh, _ = _adam(p, g + decay * p, m, v, **how)
    return p - lr * mh / (np.sqrt(v) + eps), m, v


@stranger("adam", "step - 1", "step + 1")
def adam_counts_from_zero(
    p: Array, g: Array, m: Array, v: Array, *, lr: float, eps: float, decay: float, step: int, **how: Any
) -> Any:
    m, v, mh, vh = _adam(p, g + decay * p, m, v, step=step + 1, **how)
    return p - lr * mh / (np.sqrt(vh) + eps), m, v


@stranger("adamw", "1 - decay", "(1 - lr * decay)", "lr")
def adamw_decay_without_the_rate(
    p: Array, g: Array, m: Array, v: Array, *, lr: float, eps: float, decay: float, **how: Any
) -> Any:
    m, v, mh, vh = _adam(p, g, m, v, **how)
    return p * (1 - decay) - lr * mh / (np.sqrt(vh) + eps), m, v


@stranger("adamw", "adam(")
def adamw_is_adam(p: Array, g: Array, m: Array, v: Array, *, lr: float, eps: float, decay: float, **how: Any) -> Any:
    m, v, mh, vh = _adam(p, g + decay * p, m, v, **how)
    return p - lr * mh / (np.sqrt(vh) + eps), m, v


@stranger("sgd", "(1 - momentum) * g", "g")
def sgd_damped(p: Array, g: Array, v: Array, *, lr: float, momentum: float) -> Any:
    v = momentum * v + (1 - momentum) * g
    return p - lr * v, v


@stranger("clip_by_global_norm", "sqrt")
def clip_by_the_squared_norm(g: list[Array], *, clip: float) -> Any:
    norm = sum((x * x).sum() for x in g)
    return norm, [x * min(1, clip / norm) if norm else x.copy() for x in g]


@stranger("clip_by_global_norm", "norm > clip", "if")
def clip_always(g: list[Array], *, clip: float) -> Any:
    norm = np.sqrt(sum((x * x).sum() for x in g))
    return norm, [x * (clip / norm) if norm else x.copy() for x in g]


@stranger("warmup_cosine", "(total - warmup)", "total")
def cosine_over_all_steps(*, step: int, peak: float, warmup: int, total: int, floor: float) -> float:
    if step < warmup:
        return peak * step / warmup
    if step >= total:
        return floor
    return floor + (peak - floor) * (1 + math.cos(math.pi * (step - warmup) / total)) / 2


@stranger("warmup_cosine", "max_lr - min_lr", "min_lr")
def cosine_to_zero(*, step: int, peak: float, warmup: int, total: int, floor: float) -> float:
    if step < warmup:
        return peak * step / warmup
    return peak * (1 + math.cos(math.pi * min(1, (step - warmup) / (total - warmup)))) / 2


@stranger("load_balance", "E")
def load_balance_without_the_number_of_experts(p: Array, *, chosen: Array, valid: Array | None) -> Array:
    live = np.ones(chosen.shape, bool) if valid is None else valid
    n = np.maximum(live.sum(-1), 1)[..., None]
    f = ((chosen[..., None] == np.arange(p.shape[-1])) & live[..., None]).sum(-2) / n
    return (f * (p * live[..., None]).sum(-2) / n).sum(-1)
