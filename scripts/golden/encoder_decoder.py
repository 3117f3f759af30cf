"""The encoder-decoder as formulas, in the forms of 2017, BART and T5: cross-attention, both stacks, the loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.formulas import (
    Array,
    Tap,
    add_positions,
    attention,
    cross_entropy,
    embedding,
    layer_norm,
    matmul,
    sinusoidal,
    smoothed_cross_entropy,
    untapped,
)
from golden.long import rms_norm, t5_bias_bidirectional, t5_bias_causal
from golden.model import ACTIVATIONS, inside
from golden.tape import constant, sqrt
from golden.tree import Tree


def cross_attention(x: Array, memory: Array, p: Tree, *, heads: int, scaled: bool, allowed: Array | None) -> Array:
    """XATT (Vaswani 2017, 3.2.3): queries from the decoder, keys and values from the output of the encoder."""
    (q,) = _project(x, p, "q", heads, parts=1)
    k, v = _project(memory, p, "kv", heads, parts=2)
    return _joined(attention(q, k, v, causal=False, allowed=allowed, scaled=scaled), p)


def _self_attention(
    x: Array, p: Tree, *, heads: int, scaled: bool, causal: bool, allowed: Array | None, r: Array | None
) -> Array:
    """MHA; with T5's bias r of the distance, entry s - t + T - 1 for query t and key s."""
    q, k, v = _project(x, p, "qkv", heads, parts=3)
    places = np.arange(x.shape[-2])
    bias = None if r is None else r[:, places - places[:, None] + len(places) - 1]
    return _joined(attention(q, k, v, causal=causal, allowed=allowed, bias=bias, scaled=scaled), p)


def _affine(x: Array, p: Tree, name: str) -> Array:
    """x W, and + b where there is a bias."""
    y = matmul(x, p[f"W{name}"])
    return y + p[f"b{name}"] if f"b{name}" in p else y


def _project(x: Array, p: Tree, name: str, heads: int, *, parts: int) -> list[Array]:
    """x W cut into parts, each cut into heads (..., H, T, D)."""
    y = _affine(x, p, name)
    y = y.reshape(*y.shape[:-1], parts, heads, -1)
    return [np.swapaxes(y[..., n, :, :], -3, -2) for n in range(parts)]


def _joined(a: Array, p: Tree) -> Array:
    """The heads side by side again, and the output projection."""
    a = np.swapaxes(a, -3, -2)
    return _affine(a.reshape(*a.shape[:-2], -1), p, "o")


def _norm(x: Array, p: Tree, config: Tree) -> Array:
    return rms_norm(x, p["g"], eps=config["eps"]) if config["rms"] else layer_norm(x, p["g"], p["b"], eps=config["eps"])


def _feed_forward(x: Array, p: Tree, config: Tree) -> Array:
    """FFN; with a gate (Shazeer 2020): (f(x Wg) * (x W1)) W2."""
    f = ACTIVATIONS[config["activation"]]
    inner = f(matmul(x, p["Wg"])) * matmul(x, p["W1"]) if config["gated"] else f(_affine(x, p, "1"))
    return _affine(inner, p, "2")


def _stack(
    p: Tree, ids: Array, *, config: Tree, causal: bool, allowed: Array | None, memory: Array | None, tap: Tap
) -> Array:
    """The layers of one half: self-attention, in the decoder cross-attention to the memory, feed-forward."""
    stack = p["encoder" if memory is None else "decoder"]
    scaled = config["positions"] != "relative"
    T, C, heads = ids.shape[-1], config["width"], config["heads"]
    x = embedding(p["token"], ids=ids)
    if config["scaled_embedding"]:
        x = x * sqrt(constant(C))
    if config["positions"] == "learned":
        x = add_positions(x, stack["position"], positions=np.arange(T))
    elif config["positions"] == "sinusoidal":
        x = x + sinusoidal(np.array([constant(n) for n in range(T)], dtype=object), width=C)
    if config["embedding_norm"]:
        x = _norm(x, stack["embedding_norm"], config)
    tap("embedding", x)
    r = None
    if config["positions"] == "relative":
        bias = t5_bias_causal if causal else t5_bias_bidirectional
        r = bias(stack["relative"], queries=T, keys=T, farthest=config["farthest"])
    attend = {"heads": heads, "scaled": scaled, "allowed": allowed}
    own = {**attend, "allowed": None} if causal else attend
    sublayers: list[Any] = [("attention", lambda h, a: _self_attention(h, a, **own, causal=causal, r=r))]
    if memory is not None:
        sublayers.append(("cross_attention", lambda h, a: cross_attention(h, memory, a, **attend)))
    sublayers.append(("feed_forward", lambda h, a: _feed_forward(h, a, config)))
    for n, layer in enumerate(stack["layers"]):
        x = _residuals(x, layer, sublayers, config, inside(tap, f"layers.{n}"))
    if config["norm"] == "pre":
        x = _norm(x, stack["norm"], config)
        tap("norm", x)
    return x


def _residuals(x: Array, p: Tree, sublayers: list[Any], config: Tree, tap: Tap) -> Array:
    """Each sublayer f in turn: pre x + f(N(x)), post N(x + f(x))."""

    def seen(name: str, value: Array) -> Array:
        tap(name, value)
        return value

    for n, (name, f) in enumerate(sublayers, start=1):
        if config["norm"] == "pre":
            h = seen(f"norm{n}", _norm(x, p[f"norm{n}"], config))
            x = seen(f"residual{n}", x + seen(name, f(h, p[name])))
        else:
            r = seen(f"residual{n}", x + seen(name, f(x, p[name])))
            x = seen(f"norm{n}", _norm(r, p[f"norm{n}"], config))
    return x


def encoder_decoder(
    p: Tree, *, source: Array, allowed: Array | None, ids: Array, config: Tree, tap: Tap = untapped
) -> dict[str, Array]:
    """ENCDEC (Vaswani 2017, 3.1; Lewis 2020; Raffel 2020): the logits of the next token at every place of the target.

    `allowed` (B, S) is false at the padding of the source, for the encoder and for cross-attention.
    """
    keys = None if allowed is None else allowed[:, None, None, :]
    how: dict[str, Any] = {"config": config, "allowed": keys}
    memory = _stack(p, source, **how, causal=False, memory=None, tap=inside(tap, "encoder"))
    h = _stack(p, ids, **how, causal=True, memory=memory, tap=inside(tap, "decoder"))
    if config["scaled_output"]:
        h = h / sqrt(constant(config["width"]))
    logits = matmul(h, p["token"].T if config["tied"] else p["head"])
    tap("logits", logits)
    return {"logits": logits}


def seq2seq_loss(
    p: Tree, *, targets: Array, start: int, ignore: int, smoothing: float, tap: Tap = untapped, **how: Any
) -> dict[str, Array]:
    """NLL of the target given the source (Sutskever 2014), with label smoothing (Vaswani 2017, 5.4): the mean over the
    targets that are not ignored. The decoder reads `start` and every target but the last."""
    ids = np.concatenate([np.full_like(targets[:, :1], start), targets[:, :-1]], axis=1)
    ids = np.where(ids == ignore, start, ids)  # behind an ignored target nothing is counted, whatever is read there
    logits = encoder_decoder(p, ids=ids, **how, tap=tap)["logits"]
    return {
        "loss": smoothed_cross_entropy(logits, targets=targets, ignore=ignore, smoothing=smoothing, reduction="mean")
    }


def denoising_loss(p: Tree, *, ids: Array, counted: Array, start: int, tap: Tap = untapped, **how: Any) -> Tree:
    """DAE: the mean over the places with m_t = 1 of -log P(x_t given the corrupted text, the source, and x_1 ...
    x_(t-1))."""
    before = np.concatenate([np.full_like(ids[:, :1], start), ids[:, :-1]], axis=1)
    logits = encoder_decoder(p, ids=before, **how, tap=tap)["logits"]
    targets = np.where(counted, ids, -1)
    return {"loss": cross_entropy(logits, targets=targets, ignore=-1, reduction="mean")}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The flat names and shapes of the parameters."""
    V, C = config["vocabulary"], config["width"]
    found: dict[str, tuple[int, ...]] = {"token": (V, C)}
    for half in ("encoder", "decoder"):
        if config["positions"] == "learned":
            found[f"{half}.position"] = (config["context"], C)
        if config["embedding_norm"]:
            found |= _norm_shapes(f"{half}.embedding_norm", config)
        if config["positions"] == "relative":
            found[f"{half}.relative"] = (config["buckets"], config["heads"])
        for n in range(config[f"{half}_layers"]):
            found |= _layer_shapes(f"{half}.layers.{n}", config, reads=half == "decoder")
        if config["norm"] == "pre":
            found |= _norm_shapes(f"{half}.norm", config)
    if not config["tied"]:
        found["head"] = (C, V)
    return found


def _norm_shapes(name: str, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    parts = ("g",) if config["rms"] else ("g", "b")
    return {f"{name}.{part}": (config["width"],) for part in parts}


def _layer_shapes(place: str, config: dict[str, Any], *, reads: bool) -> dict[str, tuple[int, ...]]:
    C, F, inner = config["width"], config["hidden"], config["heads"] * config["head_width"]
    sublayers = {"attention": attention_shapes(C, inner, config["biases"], "qkv")}
    if reads:
        sublayers["cross_attention"] = attention_shapes(C, inner, config["biases"], "q", "kv")
    gate = {"Wg": (C, F)} if config["gated"] else {}
    sublayers["feed_forward"] = {**gate, **affine_shapes(config["biases"], {"1": (C, F), "2": (F, C)})}
    found: dict[str, tuple[int, ...]] = {}
    for n, (name, shapes) in enumerate(sublayers.items(), start=1):
        found |= _norm_shapes(f"{place}.norm{n}", config)
        found |= {f"{place}.{name}.{leaf}": shape for leaf, shape in shapes.items()}
    return found


def attention_shapes(C: int, inner: int, biases: bool, *inputs: str) -> dict[str, tuple[int, ...]]:
    """Of the maps named after the parts they make ("qkv", or "q" and "kv"), and of the output's."""
    maps = {name: (C, len(name) * inner) for name in inputs}
    return affine_shapes(biases, {**maps, "o": (inner, C)})


def affine_shapes(biases: bool, maps: dict[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in maps.items():
        found[f"W{name}"] = shape
        if biases:
            found[f"b{name}"] = shape[1:]
    return found
