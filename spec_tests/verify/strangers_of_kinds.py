"""Wrong implementations of which each stands for a kind of mistake: a rule by names, a count before a filter, a lost
state, another layer's parameters, a derivative at another value, one text for a batch.

What is right in them is the plain text's or by hand; none of them is an edit of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refllm.spec.llama import alibi_slopes
from refllm.verify import plain
from spec_tests.verify.strangers import Array, sigmoid, stranger

TABLES = {"token", "position"}


def _right(operation: str) -> Any:
    return plain.operations()[operation]


def _zeros(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _zeros(x) for name, x in tree.items()}
    return [_zeros(x) for x in tree] if isinstance(tree, list) else np.zeros_like(tree)


@stranger("train_step", "named(")
def step_that_does_not_decay_tables(p: Any, m: Any, v: Any, *, decay: float, **how: Any) -> Any:
    loss, norm, new_p, new_m, new_v = _right("train_step")(p, m, v, decay=decay, **how)
    without = _right("train_step")(p, m, v, decay=0.0, **how)[2]
    return loss, norm, {name: without[name] if name in TABLES else x for name, x in new_p.items()}, new_m, new_v


@stranger("train_step", "loss(new_p")
def step_that_tells_the_loss_after_it(p: Any, m: Any, v: Any, **how: Any) -> Any:
    _, norm, new_p, new_m, new_v = _right("train_step")(p, m, v, **how)
    return _right("train_step")(new_p, m, v, **how)[0], norm, new_p, new_m, new_v


@stranger("train", "nothing(m)")
def training_that_forgets_first_moments(
    p: Any, m: Any, v: Any, *, ids: Array, targets: Array, first: int, **how: Any
) -> Any:
    told = []
    for n in range(len(ids)):
        m = m if n == 0 else _zeros(m)
        *both, p, m, v = _right("train_step")(p, m, v, ids=ids[n], targets=targets[n], step=first + n, **how)
        told.append(both)
    losses, norms = zip(*told, strict=True)
    return np.stack(losses), np.stack(norms), p, m, v


@stranger("switch_layer", "takes_before")
def experts_whose_places_padding_takes(x: Array, p: Any, *, activation: str, capacity: int, valid: Array | None) -> Any:
    how = {"activation": activation, "capacity": capacity}
    (y, balance), _ = _right("switch_layer")(x, p, valid=None, **how)
    if valid is not None:
        y, balance = y * valid[..., None], _right("switch_layer")(x, p, valid=valid, **how)[0][1]
    return y, balance


@stranger("llama", "layers.0")
def llama_of_one_layer_repeated(p: Any, **how: Any) -> Array:
    return _right("llama")({**p, "layers": [p["layers"][0]] * len(p["layers"])}, **how)[0]


@stranger("llama", "slopes(2 * below)", "slopes(below)")
def llama_whose_slopes_begin_at_one_for_powers_of_two(p: Any, **how: Any) -> Array:
    def slopes(heads: int) -> Array:
        below = 2 ** (heads.bit_length() - 1)
        return np.concatenate([2.0 ** (-8 * np.arange(below) / below), alibi_slopes(heads)[below:]])

    with plain.exchanged({alibi_slopes: slopes}):
        return _right("llama")(p, **how)[0]


@stranger("gated_feed_forward", "activated(h")
def gate_whose_derivative_is_taken_at_the_other_product(x: Array, p: Any, *, activation: str) -> Any:
    if activation != "silu":
        return _right("gated_feed_forward")(x, p, activation=activation)
    g, h = x @ p["Wg"], x @ p["W1"]
    s, t = sigmoid(g), sigmoid(h)

    def back(dy: Array) -> Any:
        df = dy @ p["W2"].T
        dg, dh = df * h * (t + h * t * (1 - t)), df * g * s
        products = {"Wg": _product(x, dg), "W1": _product(x, dh), "W2": _product(g * s * h, dy)}
        return dg @ p["Wg"].T + dh @ p["W1"].T, products

    return (g * s * h) @ p["W2"], back


def _product(x: Array, dy: Array) -> Array:
    return x.reshape(-1, x.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])


@stranger("gelu_tanh", "44715")
def gelu_whose_derivative_lacks_the_three(x: Array) -> Any:
    k, a = math.sqrt(2 / math.pi), 0.044715
    t = np.tanh(k * (x + a * x**3))
    return x * (1 + t) / 2, lambda dy: dy * ((1 + t) / 2 + x * (1 - t * t) / 2 * k * (1 + a * x * x))


@stranger("add_positions", "first_text(")
def positions_that_learn_of_the_first_text(x: Array, P: Array, *, positions: Array) -> Any:
    y, right = _right("add_positions")(x, P, positions=positions)

    def back(dy: Array) -> Any:
        first = np.concatenate([dy[:1], 0 * dy[1:]]) if dy.ndim > 2 else dy
        return right(dy)[0], right(first)[1]

    return y, back


@stranger("rms_norm", "(g * n)")
def rms_norm_in_place(x: Array, g: Array, *, eps: float) -> Any:
    """The gain is multiplied into the buffer of the normalised rows, which the gradient reads."""
    r = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    n = x * r
    n *= g

    def rms_norm_in_place_back(dy: Array) -> Any:
        dn = dy * g
        dx = r * (dn - n * (dn * n).mean(axis=-1, keepdims=True))
        return dx, (dy * n).reshape(-1, x.shape[-1]).sum(axis=0)

    return n, rms_norm_in_place_back


@stranger("smoothed_cross_entropy", "(V - 1)")
def smoothing_of_others_in_gradient(logits: Array, *, targets: Array, smoothing: float, **how: Any) -> Any:
    V = max(logits.shape[-1], 2)
    y, _ = _right("smoothed_cross_entropy")(logits, targets=targets, smoothing=smoothing, **how)
    return y, _right("smoothed_cross_entropy")(logits, targets=targets, smoothing=smoothing * V / (V - 1), **how)[1]


@stranger("smoothed_cross_entropy", "/ (V - 1)")
def smoothing_by_one_less_in_gradient(logits: Array, *, targets: Array, smoothing: float, **how: Any) -> Any:
    """A share of ε / (V - 1) for every label, the target too."""
    V = logits.shape[-1]
    y, back = _right("smoothed_cross_entropy")(logits, targets=targets, smoothing=smoothing, **how)
    if V == 1:
        return y, back

    def smoothing_by_one_less_in_gradient_back(dy: Array) -> Array:
        counted = np.ones(targets.shape, bool) if how["ignore"] is None else targets != how["ignore"]
        share = dy / max(1, counted.sum()) if how["reduction"] == "mean" else dy
        w = np.where(counted, share, 0)[..., None]
        return back(dy) - w * smoothing * (1 / (V - 1) - 1 / V)

    return y, smoothing_by_one_less_in_gradient_back
