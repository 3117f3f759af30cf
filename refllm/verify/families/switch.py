"""The switch layer and its model, contrastive learning, label smoothing and the L2 penalty as implementations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.backend import Array, namespace
from refllm.blocks.self_attention import self_attention
from refllm.blocks.switch_layer import switch_layer
from refllm.models import switch as model
from refllm.ops import contrastive, penalty, routing
from refllm.ops.cross_entropy import smoothed_cross_entropy
from refllm.ops.embedding import embedding
from refllm.ops.layer_norm import layer_norm
from refllm.ops.linear import matmul
from refllm.ops.position import add_positions
from refllm.parameters import Tree
from refllm.verify import language, taps
from refllm.verify.case import Case


def functions() -> dict[str, Callable[..., Any]]:
    own: tuple[Any, ...] = (
        routing.gate, routing.load_balance, routing.dispatch, routing.combine, routing.expert_matmul,
        routing.expert_linear, contrastive.mean_pool, contrastive.info_nce, penalty.l2_penalty, smoothed_cross_entropy,
        switch_layer,
    )  # fmt: skip
    found = {function.__name__: function for function in own}
    return {**found, "switch": language.logits(model, _in_use), "switch_loss": language.loss(model, _in_training)}


def stages(case: Case, arguments: Tree, keywords: dict[str, Any]) -> list[taps.Stage]:
    """From the embedding to the logits; in training experts drop tokens."""
    if case.operation == "switch":
        return _in_use(arguments["p"], ids=keywords["ids"], config=keywords["config"])
    if case.operation == "switch_loss" or (case.operation, keywords.get("model")) == ("train_step", "switch"):
        return _in_training(arguments["p"], ids=keywords["ids"], config=keywords["config"])
    return []


def _in_use(p: Tree, *, ids: Array, config: dict[str, Any]) -> list[taps.Stage]:
    return _stages(p, ids=ids, config=config, capacity=ids.shape[-1])


def _in_training(p: Tree, *, ids: Array, config: dict[str, Any]) -> list[taps.Stage]:
    capacity = model.capacity(ids.shape[-1], model.Config(**config))
    return _stages(p, ids=ids, config=config, capacity=capacity)


def _stages(p: Tree, *, ids: Array, config: dict[str, Any], capacity: int) -> list[taps.Stage]:
    def embed() -> Array:
        places = namespace(ids).arange(ids.shape[-1])
        return add_positions(embedding(p["token"], ids=ids)[0], p["position"], positions=places)[0]

    same = {name: config[name] for name in ("heads", "activation", "eps")}
    found = [taps.Stage("embedding", (), embed)]
    for i, layer in enumerate(p["layers"]):
        before, prefix = found[-1].name, f"layers.{i}."
        if "switch" in layer:
            found += _expert_stages(layer, before, prefix, capacity=capacity, **same)
        else:
            found += taps.layer_stages(layer, before, prefix, norm="pre", causal=True, attention_mask=None, **same)
    last = found[-1].name
    normed = taps.Stage("norm", (last,), lambda z: layer_norm(z, **p["norm"], eps=config["eps"])[0])
    return [*found, normed, taps.Stage("logits", ("norm",), lambda z: matmul(z, p["token"].T)[0])]


def _expert_stages(
    p: Tree, x: str, prefix: str, *, heads: int, activation: str, eps: float, capacity: int
) -> list[taps.Stage]:
    """Those of a Transformer layer with experts in the place of its feed-forward layer."""

    def norm1(z: Array) -> Array:
        return layer_norm(z, **p["norm1"], eps=eps)[0]

    def norm2(z: Array) -> Array:
        return layer_norm(z, **p["norm2"], eps=eps)[0]

    def attended(z: Array) -> Array:
        return self_attention(z, p["attention"], heads=heads, causal=True, attention_mask=None, cache=None)[0]

    def switched(z: Array) -> Array:
        return switch_layer(z, p["switch"], activation=activation, capacity=capacity, token_mask=None)[0][0]

    return taps.pre_norm_stages(x, prefix, ("attention", norm1, attended), ("switch", norm2, switched))
