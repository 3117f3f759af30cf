"""Wrong implementations whose mistake is in how two things go together: a factor of one term in another, both ends of a
ratio counted from 1, branches side by side, one of two arrays repeated in turn, places of the whole for those
of a part.

What is right in them is the plain text's or by hand; none of them is an edit of it.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from refllm.verify import plain
from spec_tests.verify.strangers import Array, _adam, softmax, stranger


def _text(name: str) -> Any:
    return plain.text()[name]


@stranger("adam", "(decay / (1 - power(beta2, step))) * p")
def adam_penalty_that_is_corrected_too(
    p: Array, g: Array, m: Array, v: Array, *, step: int, lr: float, eps: float, decay: float, beta1: float,
    beta2: float,
) -> Any:  # fmt: skip
    penalty = decay / (1 - beta2**step)
    m, v, mh, vh = _adam(p, g + penalty * p, m, v, step=step, beta1=beta1, beta2=beta2)
    return p - lr * mh / (np.sqrt(vh) + eps), m, v


@stranger("adamw", "p - lr * decay - lr * change")
def adamw_decay_that_is_the_same_for_all(
    p: Array, g: Array, m: Array, v: Array, *, lr: float, eps: float, decay: float, **how: Any
) -> Any:
    m, v, mh, vh = _adam(p, g, m, v, **how)
    return p - lr * decay - lr * mh / (np.sqrt(vh) + eps), m, v


@stranger("warmup_cosine", "ratio(step - warmup + 1, total - warmup + 1)")
def cosine_whose_steps_are_counted_from_one(*, step: int, peak: float, warmup: int, total: int, floor: float) -> float:
    if step < warmup:
        return peak * step / warmup
    if step >= total:
        return floor
    done = (step - warmup + 1) / (total - warmup + 1)
    return floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2


@stranger("llama_layer", "residual(x, p, 2,", "y = y + h - x")
def llama_layer_with_both_parts_side_by_side(x: Array, p: Any, **how: Any) -> Array:
    silent = {**p["feed_forward"], "W2": 0 * p["feed_forward"]["W2"]}
    attended = _text("llama_layer")(x, {**p, "feed_forward": silent}, None, **_own(how))[0]
    normed = _text("rms_norm")(x, p["norm2"]["g"], eps=how["eps"])[0]
    return attended + _text("gated_feed_forward")(normed, p["feed_forward"], activation="silu")[0]


def _own(how: dict[str, Any]) -> dict[str, Any]:
    return {"attention_mask" if name == "allowed" else name: value for name, value in how.items()}


@stranger("grouped_attention", "% G")
def grouped_attention_with_values_in_turn(
    x: Array, p: Any, *, heads: int, kv_heads: int, rotation: str | None, positions: Array, base: float, causal: bool,
    allowed: Array | None,
) -> Array:  # fmt: skip
    def heads_of(y: Array, n: int) -> Array:
        return np.swapaxes(y.reshape(*y.shape[:-1], n, -1), -2, -3)

    q, k, v = heads_of(x @ p["Wq"], heads), heads_of(x @ p["Wk"], kv_heads), heads_of(x @ p["Wv"], kv_heads)
    if rotation is not None:
        turned = _text({"rotary": "rotary_halves"}.get(rotation, rotation))
        own = positions if positions.ndim == 1 else positions[:, None]
        q, k = (turned(z, positions=own, base=base)[0] for z in (q, k))
    k = k.repeat(heads // kv_heads, axis=-3)
    v = np.concatenate([v] * (heads // kv_heads), axis=-3)
    a = _text("attention")(q, k, v, causal=causal, attention_mask=allowed)[0]
    side_by_side = np.swapaxes(a, -2, -3)
    return side_by_side.reshape(*side_by_side.shape[:-2], -1) @ p["Wo"]


@stranger("packed_attention", "arange(key_first, key_end)")
def packed_attention_with_keys_of_the_whole_row(
    q: Array, k: Array, v: Array, *, borders: Array, key_borders: Array, causal: bool
) -> Array:
    seen = np.zeros((q.shape[-2], k.shape[-2]), bool)
    for (a, b), (c, d) in zip(pairwise(borders), pairwise(key_borders), strict=True):
        queries, keys = np.arange(b - a)[:, None], np.arange(c, d)
        seen[a:b, c:d] = keys <= queries + (d - c) - (b - a) if causal else True
    s = np.where(seen, q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1]), -np.inf)
    return softmax(s) @ v


@stranger("nnlm", "words[:, :1]")
def nnlm_with_the_first_word_before_the_text(p: Any, *, ids: Array, config: Any) -> Array:
    n = config["order"] - 1
    line = np.concatenate([ids[:, :1].repeat(n - 1, axis=1), ids], axis=1)
    side = [p["token"][line[:, n - 1 - k : line.shape[1] - k]] for k in range(n)]
    x = np.concatenate(side, axis=-1)
    y = p["b"] + np.tanh(p["d"] + x @ p["H"]) @ p["U"]
    return y + x @ p["W"] if config["direct"] else y


@stranger("z_loss", "token_mask = rolled(token_mask, -1)", "token_mask = displaced(token_mask, -1)")
def z_loss_with_the_mask_of_the_next_token(logits: Array, *, valid: Array | None, strength: float) -> Array:
    counted = np.ones(logits.shape[:-1], bool) if valid is None else np.roll(valid, -1, axis=-1)
    top = logits.max(-1)
    log_Z = top + np.log(np.exp(logits - top[..., None]).sum(-1))
    return strength * np.where(counted, log_Z**2, 0).sum() / max(1, counted.sum())
