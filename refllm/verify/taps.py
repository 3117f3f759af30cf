"""Where an error begins: the intermediate values of a model, one stage after the other.

A stage says which earlier values it is computed from. Run from the beginning, the stages give refllm's own taps; run
each on the values that an implementation gave for the stages before it, they tell a local error (the stage itself is
wrong) from an inherited one (it is right, and was given something wrong).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy

from refllm.backend import Array, namespace
from refllm.blocks.feed_forward import feed_forward
from refllm.blocks.self_attention import self_attention
from refllm.models import gpt
from refllm.ops.embedding import embedding
from refllm.ops.layer_norm import layer_norm
from refllm.ops.linear import matmul
from refllm.ops.position import add_positions, sinusoidal
from refllm.parameters import Tree
from refllm.verify import families
from refllm.verify.case import Case, Truth
from refllm.verify.keywords import from_golden
from refllm.verify.tolerance import ratios


@dataclass(frozen=True)
class Stage:
    """The value `name`, computed from the values `takes`."""

    name: str
    takes: tuple[str, ...]
    compute: Callable[..., Array]


Sublayer: TypeAlias = tuple[str, Callable[[Array], Array], Callable[[Array], Array]]  # its name, its norm, itself


def layer_stages(
    p: Tree, x: str, prefix: str, *, norm: str, heads: int, causal: bool, attention_mask: Array | None, activation: str,
    eps: float,
) -> list[Stage]:  # fmt: skip
    """The six stages of a Transformer layer on the value `x`; the last is its output."""

    def norm1(z: Array) -> Array:
        return layer_norm(z, **p["norm1"], eps=eps)[0]

    def norm2(z: Array) -> Array:
        return layer_norm(z, **p["norm2"], eps=eps)[0]

    def attended(z: Array) -> Array:
        return self_attention(z, p["attention"], heads=heads, causal=causal, attention_mask=attention_mask, cache=None)[
            0
        ]

    def fed(z: Array) -> Array:
        return feed_forward(z, p["feed_forward"], activation=activation)[0]

    sublayers = [("attention", norm1, attended), ("feed_forward", norm2, fed)]
    if norm == "pre":
        return pre_norm_stages(x, prefix, *sublayers)
    stages, before = list[Stage](), x
    for i, (name, normed, f) in enumerate(sublayers, start=1):
        value, after, out = f"{prefix}{name}", f"{prefix}residual{i}", f"{prefix}norm{i}"
        stages += [Stage(value, (before,), f), Stage(after, (before, value), _added), Stage(out, (after,), normed)]
        before = out
    return stages


def pre_norm_stages(x: str, prefix: str, *sublayers: Sublayer) -> list[Stage]:
    """The stages of z + f(norm(z)) for each sublayer, one after the other, the first on the value `x`."""
    stages, before = list[Stage](), x
    for i, (name, norm, f) in enumerate(sublayers, start=1):
        normed, value, after = f"{prefix}norm{i}", f"{prefix}{name}", f"{prefix}residual{i}"
        stages += [Stage(normed, (before,), norm), Stage(value, (normed,), f), Stage(after, (before, value), _added)]
        before = after
    return stages


def _added(z: Array, d: Array) -> Array:
    return z + d


def gpt_stages(p: Tree, *, ids: Array, config: dict[str, Any]) -> list[Stage]:
    """The stages of a GPT, from the embedding to the logits."""

    def embed() -> Array:
        table = p.get("position")
        if table is None:
            places = namespace(p["token"]).arange(config["context"], dtype=p["token"].dtype)
            table = sinusoidal(places, width=config["width"])[0]
        scale = math.sqrt(config["width"]) if config.get("scaled_embedding") else 1.0
        words = embedding(p["token"], ids=ids)[0] * scale
        return add_positions(words, table, positions=namespace(ids).arange(ids.shape[-1]))[0]

    stages = [Stage("embedding", (), embed)]
    same = {name: config[name] for name in ("norm", "heads", "activation", "eps")}
    for i, layer in enumerate(p["layers"]):
        stages += layer_stages(layer, stages[-1].name, f"layers.{i}.", causal=True, attention_mask=None, **same)
    if config["norm"] == "pre":
        stages.append(Stage("norm", (stages[-1].name,), lambda z: layer_norm(z, **p["norm"], eps=config["eps"])[0]))
    head = gpt.head(p, gpt.Config(**config))
    return [*stages, Stage("logits", (stages[-1].name,), lambda z: matmul(z, head)[0])]


def values(stages: list[Stage], given: Mapping[str, Array]) -> dict[str, Array]:
    """Every stage's value from the beginning, but for what is given."""
    found = dict(given)
    for stage in stages:
        found[stage.name] = stage.compute(*(found[name] for name in stage.takes))
    return found


def stages_of(case: Case, dtype: str) -> tuple[list[Stage], dict[str, Array]]:
    """The stages of a case, in float64 if asked so, and the values that they begin with; none if it has no stages."""
    arguments = dict(zip(case.order, case.arguments(dtype), strict=True))
    keywords = from_golden(case.keyword_arguments())
    if case.operation == "transformer_layer":
        return layer_stages(arguments["p"], "x", "", **keywords), {"x": arguments["x"]}
    if case.operation in ("gpt", "gpt_loss", "train_step") and keywords.get("model", "gpt") == "gpt":
        return gpt_stages(arguments["p"], ids=keywords["ids"], config=keywords["config"]), {}
    for family in families.modules():
        found: list[Stage] = family.stages(case, arguments, keywords) if hasattr(family, "stages") else []
        if found:
            return found, {name: x for name, x in arguments.items() if isinstance(x, numpy.ndarray)}
    return [], {}


def located(case: Case, taps: Mapping[str, Array], wrong: list[str], dtype: str, C: float) -> str | None:
    """One line on the first wrong tap: whether its error is local or inherited. None if no tap is wrong."""
    if not wrong:
        return None
    first = wrong[0]
    stages, given = stages_of(case, "float64")
    stage = next((stage for stage in stages if stage.name == first), None)
    later = f"; {len(wrong) - 1} later taps differ too" if len(wrong) > 1 else "; no later tap differs"
    before = [name for name in case.taps if name in taps]
    before = before[: before.index(first)]
    reached = f"everything before it agrees, up to {before[-1]}" if before else "it is the first there is"
    if stage is None:
        return f"{first} is the first tap that differs: {reached}{later}"
    sources = {name: taps.get(name, given.get(name)) for name in stage.takes}
    missing = [name for name, x in sources.items() if x is None]
    if missing:
        return f"{first} is the first tap that differs, without {missing[0]} local or inherited is not known{later}"
    own = stage.compute(*(numpy.asarray(x, "float64") for x in sources.values()))
    expected = Truth(own, case.taps[first].condition)
    local = bool((ratios(taps[first], expected, dtype, C) > 1).any())
    kind = "local: it does not follow from its inputs" if local else "inherited: it follows from its inputs"
    return f"{first} is the first tap that differs ({reached}); the error is {kind}{later}"
