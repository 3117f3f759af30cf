"""Wrong implementations in which one number or one mask stands for many: an upstream gradient's first number, the sum
over all, a scale that is applied once more, a mask that is put to everything, what a callee has on its way.

What is right in them is the plain text's or by hand; none of them is an edit of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refllm.verify import plain
from spec_tests.verify.strangers import Array, softmax, stranger


def _right(operation: str) -> Any:
    return plain.operations()[operation]


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


@stranger("smoothed_cross_entropy", "first_of_all(dy)")
def smoothed_loss_with_the_first_upstream_gradient_for_all(logits: Array, **how: Any) -> Any:
    y, back = _right("smoothed_cross_entropy")(logits, **how)
    return y, lambda dy: back(np.full_like(dy, np.ravel(dy)[0]) if dy.size else dy)


@stranger("mean_pool", "counted.sum().clip(1)")
def mean_over_the_tokens_of_the_whole_batch(h: Array, *, valid: Array | None) -> Any:
    there = np.ones(h.shape[:-1], bool) if valid is None else valid
    n = max(1, np.count_nonzero(there))

    def back(dy: Array) -> Array:
        return there[..., None] * dy[..., None, :] / n

    return (h * there[..., None]).sum(-2) / n, back


@stranger("muon", "+ A = X @ X.T")
def muon_that_forms_the_square_once(
    p: Array, g: Array, v: Array, *, lr: float, momentum: float, nesterov: bool, decay: float
) -> Any:
    v = momentum * v + g
    u = g + momentum * v if nesterov else v
    X = u / (np.linalg.norm(u) + 1e-7)
    X = X.T if u.shape[0] > u.shape[1] else X
    A = X @ X.T
    for _ in range(5):
        X = 3.4445 * X - 4.775 * A @ X + 2.0315 * A @ A @ X
    X = X.T if u.shape[0] > u.shape[1] else X
    return p - lr * decay * p - lr * math.sqrt(max(1, p.shape[0] / p.shape[1])) * X, v


@stranger("z_loss", "* log(where(sum(exp(logits - top(logits)))")
def z_loss_whose_pullback_forgets_the_shift(logits: Array, *, valid: Array | None, strength: float) -> Any:
    y, _ = _right("z_loss")(logits, token_mask=valid, strength=strength)
    there = np.ones(logits.shape[:-1], bool) if valid is None else valid
    e = np.exp(logits - logits.max(-1, keepdims=True))
    Z = e.sum(-1, keepdims=True)

    def other(dy: Array) -> Array:
        w = 2 * strength * dy / max(1, there.sum()) * np.log(Z)
        return np.where(there[..., None], w * e / Z, 0)

    return y, other


@stranger("low_rank_linear", "dA", "* scale")
def adapter_whose_first_matrix_is_scaled_twice(x: Array, W: Array, A: Array, B: Array, *, alpha: float) -> Any:
    s = alpha / A.shape[1]

    def back(dy: Array) -> Any:
        dz = s * dy @ B.T
        dA = s * _rows(x).T @ _rows(dz)
        return dy @ W.T + dz @ A.T, _rows(x).T @ _rows(dy), dA, s * _rows(x @ A).T @ _rows(dy)

    return x @ W + s * (x @ A) @ B, back


@stranger("vocabulary_parallel_sums", "where(here[..., None], log_sum_exp_back(dl)")
def shard_that_passes_nothing_for_the_targets_of_others(logits: Array, *, targets: Array, ranks: int, rank: int) -> Any:
    values, back = _right("vocabulary_parallel_sums")(logits, targets=targets, ranks=ranks, rank=rank)
    share = -(-logits.shape[-1] // ranks)
    mine = (targets // share == rank) & (targets >= 0) & (targets < logits.shape[-1])
    return values, lambda dl, dt: back(np.where(mine, dl, 0), np.where(mine, dt, 0))


@stranger("log_softmax", "sum(exp(y) * dy)")
def log_softmax_with_the_gradient_of_a_softmax_in_part(x: Array) -> Any:
    y, _ = _right("log_softmax")(x)
    p = softmax(x)
    return y, lambda dy: dy - p * (p * dy).sum(-1, keepdims=True)


@stranger("self_attention", "of_heads_first(", "of_texts_first(")
def attention_whose_mask_goes_by_texts_where_scores_go_by_heads(x: Array, p: Any, *, heads: int, **how: Any) -> Any:
    mask = how.pop("allowed")
    if mask is not None and mask.ndim == 4 and mask.shape[1] == 1:
        many = np.repeat(mask[:, 0], heads, axis=0)  # text 0 for each head, then text 1
        mask = many.reshape(heads, len(x), *mask.shape[2:]).swapaxes(0, 1)  # scores: head 0 for each text, then head 1
    return _right("self_attention")(x, p, heads=heads, attention_mask=mask, **how)


@stranger("layer_norm", "mean_text(dy)")
def norm_whose_bias_has_the_mean_of_the_texts(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    y, back = _right("layer_norm")(x, g, b, eps=eps)

    def other(dy: Array) -> Any:
        dx, dg, db = back(dy)
        return dx, dg, db / len(x) if x.ndim > 2 and len(x) else db

    return y, other


@stranger("llama3_frequencies", "factor = 8.0")
def frequencies_for_one_factor(**how: Any) -> Any:
    return _right("llama3_frequencies")(**{**how, "factor": 8.0})


@stranger("cross_entropy", "by_chunks(cross_entropy, 3, alike=False)")
def loss_of_chunks_of_three_weighed_by_their_rows(logits: Array, **how: Any) -> Any:
    whole, rows = _right("cross_entropy"), _rows(logits)
    if how["reduction"] != "mean" or len(rows) <= 3:
        return whole(logits, **how)
    targets, cuts = how["targets"].reshape(-1), range(0, len(rows), 3)
    each = [whole(rows[n : n + 3], **{**how, "targets": targets[n : n + 3]}) for n in cuts]
    shares = [len(rows[n : n + 3]) / len(rows) for n in cuts]

    def back(dy: Array) -> Array:
        return np.concatenate([b(dy * w) for w, (_, b) in zip(shares, each, strict=True)]).reshape(logits.shape)

    return sum(w * y for w, (y, _) in zip(shares, each, strict=True)), back


@stranger("gru_reset_before", "in_parts(db, (1, 0, 2))")
def gru_whose_bias_has_its_gates_exchanged(x: Array, *given: Any, **how: Any) -> Any:
    y, back = _right("gru_reset_before")(x, *given, token_mask=how["valid"])

    def other(dy: Array) -> Any:
        *rest, db = back(dy)
        r, z, n = np.split(db, 3)
        return *rest, np.concatenate([z, r, n])

    return y, other


@stranger("normed_attention", "(eps / x.shape[-1])")
def norms_of_queries_and_keys_by_their_lengths(q: Array, k: Array, v: Array, *given: Any, **how: Any) -> Any:
    eps = how.pop("eps") / q.shape[-1]
    how["attention_mask"] = how.pop("allowed", None)
    return _right("normed_attention")(q, k, v, *given, eps=eps, **how)


@stranger("lstm", "[0 * states[0], *states[1:]]")
def lstm_whose_weights_forget_the_first_state(x: Array, h: Array, c: Array, *given: Any, valid: Array | None) -> Any:
    y, back = _right("lstm")(x, h, c, *given, token_mask=valid)
    there = np.ones(x.shape[:2], bool) if valid is None else valid

    def other(*dy: Array) -> Any:
        dx, dh, dc, dWx, dWh, db = back(*dy)
        one = _right("lstm")(x[:, :1], h, c, *given, token_mask=there[:, :1])
        later = _later(x, one[0], given, there)
        (_, dh_1, dc_1, *_), dy_1 = later(dy), (np.zeros_like(one[0][0]), np.zeros_like(c))
        dy_1[0][:, 0] = dy[0][:, 0] + dh_1
        return dx, dh, dc, dWx, dWh - one[1](dy_1[0], dc_1)[4], db

    return y, other


def _later(x: Array, states: Any, given: Any, there: Array) -> Any:
    """The pullback of all steps but the first."""
    h, c = states[0][:, 0], states[1]
    _, back = _right("lstm")(x[:, 1:], h, c, *given, token_mask=there[:, 1:])
    return lambda dy: back(dy[0][:, 1:], dy[1])
