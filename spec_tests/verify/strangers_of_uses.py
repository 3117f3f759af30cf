"""Wrong implementations in which a thing is right in one place and wrong elsewhere: a scale that is another in one
gradient, a step that is read one place late, a gradient that goes past a part, a mask that holds for one shape.

What is right in them is the plain text's or by hand; none of them is an edit of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refllm.verify import plain
from spec_tests.verify.strangers import Array, sigmoid, softmax, stranger


def _right(operation: str) -> Any:
    return plain.operations()[operation]


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


@stranger("low_rank_linear", "dz = alpha", "dz = (alpha")
def adapter_with_another_scale_in_one_gradient(x: Array, W: Array, A: Array, B: Array, *, alpha: float) -> Any:
    rank, rows = A.shape[1], _rows

    def back(dy: Array) -> Any:
        dz = alpha * dy @ B.T
        dB = alpha / rank * rows(x @ A).T @ rows(dy)
        return dy @ W.T + dz @ A.T, rows(x).T @ rows(dy), rows(x).T @ rows(dz), dB

    return x @ W + alpha / rank * (x @ A) @ B, back


@stranger("gru_reset_before", "states[(t + 1)]", "states[t + 1]")
def gru_whose_pullback_reads_the_state_after_the_step(
    x: Array, h: Array, Wx: Array, Wh: Array, b: Array, *, valid: Array | None
) -> Any:
    N, T, states, steps = h.shape[1], x.shape[1], [h], []
    counts = np.ones(x.shape[:2], bool) if valid is None else valid
    G, C = Wh[:, : 2 * N], Wh[:, 2 * N :]
    for t in range(T):
        s = x[:, t] @ Wx + b
        g = sigmoid(s[:, : 2 * N] + states[-1] @ G)
        r, z = g[:, :N], g[:, N:]
        n = np.tanh(s[:, 2 * N :] + (r * states[-1]) @ C)
        states.append(np.where(counts[:, t, None], z * states[-1] + (1 - z) * n, states[-1]))
        steps.append((r, z, n))

    def back(dy: Array) -> Any:
        dh, ds = np.zeros_like(h), np.zeros((*x.shape[:2], 3 * N))
        for t in reversed(range(T)):
            (r, z, n), late, here = steps[t], states[t + 1], counts[:, t, None]
            dh = dh + dy[:, t]
            dn = dh * (1 - z) * (1 - n * n)
            du = dn @ C.T
            a = np.concatenate([du * late * r * (1 - r), dh * (late - n) * z * (1 - z)], -1)
            ds[:, t] = np.where(here, np.concatenate([a, dn], -1), 0)
            dh = np.where(here, dh * z + du * r + a @ G.T, dh)
        before, flat = np.stack(states[:-1], 1), _rows
        resets = np.stack([r for r, _, _ in steps], 1)
        dWh = np.concatenate([flat(before).T @ flat(ds)[:, : 2 * N], flat(resets * before).T @ flat(ds)[:, 2 * N :]], 1)
        return ds @ Wx.T, dh, flat(x).T @ flat(ds), dWh, flat(ds).sum(0)

    return np.stack(states[1:], 1), back


@stranger("llama_layer", "dx - dh + dy")
def layer_whose_first_residual_has_the_gradient_of_the_second(x: Array, p: Any, *given: Any, **how: Any) -> Any:
    y, back = _right("llama_layer")(x, p, *given, **how)
    silent = {**p["attention"], "Wo": np.zeros_like(p["attention"]["Wo"])}

    def other(dy: Array) -> Any:
        dx, *rest = back(dy)
        h = x + _attended(x, p, given, how)
        dh, *_ = _right("llama_layer")(h, {**p, "attention": silent}, *given, **how)[1](dy)
        return dx - dh + dy, *rest

    return y, other


def _attended(x: Array, p: Any, given: Any, how: Any) -> Array:
    """What attention adds to x."""
    gated = {**p["feed_forward"], "W2": np.zeros_like(p["feed_forward"]["W2"])}
    return _right("llama_layer")(x, {**p, "feed_forward": gated}, *given, **how)[0] - x


@stranger("relative_attention", "S == T", "T == S", "S >= T", "T <= S")
def biased_attention_that_is_causal_for_squares_alone(
    q: Array, k: Array, v: Array, r: Array, *, causal: bool, allowed: Array | None
) -> Array:
    square = q.shape[-2] == k.shape[-2]
    return _right("relative_attention")(q, k, v, r, causal=causal and square, allowed=allowed)[0]


@stranger("sink_attention", "in_turn(")
def sinks_that_go_from_row_to_row(
    q: Array, k: Array, v: Array, sink: Array, *, causal: bool, allowed: Array | None
) -> Array:
    s = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    T, S = s.shape[-2:]
    seen = np.tri(T, S, S - T, dtype=bool) if causal else np.ones((T, S), bool)
    s = np.where(seen if allowed is None else seen & allowed, s, -np.inf)
    rows = np.resize(sink, s[..., 0].size).reshape(*s.shape[:-1], 1)
    return softmax(np.concatenate([s, rows], -1))[..., :-1] @ v


@stranger("top_experts", "if renormalise else", "not renormalise")
def experts_whose_weights_sum_to_one_where_nobody_asks(scores: Array, *, k: int, renormalise: bool) -> Array:
    return _right("top_experts")(scores, k=k, renormalise=not renormalise)[0]


@stranger("clip_by_global_norm", "sqrt(total(")
def clip_by_the_root_of_the_sum_of_norms(g: list[Array], *, clip: float) -> Any:
    norm = math.sqrt(sum(float(np.linalg.norm(x)) for x in g))
    return np.array(norm), [x * (min(1.0, clip / norm) if norm else 1.0) for x in g]


@stranger("add_positions", "scatter_last_sums(")
def positions_of_which_the_last_is_learned(x: Array, P: Array, *, positions: Array) -> Any:
    def back(dy: Array) -> Any:
        over = tuple(range(dy.ndim - 1 - positions.ndim))
        sums, dP = dy.sum(over), np.zeros_like(P)
        for place in np.ndindex(positions.shape):
            dP[positions[place]] = sums[place]
        return dy, dP

    return x + P[positions], back


@stranger("rms_norm", "(x - mean(x))")
def rms_norm_with_the_gradient_by_the_variance(x: Array, g: Array, *, eps: float) -> Any:
    C = x.shape[-1]

    def back(dy: Array) -> Any:
        c = x - x.mean(-1, keepdims=True)
        r = 1 / np.sqrt((c * c).mean(-1, keepdims=True) + eps)
        n, dn = x * r, dy * g
        return r * (dn - n * (dn * n).mean(-1, keepdims=True)), (dy * n).reshape(-1, C).sum(0)

    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * g, back


@stranger("sliding_window_attention", "arange(T)[:, None] - arange(S)")
def window_whose_near_end_forgets_what_is_cached(
    q: Array, k: Array, v: Array, *, window: int, allowed: Array | None
) -> Array:
    row, column = np.arange(q.shape[-2])[:, None], np.arange(k.shape[-2])
    seen = (column <= row) & (row + k.shape[-2] - q.shape[-2] - column < window)
    seen = seen if allowed is None else seen & allowed
    return _right("attention")(q, k, v, causal=False, allowed=seen)[0]


@stranger("load_balance", "& counted, p")
def balance_of_what_was_not_chosen(p: Array, *, chosen: Array, valid: Array | None) -> Array:
    E, counted = p.shape[-1], np.ones(chosen.shape, bool) if valid is None else valid
    hot = (chosen[..., None] == np.arange(E)) & counted[..., None]
    count = counted.sum(-1, keepdims=True).clip(1)
    return E * (hot.sum(-2) / count * (p * hot).sum(-2) / count).sum(-1)


@stranger("mask_words", "text[t] for t in selected", "text = ids[b]")
def masked_words_that_are_their_own_targets(**given: Any) -> Any:
    ids, positions, targets = _right("mask_words")(**given)
    found = np.take_along_axis(ids, positions, -1)
    return ids, positions, np.where(targets < 0, targets, found)


@stranger("attention_with_lse", "* sqrt(D)", "sqrt(D)) @")
def attention_whose_weights_have_the_gradient_without_the_scale(
    q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None
) -> Any:
    how = {"causal": causal, "allowed": allowed}
    (y, l), both = _right("attention_with_lse")(q, k, v, **how)

    def back(dy: Array, dl: Array) -> Any:
        of_weights, of_sum = both(dy, 0 * dl), both(0 * dy, dl)
        root = math.sqrt(q.shape[-1])
        return of_weights[0] * root + of_sum[0], of_weights[1] * root + of_sum[1], of_weights[2]

    return (y, l), back


@stranger("sink_attention", "* P")
def sinks_weighed_twice_going_back(
    q: Array, k: Array, v: Array, sink: Array, *, causal: bool, allowed: Array | None
) -> Any:
    y, right = _right("sink_attention")(q, k, v, sink, causal=causal, allowed=allowed)
    s = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    T, S = s.shape[-2:]
    seen = np.tri(T, S, S - T, dtype=bool) if causal else np.ones((T, S), bool)
    s = np.where(seen if allowed is None else seen & allowed, s, -np.inf)
    column = np.broadcast_to(sink[:, None, None], (*s.shape[:-1], 1))
    P = softmax(np.concatenate([s, column], -1))

    def back(dy: Array) -> Any:
        mean = (P[..., :-1] * (dy @ v.swapaxes(-1, -2))).sum(-1)
        own = (-(P[..., -1] ** 2) * mean).sum(-1)
        return *right(dy)[:3], own.reshape(-1, len(sink)).sum(0)

    return y, back


@stranger("smoothed_cross_entropy", "w = reduced_back(dy)[..., None]")
def smoothing_whose_gradient_reaches_ignored_places(
    logits: Array, *, targets: Array, ignore: int | None, smoothing: float, reduction: str
) -> Any:
    how = {"smoothing": smoothing, "reduction": reduction}
    y, right = _right("smoothed_cross_entropy")(logits, targets=targets, ignore=ignore, **how)
    counted = np.ones(targets.shape, bool) if ignore is None else targets != ignore
    V, index = logits.shape[-1], np.where(counted, targets, 0)

    def back(dy: Array) -> Any:
        given = dy[..., None] if reduction == "none" else dy / (max(1, counted.sum()) if reduction == "mean" else 1)
        mixed = (1 - smoothing) * (index[..., None] == np.arange(V)) + smoothing / V
        return np.where(counted[..., None], right(dy), given * (softmax(logits) - mixed))

    return y, back


@stranger("mean_pool", "mean_of_all(")
def pooling_that_divides_all_texts_by_their_mean_length(h: Array, *, valid: Array | None) -> Array:
    counted = np.ones(h.shape[:-1], bool) if valid is None else valid
    count = max(counted.sum(-1).mean(), 1) if counted[..., 0].size else 1
    return np.where(counted[..., None], h, 0).sum(-2) / count


@stranger("self_attention", "dx, _, _")
def attention_whose_input_learns_by_keys_and_values_alone(
    x: Array, p: Any, *, heads: int, causal: bool, allowed: Array | None
) -> Any:
    C = x.shape[-1]
    y, right = _right("self_attention")(x, p, heads=heads, causal=causal, allowed=allowed)

    def cut(a: Array) -> Array:
        return a.reshape(*a.shape[:-1], heads, C // heads).swapaxes(-2, -3)

    q, k, v = (cut(a) for a in np.split(x @ p["Wqkv"] + p["bqkv"], 3, -1))

    def back(dy: Array) -> Any:
        attention_back = _right("attention")(q, k, v, causal=causal, allowed=allowed)[1]
        dq, *_ = attention_back(cut(dy @ p["Wo"].T))
        through_q = dq.swapaxes(-2, -3).reshape(x.shape) @ p["Wqkv"][:, :C].T
        dx, dp = right(dy)
        return dx - through_q, dp

    return y, back


@stranger("adam", 'of_call("adam", "g")')
def adam_with_the_decay_in_the_second_moment_alone(
    p: Array, g: Array, m: Array, v: Array, *, step: int, decay: float, **how: float
) -> Any:
    m = _right("adam")(p, g, m, v, step=step, decay=0.0, **how)[1]
    v = _right("adam")(p, g + decay * p, m, v, step=step, decay=0.0, **how)[2]
    top, root = m / (1 - how["beta1"] ** step), np.sqrt(v / (1 - how["beta2"] ** step))
    return p - how["lr"] * top / (root + how["eps"]), m, v


@stranger("smoothed_cross_entropy", "smoothing / V")
def smoothing_divided_by_the_words_twice(
    logits: Array, *, targets: Array, ignore: int | None, smoothing: float, reduction: str
) -> Any:
    how = {"targets": targets, "ignore": ignore, "reduction": reduction}
    none, all_of_it = (_right("smoothed_cross_entropy")(logits, smoothing=eps, **how)[0] for eps in (0.0, 1.0))
    return (1 - smoothing) * none + all_of_it * smoothing / logits.shape[-1]


@stranger("embedding", "scatter_last_of_each(")
def embedding_assigned_in_each_text(E: Array, *, ids: Array) -> Any:
    def back(dy: Array) -> Array:
        texts, dE = ids.reshape(-1, ids.shape[-1]) if ids.size else ids.reshape(0, 1), np.zeros_like(E)
        for text, rows in zip(texts, dy.reshape(*texts.shape, E.shape[-1]), strict=True):
            own = np.zeros_like(E)
            own[text] = rows
            dE += own
        return dE

    return E[ids], back


@stranger("mean_squared_error", "len(x)", "len(losses)", "x.shape[-1]")
def squared_error_divided_by_the_rows(x: Array, t: Array) -> Any:
    rows = max(1, len(x)) if x.ndim else 1
    return ((x - t) ** 2).sum() / rows, lambda dy: (2 * (x - t) * dy / rows, -2 * (x - t) * dy / rows)
