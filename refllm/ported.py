"""What a model computes on its way, by name, and what it would compute with one mistake of those that ports have."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

from refllm.backend import Array, namespace
from refllm.errors import UserError
from refllm.models import gpt
from refllm.parameters import Tree
from refllm.watching import watched, watched_states

KINDS = ("llama", "gpt")
TOLERANCE = 2e-4  # of the largest entry of a tensor: float32 through thirty layers; a mistake is larger


def require_kind(model: str) -> None:
    if model not in KINDS:
        raise UserError(f"a model of the kind {model} has no taps; those of the kinds {' and '.join(KINDS)} have")


def taps(model: ModuleType, p: Tree, ids: Array, config: Any) -> dict[str, Array]:
    """By name, in the order in which they are computed."""
    with watched() as attended, watched_states() as states:
        h, _ = model.hidden_states(p, ids=ids, config=config, dropout_mask=None, cache=None)
    found = {"embedding": states[0]}
    for n in range(config.layers):
        for name in ("q", "k", "v"):
            found[f"layers.{n}.{name}"] = getattr(attended[n], name)
        found[f"layers.{n}.attention"] = attended[n].y
        found[f"layers.{n}"] = states[n + 1]
    found["norm"] = h
    found["logits"], _ = model.forward(p, ids=ids, config=config, dropout_mask=None, cache=None)
    return found


def difference(a: Array, b: Array) -> float:
    """The largest difference, in shares of the largest entry; infinite for another shape or no number."""
    if a.shape != b.shape:
        return math.inf
    xp = namespace(a)
    if not xp.isfinite(b).all():
        return math.inf
    return float(abs(a - b).max() / max(float(abs(a).max()), 1e-30)) if a.size else 0.0


def first_difference(ours: dict[str, Array], port: dict[str, Array]) -> tuple[str, float] | None:
    """The first tensor of the port, in the order of ours, that is another one."""
    for name, x in ours.items():
        if name in port and (error := difference(x, port[name])) > TOLERANCE:
            return name, error
    return None


def explanations(model: ModuleType, p: Tree, ids: Array, config: Any, port: dict[str, Array]) -> list[str]:
    """The mistakes with which every tensor of the port comes out."""
    return [
        told
        for told, changed, changed_config in mistakes(model, p, config)
        if first_difference(taps(model, changed, ids, changed_config), port) is None
    ]


def mistakes(model: ModuleType, p: Tree, config: Any) -> Iterator[tuple[str, Tree, Any]]:
    """Each mistake in words, with the parameters and the configuration that compute it."""
    for eps in (1e-5, 1e-6, 1e-8, 1e-12):
        if eps != config.eps:
            yield f"eps {eps:g} in the norms, {config.eps:g} is right", p, replace(config, eps=eps)
    for activation in ("silu", "gelu_erf", "gelu_tanh", "relu"):
        if activation != config.activation and not (model is gpt and activation == "silu"):
            told = f"the activation {activation}, {config.activation} is right"
            yield told, p, replace(config, activation=activation)
    if not config.tied:
        yield "the output layer is the embedding, it has weights of its own", {**p, "head": p["token"].T}, config
    yield from _of_gpt(p, config) if model is gpt else _of_llama(p, config)


def _of_gpt(p: Tree, config: Any) -> Iterator[tuple[str, Tree, Any]]:
    xp = namespace(p["token"])
    for offset in (1, 2):
        rolled = xp.concatenate([p["position"][offset:], p["position"][:offset]])
        yield f"positions begin at {offset}, 0 is right", {**p, "position": rolled}, config
    undivided = _queries(p, config, math.sqrt(config.width // config.heads))
    yield "the scores are not divided by the root of a head's width", undivided, config


def _queries(p: Tree, config: Any, factor: float) -> Tree:
    layers = []
    for layer in p["layers"]:
        attention = dict(layer["attention"])
        for name in ("Wqkv", "bqkv"):
            scaled = attention[name].copy()
            scaled[..., : config.width] *= factor
            attention[name] = scaled
        layers.append({**layer, "attention": attention})
    return {**p, "layers": layers}


def _of_llama(p: Tree, config: Any) -> Iterator[tuple[str, Tree, Any]]:
    other = "rotary_interleaved" if config.positions == "rotary" else "rotary"
    yield f"rotary pairs as in {other!r}, {config.positions!r} is right", p, replace(config, positions=other)
    yield "no rotation of queries and keys", p, replace(config, positions="none")
    for base in (10000.0, 500000.0, 1000000.0):
        if base != config.base:
            yield f"the base of the rotation {base:g}, {config.base:g} is right", p, replace(config, base=base)
    if config.scaling != "none":
        yield f"the scaling {config.scaling} of the rotation is left out", p, replace(config, scaling="none")
    if config.windows:
        yield "the sliding window is left out", p, replace(config, windows=())
    if config.kv_heads not in (1, config.heads):
        tiled = replace(config, kv_heads=config.heads)
        yield "query head h reads key head h mod G, h G // H is right", _tiled(p, config), tiled
    for name, what in (("score_cap", "the cap of the scores"), ("logit_cap", "the cap of the logits")):
        if getattr(config, name):
            yield f"{what} is left out", p, replace(config, **{name: 0.0})
    if config.score_width:
        yield "the scores are divided by the root of a head's width", p, replace(config, score_width=0.0)
    if config.scaled_embedding:
        yield "the embedding is not multiplied by the root of the width", p, replace(config, scaled_embedding=False)
    yield "the scores are not divided by the root of a head's width", p, replace(config, score_width=1.0)


def _tiled(p: Tree, config: Any) -> Tree:
    """Keys and values of a head each, in the order of heads that are repeated one after the other."""
    xp, D = namespace(p["token"]), config.head_width
    order = xp.concatenate([xp.arange(D) + D * (h % config.kv_heads) for h in range(config.heads)])
    layers = []
    for layer in p["layers"]:
        attention = {
            name: x[..., order] if name in ("Wk", "Wv", "bk", "bv") else x for name, x in layer["attention"].items()
        }
        layers.append({**layer, "attention": attention})
    return {**p, "layers": layers}
