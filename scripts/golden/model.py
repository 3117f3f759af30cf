"""Blocks and the tiny GPT, as formulas over the operations: feed-forward, self-attention, layer, model, loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden import formulas
from golden.formulas import (
    Array,
    Tap,
    add_positions,
    attention,
    cross_entropy,
    embedding,
    layer_norm,
    linear,
    matmul,
    sinusoidal,
    untapped,
)
from golden.tape import constant, sqrt
from golden.tree import Tree

ACTIVATIONS = {"relu": formulas.relu, "gelu_tanh": formulas.gelu_tanh, "gelu_erf": formulas.gelu_erf_inside}


def feed_forward(x: Array, p: Tree, *, activation: str) -> Array:
    """FFN (Vaswani 2017, 3.3): f(x W1 + b1) W2 + b2."""
    return linear(ACTIVATIONS[activation](linear(x, p["W1"], p["b1"])), p["W2"], p["b2"])


def self_attention(x: Array, p: Tree, *, heads: int, causal: bool, allowed: Array | None) -> Array:
    """MHA (Vaswani 2017, 3.2.2): attention in every head, heads side by side again, output projection.

    `allowed` is broadcastable to (..., H, T, T). d_k is the width of ONE head (erratum E3).
    """
    parts = formulas.heads(x, p["Wqkv"], p["bqkv"], heads=heads, parts=3)
    y = attention(parts["y0"], parts["y1"], parts["y2"], causal=causal, allowed=allowed)
    return linear(np.swapaxes(y, -3, -2).reshape(x.shape), p["Wo"], p["bo"])


def transformer_layer(
    x: Array,
    p: Tree,
    *,
    norm: str,
    heads: int,
    causal: bool,
    allowed: Array | None,
    activation: str,
    eps: float,
    tap: Tap = untapped,
) -> Array:
    """LN and residual: "pre" x + f(LN(x)) (Xiong 2020); "post" LN(x + f(x)) (Vaswani 2017, 3.1)."""

    def attend(h: Array) -> Array:
        return self_attention(h, p["attention"], heads=heads, causal=causal, allowed=allowed)

    def feed(h: Array) -> Array:
        return feed_forward(h, p["feed_forward"], activation=activation)

    def seen(name: str, value: Array) -> Array:
        tap(name, value)
        return value

    for number, name, f in ((1, "attention", attend), (2, "feed_forward", feed)):
        gain, bias = p[f"norm{number}"]["g"], p[f"norm{number}"]["b"]
        if norm == "pre":
            n = seen(f"norm{number}", layer_norm(x, gain, bias, eps=eps))
            x = seen(f"residual{number}", x + seen(name, f(n)))
        else:
            r = seen(f"residual{number}", x + seen(name, f(x)))
            x = seen(f"norm{number}", layer_norm(r, gain, bias, eps=eps))
    return x


def gpt(p: Tree, *, ids: Array, config: Tree, tap: Tap = untapped) -> Array:
    """GPT (Radford 2018, 2019): embedding + position, L causal layers, pre-norm's final norm, LMHEAD.

    "tied": the logits are h E^T with the token embedding E; untied: h W_head.
    """
    T = ids.shape[-1]
    table = p["position"] if config["positions"] == "learned" else _sinusoids(config)
    words = embedding(p["token"], ids=ids)
    if config.get("scaled_embedding"):  # Vaswani 2017, 3.4
        words = words * sqrt(constant(config["width"]))
    x = add_positions(words, table, positions=np.arange(T))
    tap("embedding", x)
    for n, layer in enumerate(p["layers"]):
        x = transformer_layer(
            x,
            layer,
            norm=config["norm"],
            heads=config["heads"],
            causal=True,
            allowed=None,
            activation=config["activation"],
            eps=config["eps"],
            tap=inside(tap, f"layers.{n}"),
        )
    if config["norm"] == "pre":
        x = layer_norm(x, p["norm"]["g"], p["norm"]["b"], eps=config["eps"])
        tap("norm", x)
    logits = matmul(x, p["token"].T if config["tied"] else p["head"])
    tap("logits", logits)
    return logits


def inside(tap: Tap, place: str) -> Tap:
    return lambda name, value: tap(f"{place}.{name}", value)


def _sinusoids(config: Tree) -> Array:
    positions = np.array([constant(n) for n in range(config["context"])], dtype=object)
    return sinusoidal(positions, width=config["width"])


def gpt_loss(p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: Tree, tap: Tap = untapped) -> Array:
    """NLL: the mean over the targets that are not ignored of -log P(target given the tokens before it)."""
    logits = gpt(p, ids=ids, config=config, tap=tap)
    return cross_entropy(logits, targets=targets, ignore=ignore, reduction="mean")


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The flat names and shapes of the parameters of `gpt`."""
    C, F, V = config["width"], config["hidden"], config["vocabulary"]
    found: dict[str, tuple[int, ...]] = {"token": (V, C)}
    if config["positions"] == "learned":
        found["position"] = (config["context"], C)
    for n in range(config["layers"]):
        found |= {f"layers.{n}.{name}": shape for name, shape in layer_shapes(C, F).items()}
    if config["norm"] == "pre":
        found |= {"norm.g": (C,), "norm.b": (C,)}
    if not config["tied"]:
        found["head"] = (C, V)
    return found


def layer_shapes(C: int, F: int) -> dict[str, tuple[int, ...]]:
    return {
        "norm1.g": (C,),
        "norm1.b": (C,),
        "attention.Wqkv": (C, 3 * C),
        "attention.bqkv": (3 * C,),
        "attention.Wo": (C, C),
        "attention.bo": (C,),
        "norm2.g": (C,),
        "norm2.b": (C,),
        "feed_forward.W1": (C, F),
        "feed_forward.b1": (F,),
        "feed_forward.W2": (F, C),
        "feed_forward.b2": (C,),
    }
