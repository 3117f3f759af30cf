"""Llama as formulas: gated layer, grouped queries, the layer, the model under every scheme of positions, the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from mpmath import mp, mpf

from golden.formulas import Array, Tap, attention, cross_entropy, embedding, matmul, untapped
from golden.long import (
    alibi,
    multiply,
    relative_attention,
    repeat_heads,
    rms_norm,
    rotary_halves,
    rotary_interleaved,
    silu,
    t5_bias_causal,
)
from golden.model import ACTIVATIONS, inside
from golden.tape import constant
from golden.tree import Tree

ROTATIONS = {"rotary": rotary_halves, "rotary_interleaved": rotary_interleaved}
BUCKETS, FARTHEST = 32, 128  # of "relative": those of T5


def gated_feed_forward(x: Array, p: Tree, *, activation: str) -> Array:
    """FFN (Shazeer 2020, 2): (f(x Wg) * (x W1)) W2."""
    f = {**ACTIVATIONS, "silu": silu}[activation]
    return matmul(multiply(f(matmul(x, p["Wg"])), matmul(x, p["W1"])), p["W2"])


def grouped_attention(
    x: Array,
    p: Tree,
    *,
    heads: int,
    kv_heads: int,
    rotation: str | None,
    positions: Array,
    base: float,
    causal: bool,
    allowed: Array | None,
    r: Array | None = None,
) -> Array:
    """LONG (Ainslie 2023, 2.2): query head h attends the keys of head h // (heads / kv_heads). Queries and keys are
    turned by their positions, values are not; r is a bias by distance. The head width is that of the parameters."""

    def cut(W: Array, count: int) -> Array:
        y = matmul(x, W)
        return np.swapaxes(y.reshape(*y.shape[:-1], count, -1), -3, -2)

    q, k, v = cut(p["Wq"], heads), cut(p["Wk"], kv_heads), cut(p["Wv"], kv_heads)
    if rotation is not None:
        own = positions if positions.ndim == 1 else positions[:, None]
        q, k = (ROTATIONS[rotation](z, positions=own, base=base) for z in (q, k))
    k, v = (repeat_heads(z, groups=heads // kv_heads) for z in (k, v))
    if r is None:
        a = attention(q, k, v, causal=causal, allowed=allowed)
    else:
        a = relative_attention(q, k, v, r, causal=causal, allowed=allowed)
    side_by_side = np.swapaxes(a, -3, -2).reshape(*x.shape[:-1], -1)
    return matmul(side_by_side, p["Wo"])


def llama_layer(
    x: Array,
    p: Tree,
    *,
    heads: int,
    kv_heads: int,
    rotation: str | None,
    positions: Array,
    base: float,
    allowed: Array | None,
    eps: float,
    r: Array | None = None,
    tap: Tap = untapped,
) -> Array:
    """Touvron 2023, 2.2: x + attention(RMS(x)), then x + SwiGLU(RMS(x)); causal."""

    def seen(name: str, value: Array) -> Array:
        tap(name, value)
        return value

    def attend(n: Array) -> Array:
        return grouped_attention(
            n,
            p["attention"],
            heads=heads,
            kv_heads=kv_heads,
            rotation=rotation,
            positions=positions,
            base=base,
            causal=True,
            allowed=allowed,
            r=r,
        )

    n = seen("norm1", rms_norm(x, p["norm1"]["g"], eps=eps))
    h = seen("residual1", x + seen("attention", attend(n)))
    n = seen("norm2", rms_norm(h, p["norm2"]["g"], eps=eps))
    return seen("residual2", h + seen("feed_forward", gated_feed_forward(n, p["feed_forward"], activation="silu")))


def alibi_slopes(heads: int) -> list[Any]:
    """Press 2022, 3: 2^(-8 h / n) for h = 1 ... n, a power of two; other numbers of heads n have the slopes of the
    power below, then the first, third, fifth ... of the power above (the authors' code)."""
    below = 2 ** (heads.bit_length() - 1)
    slopes = [mp.power(2, mpf(-8 * h) / below) for h in range(1, below + 1)]
    above = [mp.power(2, mpf(-8 * h) / (2 * below)) for h in range(1, 2 * below + 1)]
    return [*slopes, *above[::2]][:heads]


def llama(p: Tree, *, ids: Array, config: Tree, tap: Tap = untapped) -> Array:
    """Llama (Touvron 2023): embedding, L layers, RMS norm, LMHEAD. Positions are a rotation of queries and keys, or a
    bias by distance: fixed slopes ("alibi"), or one table for all layers ("relative"), or nothing ("none")."""
    T, how = ids.shape[-1], config["positions"]
    r = None
    if how == "relative":
        r = t5_bias_causal(p["relative"], queries=T, keys=T, farthest=FARTHEST)
    elif how == "alibi":
        slopes = np.array([constant(m) for m in alibi_slopes(config["heads"])], dtype=object)
        r = alibi(slopes, queries=T, keys=T)
    x = embedding(p["token"], ids=ids)
    tap("embedding", x)
    for n, layer in enumerate(p["layers"]):
        x = llama_layer(
            x,
            layer,
            heads=config["heads"],
            kv_heads=config["kv_heads"],
            rotation=how if how in ROTATIONS else None,
            positions=np.arange(T),
            base=config["base"],
            allowed=None,
            eps=config["eps"],
            r=r,
            tap=inside(tap, f"layers.{n}"),
        )
    x = rms_norm(x, p["norm"]["g"], eps=config["eps"])
    tap("norm", x)
    logits = matmul(x, p["token"].T if config["tied"] else p["head"])
    tap("logits", logits)
    return logits


def llama_loss(p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: Tree, tap: Tap = untapped) -> Array:
    """NLL: the mean over the targets that are not ignored."""
    logits = llama(p, ids=ids, config=config, tap=tap)
    return cross_entropy(logits, targets=targets, ignore=ignore, reduction="mean")


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The flat names and shapes of the parameters of `llama`."""
    C, V = config["width"], config["vocabulary"]
    found: dict[str, tuple[int, ...]] = {"token": (V, C)}
    if config["positions"] == "relative":
        found["relative"] = (BUCKETS, config["heads"])
    of_layer = layer_shapes(C, config["heads"], config["kv_heads"], config["head_width"], config["hidden"])
    for n in range(config["layers"]):
        found |= {f"layers.{n}.{name}": shape for name, shape in of_layer.items()}
    found["norm.g"] = (C,)
    if not config["tied"]:
        found["head"] = (C, V)
    return found


def layer_shapes(C: int, H: int, G: int, D: int, F: int) -> dict[str, tuple[int, ...]]:
    return {
        "norm1.g": (C,),
        "attention.Wq": (C, H * D),
        "attention.Wk": (C, G * D),
        "attention.Wv": (C, G * D),
        "attention.Wo": (H * D, C),
        "norm2.g": (C,),
        "feed_forward.Wg": (C, F),
        "feed_forward.W1": (C, F),
        "feed_forward.W2": (F, C),
    }
