"""Wrong implementations whose mistake is where something holds: borders that are rounded another way, a step before its
time, a mask in one place and not in the other, a mean of means.

What is right in them is the plain text's or by hand; none of them is an edit of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refllm.verify import plain
from spec_tests.verify.strangers import Array, _adam, log_softmax, stranger


def _right(operation: str) -> Any:
    return plain.operations()[operation]


# --- rounding --------------------------------------------------------------------------------------------------------


def _yarn(width: int, base: float, factor: float, low: float, high: float, least: float) -> Any:
    r = np.clip((np.arange(width // 2) - low) / max(high - low, least), 0, 1)
    f = base ** (-np.arange(0, width, 2) / width)
    return (1 - r) * f + r * f / factor, np.array(0.1 * math.log(max(factor, 1)) + 1)


def _pair(width: int, base: float, original: int, turns: float) -> float:
    """The pair that makes so many turns over the trained length."""
    return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))


@stranger("yarn_frequencies", "max(high - low, 0.001)")
def yarn_between_places_that_are_not_rounded(
    *, width: int, base: float, factor: float, original: int, beta_fast: float, beta_slow: float
) -> Any:
    low, high = (_pair(width, base, original, turns) for turns in (beta_fast, beta_slow))
    return _yarn(width, base, factor, max(low, 0), min(high, width - 1), 0.001)


@stranger("yarn_frequencies", "nearest(passing(")
def yarn_between_the_nearest_pairs(
    *, width: int, base: float, factor: float, original: int, beta_fast: float, beta_slow: float
) -> Any:
    low, high = (round(_pair(width, base, original, turns)) for turns in (beta_fast, beta_slow))
    return _yarn(width, base, factor, max(low, 0), min(high, width - 1), 1)


@stranger("yarn_frequencies", "rounded_down(passing(turns, beta_slow))")
def yarn_whose_borders_are_cut_to_whole_numbers(
    *, width: int, base: float, factor: float, original: int, beta_fast: float, beta_slow: float
) -> Any:
    low, high = (int(_pair(width, base, original, turns)) for turns in (beta_fast, beta_slow))
    return _yarn(width, base, factor, max(low, 0), min(high, width - 1), 1)


@stranger("warmup_cosine", "// ")
def cosine_of_whole_numbers(*, step: int, peak: float, warmup: int, total: int, floor: float) -> float:
    if step < warmup:
        return peak * step / warmup
    if step >= total:
        return floor
    return floor + (peak - floor) * (1 + math.cos(math.pi * ((step - warmup) // (total - warmup)))) / 2


# --- the order of two steps ------------------------------------------------------------------------------------------


@stranger("lion", "+ m = beta2 * m")
def lion_whose_moment_goes_first(
    p: Array, g: Array, m: Array, *, lr: float, beta1: float, beta2: float, decay: float
) -> Any:
    m = beta2 * m + (1 - beta2) * g
    return p - lr * (np.sign(beta1 * m + (1 - beta1) * g) + decay * p), m


@stranger("adamw", "(p - lr * change) * (1 - lr * decay)")
def adamw_that_decays_after_the_step(
    p: Array, g: Array, m: Array, v: Array, *, lr: float, eps: float, decay: float, **how: Any
) -> Any:
    m, v, mh, vh = _adam(p, g, m, v, **how)
    return (p - lr * mh / (np.sqrt(vh) + eps)) * (1 - lr * decay), m, v


@stranger("lion", "+ p = p - lr * sign")
def lion_that_decays_after_the_step(
    p: Array, g: Array, m: Array, *, lr: float, beta1: float, beta2: float, decay: float
) -> Any:
    stepped = p - lr * np.sign(beta1 * m + (1 - beta1) * g)
    return stepped * (1 - lr * decay), beta2 * m + (1 - beta2) * g


@stranger("warmup_cosine", "(step - 1)")
def warmup_from_zero_and_cosine_to_zero(*, step: int, peak: float, warmup: int, total: int, floor: float) -> float:
    if step < warmup:
        return peak * (step - 1) / warmup
    if step >= total:
        return floor
    return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


# --- masks -----------------------------------------------------------------------------------------------------------


@stranger("load_balance", "P = sum(p,")
def balance_of_probabilities_at_all_places(p: Array, *, chosen: Array, valid: Array | None) -> Any:
    live = np.ones(chosen.shape, bool) if valid is None else valid
    n = np.maximum(live.sum(-1), 1)[..., None]
    E, T = p.shape[-1], p.shape[-2]
    f = ((chosen[..., None] == np.arange(E)) & live[..., None]).sum(-2) / n
    back = lambda dy: np.broadcast_to((E * dy[..., None] * f / T)[..., None, :], p.shape)
    return E * (f * p.mean(-2)).sum(-1), back


@stranger("mean_pool", "everywhere(")
def pool_of_tokens_over_all_places(h: Array, *, valid: Array | None) -> Array:
    return (h if valid is None else h * valid[..., None]).sum(-2) / h.shape[-2]


@stranger("span_loss", "in_slice(may_be, z, -2, 1)")
def span_whose_start_may_be_anywhere(
    p: Any, *, ids: Array, possible: Array | None, targets: Array, **how: Any
) -> Array:
    scores = np.swapaxes(_right("bert")(p, ids=ids, output="span", **how)[0], -1, -2)
    if possible is not None:
        scores[:, 1] = np.where(possible, scores[:, 1], -np.inf)
    return -np.take_along_axis(log_softmax(scores), targets[..., None], -1).mean()


# --- means of means --------------------------------------------------------------------------------------------------


def _one(x: Any, b: int) -> Any:
    return x[b : b + 1] if isinstance(x, np.ndarray) else x


@stranger("pretraining_loss", "by_text")
def masked_words_by_text(p: Any, *, targets: Array, ignore: int | None, **how: Any) -> Any:
    (masked, pair), _ = _right("pretraining_loss")(p, targets=targets, ignore=ignore, **how)
    found = []
    for b in range(len(targets)):
        if ignore is None or (targets[b] != ignore).any():
            text = {name: _one(x, b) for name, x in how.items()}
            found.append(_right("pretraining_loss")(p, targets=_one(targets, b), ignore=ignore, **text)[0][0])
    return (np.mean(found) if found else masked), pair


@stranger("z_loss", "by_text")
def z_loss_by_text(logits: Array, *, valid: Array | None, strength: float) -> Array:
    live = np.ones(logits.shape[:-1], bool) if valid is None else valid
    top = logits.max(-1, keepdims=True)
    squares = np.where(live, (top + np.log(np.exp(logits - top).sum(-1, keepdims=True)))[..., 0] ** 2, 0)
    if squares.ndim < 2:
        return strength * squares.sum() / max(1, live.sum())
    axes = tuple(range(1, squares.ndim))
    return strength * (squares.sum(axes) / np.maximum(1, live.sum(axes))).mean()


# --- two places ------------------------------------------------------------------------------------------------------


@stranger("load_balance", "P = sum(p,", "everywhere(")
def balance_of_all_places_without_the_number_of_experts(p: Array, *, chosen: Array, valid: Array | None) -> Array:
    live = np.ones(chosen.shape, bool) if valid is None else valid
    n = np.maximum(live.sum(-1), 1)[..., None]
    f = ((chosen[..., None] == np.arange(p.shape[-1])) & live[..., None]).sum(-2) / n
    return (f * p.mean(-2)).sum(-1)


@stranger("layer_norm", "eps")
def layer_norm_unbiased_with_eps_outside(x: Array, g: Array, b: Array, *, eps: float) -> Array:
    c = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((c * c).sum(-1, keepdims=True) / max(1, x.shape[-1] - 1))
    return c / (deviation + eps) * g + b
