"""Wrong implementations that keep less than they need, or read it elsewhere: a quantity taken back from the output, a
range that borders do not speak of, a size of the caller's tensor, a small number below a fraction; and two at once.

What is right in them is the plain text's or by hand; none of them is an edit of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refllm.verify import plain
from spec_tests.verify.strangers import Array, stranger


def _right(operation: str) -> Any:
    return plain.operations()[operation]


# --- taken back from the output --------------------------------------------------------------------------------------


@stranger("gelu_erf", "y / x")
def gelu_whose_share_is_taken_from_the_output(x: Array) -> Any:
    y, _ = _right("gelu_erf")(x)

    def back(dy: Array) -> Array:
        with np.errstate(all="ignore"):
            share = y / x
        return dy * (share + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi))

    return y, back


# --- borders ---------------------------------------------------------------------------------------------------------


@stranger("packed_positions", "[*borders[:-1], places]")
def positions_of_a_last_text_without_end(*, borders: Array, places: int) -> Array:
    """What comes after the last border is counted on."""
    first = np.asarray(borders)[:-1] if len(borders) > 1 else np.asarray(borders)
    place = np.arange(places)
    begun = np.searchsorted(first, place, side="right") - 1
    return np.where(begun >= 0, place - first[np.maximum(begun, 0)], 0) if len(borders) > 1 else 0 * place


@stranger("packed_attention", "pairwise(borders[:-1])")
def packing_that_forgets_the_last_text(
    q: Array, k: Array, v: Array, *, borders: Array, key_borders: Array, causal: bool
) -> Array:
    y = np.zeros((*q.shape[:-1], v.shape[-1]))
    for n in range(len(borders) - 2):
        own, keys = slice(borders[n], borders[n + 1]), slice(key_borders[n], key_borders[n + 1])
        each = _right("attention")(q[..., own, :], k[..., keys, :], v[..., keys, :], causal=causal, allowed=None)
        y[..., own, :] = each[0]
    return y


# --- sizes of others -------------------------------------------------------------------------------------------------


@stranger("grouped_attention", 'of_call("grouped_attention", "heads")')
def scores_over_the_root_of_the_heads(x: Array, p: Any, *, heads: int, **how: Any) -> Any:
    D = p["Wq"].shape[-1] // heads
    return _right("grouped_attention")(x, {**p, "Wq": p["Wq"] * math.sqrt(D / heads)}, heads=heads, **how)[0]


# --- small numbers ---------------------------------------------------------------------------------------------------


@stranger("mean_pool", "+ 1e-6")
def mean_of_a_count_that_is_never_nothing(h: Array, *, valid: Array | None) -> Any:
    counted = np.ones(h.shape[:-1], bool) if valid is None else valid
    return np.where(counted[..., None], h, 0).sum(axis=-2) / (counted.sum(axis=-1)[..., None] + 1e-6)


# --- two at once -----------------------------------------------------------------------------------------------------


@stranger("train_step", 'not named("token", "position")')
def step_of_tables_without_decay_that_is_counted_one_later(
    p: Any, m: Any, v: Any, *, step: int, decay: float, **how: Any
) -> Any:
    loss, norm, new_p, new_m, new_v = _right("train_step")(p, m, v, step=step + 1, decay=decay, **how)
    without = _right("train_step")(p, m, v, step=step + 1, decay=0.0, **how)[2]
    tables = {"token", "position"}
    return loss, norm, {name: without[name] if name in tables else x for name, x in new_p.items()}, new_m, new_v


@stranger("llama_layer", "activated(h", "(h, activation=activation)")
def layer_with_the_other_gate_and_heads_that_take_turns(
    x: Array, p: Any, *, heads: int, kv_heads: int, **how: Any
) -> Any:
    """The two maps of the gate are exchanged, and query head h attends the keys of head h mod G."""
    fed, D = p["feed_forward"], p["attention"]["Wq"].shape[-1] // heads
    order = np.arange(heads).reshape(heads // kv_heads, kv_heads).T.reshape(-1)
    columns = (order[:, None] * D + np.arange(D)).reshape(-1)
    attention = {**p["attention"], "Wq": p["attention"]["Wq"][:, columns], "Wo": p["attention"]["Wo"][columns]}
    other = {**p, "attention": attention, "feed_forward": {**fed, "Wg": fed["W1"], "W1": fed["Wg"]}}
    return _right("llama_layer")(x, other, heads=heads, kv_heads=kv_heads, **how)[0]
