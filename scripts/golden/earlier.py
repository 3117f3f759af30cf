"""The language models before the Transformer as formulas: recurrent, over a window of words, and the hybrid of both."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.formulas import Array, Tap, cross_entropy, each, embedding, linear, matmul, sinusoidal, untapped
from golden.model import self_attention
from golden.recurrent import bidirectional, from_zeros, tanh, window
from golden.tape import constant
from golden.tree import Tree


def recurrent_lm(p: Tree, *, ids: Array, config: Tree, tap: Tap = untapped) -> Array:
    """RNN-LM, LSTM-LM (Mikolov 2010, Sundermeyer 2012): embedding, layers that begin with zeros, each over the states
    of the one below, and the head."""
    if ids.ndim == 1:
        return recurrent_lm(p, ids=ids[None], config=config, tap=tap)[0]
    x = embedding(p["token"], ids=ids)
    tap("embedding", x)
    x = _layers(x, p["layers"], config, None, tap)
    logits = matmul(x, p["token"].T if config["tied"] else p["head"])
    tap("logits", logits)
    return logits


def _layers(x: Array, layers: list[Tree], config: Tree, valid: Array | None, tap: Tap) -> Array:
    for n, layer in enumerate(layers):
        run = bidirectional if "backward" in layer else from_zeros
        x = run(x, layer, cell=config["cell"], valid=valid)
        tap(f"layers.{n}", x)
    return x


def nnlm(p: Tree, *, ids: Array, config: Tree, tap: Tap = untapped) -> Array:
    """NNLM (Bengio 2003, 2, eq. 1): b + x W + tanh(d + x H) U for the last order - 1 words x; zeros before the text."""
    if ids.ndim == 1:
        return nnlm(p, ids=ids[None], config=config, tap=tap)[0]
    places = config["order"] - 1
    past = each(lambda _: constant(0), np.empty((len(ids), places - 1, config["width"]), dtype=object))
    x = window(embedding(p["token"], ids=ids), past, places=places, valid=None)
    tap("window", x)
    a = tanh(linear(x, p["H"], p["d"]))
    tap("hidden", a)
    logits = linear(a, p["U"], p["b"])
    if config["direct"]:
        logits = logits + matmul(x, p["W"])
    tap("logits", logits)
    return logits


def hybrid_states(p: Tree, *, ids: Array, allowed: Array | None, config: Tree, tap: Tap = untapped) -> Array:
    """HYBRID (documents 003 sec. 4.3): embedding + sinusoidal positions, self-attention without residual and norm, and
    recurrent layers. Bidirectional, it sees the whole text (erratum E9); otherwise attention is causal and the layers
    run forward. `allowed` (B, T) is false at the padding."""
    T, C = ids.shape[-1], config["width"]
    x = embedding(p["token"], ids=ids) + sinusoidal(np.array([constant(n) for n in range(T)], dtype=object), width=C)
    tap("embedding", x)
    keys = None if allowed is None else allowed[:, None, None, :]
    causal = not config["bidirectional"]
    x = self_attention(x, p["attention"], heads=config["heads"], causal=causal, allowed=keys)
    tap("attention", x)
    return _layers(x, p["layers"], config, allowed, tap)


def hybrid(p: Tree, *, ids: Array, config: Tree, tap: Tap = untapped) -> Array:
    """HYBRID as a language model, which it can be only if it does not see the future."""
    if ids.ndim == 1:
        return hybrid(p, ids=ids[None], config=config, tap=tap)[0]
    logits = matmul(hybrid_states(p, ids=ids, allowed=None, config=config, tap=tap), p["head"])
    tap("logits", logits)
    return logits


def recurrent_lm_loss(p: Tree, *, tap: Tap = untapped, **how: Any) -> Array:
    return _loss(recurrent_lm, p, tap=tap, **how)


def nnlm_loss(p: Tree, *, tap: Tap = untapped, **how: Any) -> Array:
    return _loss(nnlm, p, tap=tap, **how)


def hybrid_loss(p: Tree, *, tap: Tap = untapped, **how: Any) -> Array:
    return _loss(hybrid, p, tap=tap, **how)


def _loss(model: Any, p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: Tree, tap: Tap) -> Array:
    """NLL: the mean over the targets that are not ignored."""
    logits = model(p, ids=ids, config=config, tap=tap)
    return cross_entropy(logits, targets=targets, ignore=ignore, reduction="mean")


def recurrent_lm_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    found = {"token": (config["vocabulary"], config["width"]), **_layers_shapes(config, config["width"])}
    if not config["tied"]:
        found["head"] = (config["hidden"], config["vocabulary"])
    return found


def nnlm_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    V, N, seen = config["vocabulary"], config["hidden"], (config["order"] - 1) * config["width"]
    found: dict[str, tuple[int, ...]] = {"token": (V, config["width"]), "H": (seen, N), "d": (N,), "U": (N, V)}
    if config["direct"]:
        found["W"] = (seen, V)
    return {**found, "b": (V,)}


def hybrid_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    V, C = config["vocabulary"], config["width"]
    attention = {"Wqkv": (C, 3 * C), "bqkv": (3 * C,), "Wo": (C, C), "bo": (C,)}
    return {
        "token": (V, C),
        **{f"attention.{name}": shape for name, shape in attention.items()},
        **_layers_shapes(config, C),
        "head": (config["hidden"] * (1 + config["bidirectional"]), V),
    }


def _layers_shapes(config: dict[str, Any], inputs: int) -> dict[str, tuple[int, ...]]:
    """Of the recurrent layers, the first of which reads `inputs` numbers."""
    N, gates = config["hidden"], 4 if config["cell"] == "lstm" else 1
    ways = ["forward.", "backward."] if config.get("bidirectional") else [""]
    found: dict[str, tuple[int, ...]] = {}
    for n in range(config["layers"]):
        for way in ways:
            place = f"layers.{n}.{way}"
            found |= {f"{place}Wx": (inputs, gates * N), f"{place}Wh": (N, gates * N), f"{place}b": (gates * N,)}
        inputs = N * len(ways)
    return found
