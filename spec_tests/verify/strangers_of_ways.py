"""Wrong implementations in which a thing goes another way than it should: a factor inside a power, a gradient that is
cut off on one way, a step that multiplies what only passes it, a share that counts once for every block.

What is right in them is the plain text's or by hand; none of them is an edit of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refllm.verify import plain
from spec_tests.verify.strangers import Array, sigmoid, stranger


def _right(operation: str) -> Any:
    return plain.operations()[operation]


@stranger("yarn_frequencies", "trained_frequencies(width, base * factor)")
def yarn_with_the_factor_inside_the_power(
    *, width: int, base: float, factor: float, original: int, beta_fast: float, beta_slow: float
) -> Any:
    places, pairs = np.arange(0, width, 2) / width, np.arange(width - 1)
    turns = original * base ** (-2 * pairs / width) / (2 * math.pi)
    low, high = max(0, int((turns >= beta_fast).sum()) - 1), int((turns > beta_slow).sum())
    r = np.clip((np.arange(width // 2) - low) / max(high - low, 1), 0, 1)
    scale = np.array(0.1 * math.log(max(factor, 1.0)) + 1)
    return (1 - r) * base**-places + r * (factor * base) ** -places, scale


@stranger("yarn_frequencies", "* 0.07")
def yarn_with_another_scale(**how: Any) -> Any:
    frequencies, _ = _right("yarn_frequencies")(**how)
    return frequencies, np.array(1 + 0.07 * math.log(max(how["factor"], 1.0)))


@stranger("ntk_frequencies", "power(factor * base,")
def ntk_with_the_base_inside_the_power(*, width: int, base: float, factor: float) -> Array:
    stretched = (base * factor) ** (width / (width - 2))
    return stretched ** (-np.arange(0, width, 2) / width)


@stranger("lstm", "dc * f")
def lstm_whose_pullback_forgets_at_padded_steps(
    x: Array, h: Array, c: Array, Wx: Array, Wh: Array, b: Array, *, valid: Array | None
) -> Any:
    N, T, states, cells, steps = h.shape[-1], x.shape[1], [h], [c], []
    counts = np.ones(x.shape[:2], bool) if valid is None else valid
    for t in range(T):
        z = x[:, t] @ Wx + states[-1] @ Wh + b
        i, f, g, o = sigmoid(z[:, :N]), sigmoid(z[:, N : 2 * N]), np.tanh(z[:, 2 * N : 3 * N]), sigmoid(z[:, 3 * N :])
        here, new = counts[:, t, None], f * cells[-1] + i * g
        steps.append((i, f, g, o, here))
        states.append(np.where(here, o * np.tanh(new), states[-1]))
        cells.append(np.where(here, new, cells[-1]))

    def back(dy: Array, dc: Array) -> Any:
        dh, dz = np.zeros_like(h), np.zeros((*x.shape[:2], 4 * N))
        for t in reversed(range(T)):
            (i, f, g, o, here), s = steps[t], np.tanh(cells[t + 1])
            dh = dh + dy[:, t]
            dc = dc + np.where(here, dh * o * (1 - s * s), 0)
            parts = [dc * g * i * (1 - i), dc * cells[t] * f * (1 - f), dc * i * (1 - g * g), dh * s * o * (1 - o)]
            dz[:, t] = np.where(here, np.concatenate(parts, -1), 0)
            dh, dc = np.where(here, dz[:, t] @ Wh.T, dh), dc * f
        before, sums = np.stack(states[:-1], 1).reshape(-1, N), dz.reshape(-1, 4 * N)
        return dz @ Wx.T, dh, dc, x.reshape(-1, x.shape[-1]).T @ sums, before.T @ sums, sums.sum(0)

    return (np.stack(states[1:], 1), cells[-1]), back


def _directions(x: Array) -> tuple[Array, Array]:
    size = np.linalg.norm(x, axis=-1, keepdims=True)
    size = np.where(size == 0, 1, size)
    return x / size, size


@stranger("info_nce", "constant(m)")
def contrast_whose_negatives_learn_nothing(a: Array, b: Array, *, temperature: float) -> Any:
    y, right_back = _right("info_nce")(a, b, temperature=temperature)
    (n, _), (m, size) = _directions(a), _directions(b)
    s = n @ m.T / temperature
    p = np.exp(s - s.max(-1, keepdims=True))
    p = p / p.sum(-1, keepdims=True)

    def back(dy: Array) -> Any:
        of_positives = (np.diag(p) - 1)[:, None] * n * dy / temperature / len(a)
        db = (of_positives - m * (m * of_positives).sum(-1, keepdims=True)) / size
        return right_back(dy)[0], np.where(m == 0, 0, db)

    return y, back


@stranger("sink_attention", "once_for_each_block(nothing, s, 3)")
def sink_that_counts_in_every_block(
    q: Array, k: Array, v: Array, sink: Array, *, causal: bool, allowed: Array | None
) -> Array:
    more = sink + math.log(-(-k.shape[-2] // 3))
    return _right("sink_attention")(q, k, v, more, causal=causal, allowed=allowed)[0]


@stranger("vocabulary_parallel_sums", ".clip(0, ")
def sums_with_the_nearest_word_for_a_foreign_one(logits: Array, *, targets: Array, ranks: int, rank: int) -> Any:
    (l, _), _ = _right("vocabulary_parallel_sums")(logits, targets=targets, ranks=ranks, rank=rank)
    V = logits.shape[-1]
    each = -(-V // ranks)
    own = np.arange(V)[rank * each : (rank + 1) * each]
    if not len(own):
        return l, np.zeros_like(l)
    nearest = targets.clip(own[0], own[-1])
    return l, np.take_along_axis(logits, nearest[..., None], -1)[..., 0]


@stranger("mean_pool", "largest(h, counted")
def pool_of_the_largest(h: Array, *, valid: Array | None) -> Array:
    counts = np.ones(h.shape[:-1], bool) if valid is None else valid
    y = np.where(counts[..., None], h, -np.inf).max(-2)
    return np.where(np.isfinite(y), y, 0)


@stranger("mean_pool", "last_of(h, None")
def pool_of_the_last(h: Array, *, valid: Array | None) -> Array:
    return h[..., -1, :].copy()


@stranger("llama_layer", "/ sqrt(2)")
def layer_whose_residuals_keep_the_variance(x: Array, p: Any, **how: Any) -> Array:
    layer = _right("llama_layer")
    no_attention = {**p["attention"], "Wo": np.zeros_like(p["attention"]["Wo"])}
    no_feed_forward = {**p["feed_forward"], "W2": np.zeros_like(p["feed_forward"]["W2"])}
    h = layer(x, {**p, "feed_forward": no_feed_forward}, **how)[0] / math.sqrt(2)
    return layer(h, {**p, "attention": no_attention}, **how)[0] / math.sqrt(2)


@stranger("gpt", "layer_number()")
def gpt_whose_scores_are_divided_by_the_number_of_the_layer(p: Any, *, ids: Array, config: Any) -> Array:
    def scaled(layer: Any, number: int) -> Any:
        attention = {name: x.copy() for name, x in layer["attention"].items()}
        for name in [name for name in ("Wqkv", "bqkv") if name in attention]:
            attention[name][..., : attention[name].shape[-1] // 3] /= number
        return {**layer, "attention": attention}

    layers = [scaled(layer, n + 1) for n, layer in enumerate(p["layers"])]
    return _right("gpt")({**p, "layers": layers}, ids=ids, config=config)[0]


@stranger("bidirectional", "concatenate([ahead, ahead]")
def states_of_one_way_in_both_halves(x: Array, p: Any, *, cell: str, valid: Array | None) -> Array:
    y, _ = _right("bidirectional")(x, p, cell=cell, valid=valid)
    return np.concatenate([y[..., : y.shape[-1] // 2]] * 2, -1)
