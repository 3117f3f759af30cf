"""More wrong implementations, whose mistake is in one part: one case, the gradient alone; or in two.

What is right in them is refllm's own fast code, put together by hand. The gradients are by hand too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refllm.ops import activation, attention, layer_norm, linear, rms_norm
from spec_tests.verify.strangers import Array, stranger


def _straight(x: Array, heads: int) -> Array:
    return np.ascontiguousarray(x).reshape(*x.shape[:-2], heads, x.shape[-2], x.shape[-1] // heads)


def _turned(x: Array, heads: int) -> Array:
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).swapaxes(-2, -3)


def _merged(x: Array) -> Array:
    x = x.swapaxes(-2, -3)
    return x.reshape(*x.shape[:-2], -1)


def _attend(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Array:
    return attention.attention(q, k, v, causal=causal, attention_mask=allowed)[0]


# --- two places, one mistake; two mistakes ----------------------------------------------------------------------------


@stranger("self_attention", "reshaped(")
def heads_by_view_alone(x: Array, p: Any, *, heads: int, causal: bool, allowed: Array | None) -> Array:
    parts = np.split(x @ p["Wqkv"] + p["bqkv"], 3, axis=-1)
    a = _attend(*(_straight(y, heads) for y in parts), causal=causal, allowed=allowed)
    return np.ascontiguousarray(a).reshape(x.shape) @ p["Wo"] + p["bo"]


@stranger("warmup_cosine", "ratio(step - 0, total - 0)", "ratio(step, total)")
def cosine_from_the_first_step(*, step: int, peak: float, warmup: int, total: int, floor: float) -> float:
    if step <= warmup:
        return peak * step / warmup
    if step >= total:
        return floor
    return floor + (peak - floor) * (1 + math.cos(math.pi * step / total)) / 2


@stranger("adamw", "sqrt(corrected_v + eps)")
def adamw_eps_inside_and_second_moment_uncorrected(
    p: Array, g: Array, m: Array, v: Array, *, step: int, lr: float, beta1: float, beta2: float, eps: float,
    decay: float,
) -> Any:  # fmt: skip
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p * (1 - lr * decay) - lr * m / (1 - beta1**step) / np.sqrt(v + eps), m, v


@stranger("clip_by_global_norm", "separately(")
def clip_each_by_its_own_norm(g: list[Array], *, clip: float) -> Any:
    norms = [np.sqrt((x * x).sum()) for x in g]
    return np.sqrt(sum(n * n for n in norms)), [
        x * (clip / n) if n > clip else x for x, n in zip(g, norms, strict=True)
    ]


# --- some cases, some calls ------------------------------------------------------------------------------------------


@stranger("cross_attention", "D * q.shape[-3]", "x.shape[-1]", '"x").shape[-1]', "q.shape[-3]")
def cross_attention_scaled_by_the_width_of_all_heads(
    x: Array, memory: Array, p: Any, *, heads: int, scaled: bool, allowed: Array | None
) -> Array:
    q, kv = x @ p["Wq"] + p.get("bq", 0), memory @ p["Wkv"] + p.get("bkv", 0)
    D, I = q.shape[-1] // heads, q.shape[-1]
    q = q * (math.sqrt(D / I) if scaled else math.sqrt(D))
    a = _attend(
        _turned(q, heads), _turned(kv[..., :I], heads), _turned(kv[..., I:], heads), causal=False, allowed=allowed
    )
    return _merged(a) @ p["Wo"] + p.get("bo", 0)


# --- the gradient alone ----------------------------------------------------------------------------------------------


@stranger("gelu_tanh", "gelu_erf(x)")
def gelu_tanh_with_the_derivative_of_the_other(x: Array) -> Any:
    return activation.gelu_tanh(x)[0], activation.gelu_erf(x)[1]


@stranger("gelu_tanh", "cut_off(sqrt(2 / pi()), 7)")
def gelu_tanh_with_seven_digits(x: Array) -> Array:
    return x * (1 + np.tanh(0.7978845 * (x + 0.044715 * x**3))) / 2


@stranger("rms_norm", "* g")
def rms_norm_gain_behind_the_projection(x: Array, g: Array, *, eps: float) -> Any:
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    n = x * r

    def back(dy: Array) -> Any:
        return g * r * (dy - n * (dy * n).mean(-1, keepdims=True)), (dy * n).reshape(-1, len(g)).sum(0)

    return g * n, back


@stranger("rms_norm", "sqrt(mean(x * x))")
def rms_norm_without_eps_going_back(x: Array, g: Array, *, eps: float) -> Any:
    y, right = rms_norm.rms_norm(x, g, eps=eps)
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True))

    def back(dy: Array) -> Any:
        dn, n = dy * g, x * r
        return r * (dn - n * (dn * n).mean(-1, keepdims=True)), right(dy)[1]

    return y, back


@stranger("layer_norm", "(sqrt(mean(c * c)) + eps)", "sqrt(mean(c * c)) + eps", "** 0.5 + eps")
def layer_norm_eps_outside_going_back(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    y, _ = layer_norm.layer_norm(x, g, b, eps=eps)
    c = x - x.mean(-1, keepdims=True)
    r = 1 / (np.sqrt((c * c).mean(-1, keepdims=True)) + eps)
    n = c * r

    def back(dy: Array) -> Any:
        dn = dy * g
        dx = r * (dn - dn.mean(-1, keepdims=True) - n * (dn * n).mean(-1, keepdims=True))
        return dx, (dy * n).reshape(-1, len(g)).sum(0), dy.reshape(-1, len(g)).sum(0)

    return y, back


@stranger("linear", "dy", "flat(x)")
def linear_without_the_last_row(x: Array, W: Array, b: Array) -> Any:
    y, right = linear.linear(x, W, b)

    def back(dy: Array) -> Any:
        dx, dW, _ = right(dy)
        return dx, dW, dy.reshape(-1, len(b))[-1]

    return y, back
