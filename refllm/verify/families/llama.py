"""Llama and longer context as implementations: operations, blocks, the model, and the stages between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.backend import Array, namespace
from refllm.blocks.gated_feed_forward import gated_feed_forward
from refllm.blocks.grouped_attention import ROTATIONS, grouped_attention
from refllm.blocks.llama_layer import llama_layer
from refllm.models import llama as model
from refllm.ops import activation, attention, multiply, relative, repeat_heads, rms_norm, rotary
from refllm.ops.embedding import embedding
from refllm.ops.linear import matmul
from refllm.parameters import Tree
from refllm.verify import language, taps
from refllm.verify.case import Case

Pullback = Callable[[Array], Any]


def functions() -> dict[str, Callable[..., Any]]:
    own: tuple[Any, ...] = (
        rms_norm.rms_norm, activation.silu, multiply.multiply, rotary.rotary_halves, rotary.rotary_interleaved,
        repeat_heads.repeat_heads, relative.t5_bias_causal, relative.t5_bias_bidirectional, relative.alibi,
        attention.biased_attention, gated_feed_forward,
    )  # fmt: skip
    found = {function.__name__: function for function in own}
    whole = {"llama": language.logits(model, _model_stages), "llama_loss": language.loss(model, _model_stages)}
    return {**found, "grouped_attention": grouped, "llama_layer": layer, **whole}


def grouped(x: Array, p: Tree, **how: Any) -> tuple[Array, Pullback]:
    """Without a bias by distance, which the models have."""
    y, back = grouped_attention(x, None, p, **how, cache=None)

    def without_bias(dy: Array) -> tuple[Array, Tree]:
        dx, _, dp = back(dy)
        return dx, dp

    return y, without_bias


def layer(x: Array, p: Tree, **how: Any) -> tuple[Array, Pullback, dict[str, Array]]:
    y, back = llama_layer(x, None, p, **how, dropout_mask=None, rate=0.0, cache=None)

    def without_bias(dy: Array) -> tuple[Array, Tree]:
        dx, _, dp = back(dy)
        return dx, dp

    return y, without_bias, taps.values(_layer_stages(p, "x", "", r=None, **how), {"x": x})


def stages(case: Case, arguments: Tree, keywords: dict[str, Any]) -> list[taps.Stage]:
    """Those of a layer, or of the model."""
    if case.operation == "llama_layer":
        return _layer_stages(arguments["p"], "x", "", r=None, **keywords)
    of_step = (case.operation, keywords.get("model")) == ("train_step", "llama")
    if case.operation in ("llama", "llama_loss") or of_step:
        return _model_stages(arguments["p"], ids=keywords["ids"], config=keywords["config"])
    return []


def _layer_stages(p: Tree, x: str, prefix: str, *, r: Array | None, eps: float, **how: Any) -> list[taps.Stage]:
    def norm1(z: Array) -> Array:
        return rms_norm.rms_norm(z, p["norm1"]["g"], eps=eps)[0]

    def norm2(z: Array) -> Array:
        return rms_norm.rms_norm(z, p["norm2"]["g"], eps=eps)[0]

    def attended(z: Array) -> Array:
        y: Array = grouped_attention(z, r, p["attention"], **{"causal": True, **how}, cache=None)[0]
        return y

    def fed(z: Array) -> Array:
        return gated_feed_forward(z, p["feed_forward"], activation="silu")[0]

    return taps.pre_norm_stages(x, prefix, ("attention", norm1, attended), ("feed_forward", norm2, fed))


def _model_stages(p: Tree, *, ids: Array, config: dict[str, Any]) -> list[taps.Stage]:
    chosen = model.Config(**config)
    T = ids.shape[-1]
    found = [taps.Stage("embedding", (), lambda: embedding(p["token"], ids=ids)[0])]
    how = {
        "r": model._bias(p, chosen, queries=T, keys=T)[0], "eps": chosen.eps, "heads": chosen.heads,
        "kv_heads": chosen.kv_heads, "rotation": chosen.positions if chosen.positions in ROTATIONS else None,
        "positions": namespace(ids).arange(T), "base": chosen.base, "attention_mask": None,
    }  # fmt: skip
    for i, each in enumerate(p["layers"]):
        found += _layer_stages(each, found[-1].name, f"layers.{i}.", **how)
    last, head = found[-1].name, model.head(p, chosen)
    normed = taps.Stage("norm", (last,), lambda z: rms_norm.rms_norm(z, p["norm"]["g"], eps=chosen.eps)[0])
    return [*found, normed, taps.Stage("logits", ("norm",), lambda z: matmul(z, head)[0])]
