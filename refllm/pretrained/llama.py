"""The Llama family: Llama 2 and 3, SmolLM, TinyLlama, Mistral, Qwen 2 and 3, Gemma and Gemma 2.

Maps are stored (out, in).

Source: the layout is that of transformers (modeling_llama.py and those of the other models).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from refllm.errors import UserError
from refllm.models import llama
from refllm.models.rotary_scaling import yarn_scale
from refllm.pretrained.fields import ABSURD, Fields
from refllm.pretrained.naming import Architecture, Entry, Shaped

MAPS = {
    "attention.{}q": "self_attn.q_proj", "attention.{}k": "self_attn.k_proj", "attention.{}v": "self_attn.v_proj",
    "attention.{}o": "self_attn.o_proj",
}  # fmt: skip
GATED = {"Wg": "gate_proj", "W1": "up_proj", "W2": "down_proj"}


def llama_config(fields: Fields, tensors: Mapping[str, Shaped]) -> llama.Config:
    return llama.Config(
        **_sizes(fields), biases="qkvo" if fields.flag("attention_bias", False) else "none",
        feed_forward_biases=fields.flag("mlp_bias", False),
    )  # fmt: skip


def mistral_config(fields: Fields, tensors: Mapping[str, Shaped]) -> llama.Config:
    window = fields.whole("sliding_window", 0, least=0)
    return llama.Config(**_sizes(fields), windows=(window,) * fields.whole("num_hidden_layers", 32) if window else ())


def qwen2_config(fields: Fields, tensors: Mapping[str, Shaped]) -> llama.Config:
    return llama.Config(**_sizes(fields), biases="qkv", windows=_qwen_windows(fields))


def qwen3_config(fields: Fields, tensors: Mapping[str, Shaped]) -> llama.Config:
    biases = "qkvo" if fields.flag("attention_bias", False) else "none"
    sizes = {**_sizes(fields), "head_width": fields.whole("head_dim", 128)}
    return llama.Config(**sizes, biases=biases, query_key_norm=True, windows=_qwen_windows(fields))


def gemma_config(fields: Fields, tensors: Mapping[str, Shaped]) -> llama.Config:
    return llama.Config(**_gemma(fields))


def gemma2_config(fields: Fields, tensors: Mapping[str, Shaped]) -> llama.Config:
    layers, window = fields.whole("num_hidden_layers", 26), fields.whole("sliding_window", 4096)
    kinds = ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(_few(layers))]
    return llama.Config(
        **_gemma(fields), norms_after=True, score_width=fields.positive("query_pre_attn_scalar", 256.0),
        score_cap=_cap(fields, "attn_logit_softcapping"), logit_cap=_cap(fields, "final_logit_softcapping"),
        windows=_windows(fields, kinds, window),
    )  # fmt: skip


def _cap(fields: Fields, name: str) -> float:
    """A cap that a configuration says is null is none, which is not one that it does not say."""
    return 0.0 if name in fields.values and fields.values[name] is None else fields.number(name, 0.0)


def _gemma(fields: Fields) -> dict[str, Any]:
    fields.require("use_bidirectional_attention", (None, False), None)
    sizes = {**_sizes(fields, tied=True), "head_width": fields.whole("head_dim", 256)}
    return {
        **sizes, "activation": _gemma_activation(fields), "offset_norms": True,
        "scaled_embedding": True, "biases": "qkvo" if fields.flag("attention_bias", False) else "none",
    }  # fmt: skip


def _gemma_activation(fields: Fields) -> str:
    """ "gelu" in the field of the other models was a mistake of the first release, which meant the other form."""
    if fields.values.get("hidden_activation") is not None:
        return fields.activation("hidden_activation", "")
    found = fields.activation("hidden_act", "gelu_pytorch_tanh")
    return "gelu_tanh" if found == "gelu_erf" else found


def _few(layers: int) -> int:
    if layers > 1 << 16:
        raise UserError(f"num_hidden_layers {layers:,} is more than any model has; get the config.json again")
    return layers


def _qwen_windows(fields: Fields) -> tuple[int, ...]:
    layers = _few(fields.whole("num_hidden_layers", 32))
    if not fields.flag("use_sliding_window", False):
        return _windows(fields, ["full_attention"] * layers, 0)
    first = fields.whole("max_window_layers", 28, least=0)
    kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    return _windows(fields, kinds, fields.whole("sliding_window", 4096))


def _windows(fields: Fields, usual: list[str], window: int) -> tuple[int, ...]:
    kinds = fields.words("layer_types") or usual
    if len(kinds) != len(usual) or set(kinds) - {"sliding_attention", "full_attention"}:
        raise UserError(
            f"{fields.path}: layer_types must name full_attention or sliding_attention for each of {len(usual)} layers"
        )
    found = tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
    return found if any(found) else ()


def _sizes(fields: Fields, *, tied: bool = False) -> dict[str, Any]:
    fields.require("rope_interleaved", (False, None), None)
    heads, width = fields.whole("num_attention_heads", 32), fields.whole("hidden_size", 4096)
    return {
        "vocabulary": fields.whole("vocab_size", 32000), "context": fields.whole("max_position_embeddings", 2048),
        "layers": _few(fields.whole("num_hidden_layers", 32)), "heads": heads, "width": width,
        "hidden": fields.whole("intermediate_size", 11008),
        "kv_heads": fields.whole("num_key_value_heads", heads), "head_width": fields.whole("head_dim", width // heads),
        "eps": fields.positive("rms_norm_eps", 1e-6), "tied": fields.flag("tie_word_embeddings", tied),
        "activation": fields.activation("hidden_act", "silu"), **_rotation(fields),
    }  # fmt: skip


def _rotation(fields: Fields) -> dict[str, Any]:
    """Of `rope_parameters`, or of `rope_theta` and `rope_scaling` as configurations had it before."""
    fields.require("partial_rotary_factor", (1, None), None)
    inner = fields.inner("rope_parameters") or fields.inner("rope_scaling")
    if inner is None:
        return {"base": fields.positive("rope_theta", 10000.0)}
    inner.require("partial_rotary_factor", (1, None), None)
    base = inner.positive("rope_theta", fields.positive("rope_theta", 10000.0))
    kind = inner.values.get("rope_type") or inner.values.get("type") or "default"
    if kind == "default":
        return {"base": base}
    if kind == "linear":
        return {"base": base, "scaling": "linear", "scaling_factor": inner.positive("factor")}
    if kind == "llama3":
        return {
            "base": base, "scaling": "llama3", "scaling_factor": inner.positive("factor"),
            "scaling_original": inner.whole("original_max_position_embeddings"),
            "scaling_low": inner.positive("low_freq_factor"), "scaling_high": inner.positive("high_freq_factor"),
        }  # fmt: skip
    context = fields.whole("max_position_embeddings", 2048)
    if kind == "dynamic":
        return {
            "base": base, "scaling": "dynamic", "scaling_factor": inner.positive("factor"), "scaling_original": context,
            "context": min(int(context * max(1.0, min(inner.positive("factor"), llama.MOST_FACTOR))), ABSURD - 1),
        }  # fmt: skip
    if kind == "yarn":
        return {"base": base, **_yarn(inner, context)}
    known = "default, linear, dynamic, yarn and llama3 are"
    raise UserError(f"{inner.path}: rope_type {str(kind)[:40]!r} is not supported; {known}")


def _yarn(inner: Fields, context: int) -> dict[str, Any]:
    original = inner.whole("original_max_position_embeddings", context)
    factor = inner.positive("factor", context / original)
    mscale, of_all = (inner.number(name, 0.0) for name in ("mscale", "mscale_all_dim"))
    if min(mscale, of_all) < 0:
        raise UserError(f"{inner.path}: mscale and mscale_all_dim must not be negative, got {mscale} and {of_all}")
    scale = yarn_scale(factor, mscale) / yarn_scale(factor, of_all) if mscale and of_all else yarn_scale(factor)
    return {
        "scaling": "yarn", "scaling_factor": factor, "scaling_original": original,
        "scaling_low": inner.number("beta_slow", 1.0) or 1.0, "scaling_high": inner.number("beta_fast", 32.0) or 32.0,
        "scaling_scale": inner.positive("attention_factor", scale), "scaling_rounded": inner.flag("truncate", True),
    }  # fmt: skip


def table(config: llama.Config) -> list[Entry]:
    gain = "offset" if config.offset_norms else "g"
    entries = [Entry("token", ("embed_tokens.weight",))]
    for i in range(config.layers):
        ours, theirs = f"layers.{i}", f"layers.{i}"
        for path, name in MAPS.items():
            entries.append(Entry(f"{ours}.{path.format('W')}", (f"{theirs}.{name}.weight",), transposed=True))
            if path[-1] in config.biases and config.biases != "none":
                entries.append(Entry(f"{ours}.{path.format('b')}", (f"{theirs}.{name}.bias",)))
        for path, name in GATED.items():
            entries.append(Entry(f"{ours}.feed_forward.{path}", (f"{theirs}.mlp.{name}.weight",), transposed=True))
            if config.feed_forward_biases:
                entries.append(Entry(f"{ours}.feed_forward.b{path[1:]}", (f"{theirs}.mlp.{name}.bias",)))
        if config.query_key_norm:
            entries.append(Entry(f"{ours}.attention.query_norm.g", (f"{theirs}.self_attn.q_norm.weight",)))
            entries.append(Entry(f"{ours}.attention.key_norm.g", (f"{theirs}.self_attn.k_norm.weight",)))
        for path, name in _norms(config).items():
            entries.append(Entry(f"{ours}.{path}.{gain}", (f"{theirs}.{name}.weight",)))
    entries.append(Entry(f"norm.{gain}", ("norm.weight",)))
    return entries if config.tied else [*entries, Entry("head", ("lm_head.weight",), transposed=True)]


def _norms(config: llama.Config) -> dict[str, str]:
    if not config.norms_after:
        return {"norm1": "input_layernorm", "norm2": "post_attention_layernorm"}
    return {
        "norm1": "input_layernorm", "norm1_after": "post_attention_layernorm", "norm2": "pre_feedforward_layernorm",
        "norm2_after": "post_feedforward_layernorm",
    }  # fmt: skip


def written(config: llama.Config) -> dict[str, Any]:
    """The configuration of the class that has the forms of ours. UserError where none has them."""
    rotation: dict[str, Any] = {"rope_theta": config.base, "rope_type": "default"}
    if config.scaling != "none":
        rotation |= {"rope_type": config.scaling, "factor": config.scaling_factor}
    if config.scaling == "yarn":
        rotation |= {
            "original_max_position_embeddings": config.scaling_original, "beta_slow": config.scaling_low,
            "beta_fast": config.scaling_high, "attention_factor": config.scaling_scale,
            "truncate": config.scaling_rounded,
        }  # fmt: skip
    if config.scaling == "llama3":
        rotation |= {
            "original_max_position_embeddings": config.scaling_original, "low_freq_factor": config.scaling_low,
            "high_freq_factor": config.scaling_high,
        }  # fmt: skip
    activations = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh", "gelu_erf": "gelu", "relu": "relu"}
    context = config.scaling_original if config.scaling == "dynamic" else config.context
    sizes = {
        "vocab_size": config.vocabulary,
        "max_position_embeddings": context, "hidden_size": config.width,
        "num_hidden_layers": config.layers, "num_attention_heads": config.heads, "intermediate_size": config.hidden,
        "num_key_value_heads": config.kv_heads, "head_dim": config.head_width, "rms_norm_eps": config.eps,
        "tie_word_embeddings": config.tied, "hidden_act": activations[config.activation], "rope_parameters": rotation,
        "attention_bias": config.biases == "qkvo", "attention_dropout": 0.0,
    }  # fmt: skip
    return _class_of(config) | sizes


def _whole(number: float) -> float | int:
    """A whole number as one: the published configurations take no other there."""
    return int(number) if number == int(number) else number


def _class_of(config: llama.Config) -> dict[str, Any]:
    windows = {window for window in config.windows if window}
    kinds = ["sliding_attention" if window else "full_attention" for window in config.windows]
    plain = not config.query_key_norm and not config.offset_norms and config.positions == "rotary"
    if config.positions == "rotary" and config.offset_norms:
        name = "Gemma2" if config.norms_after else "Gemma"
        more: dict[str, Any] = {"hidden_activation": "gelu_pytorch_tanh"}
        if config.norms_after:
            more |= {
                "query_pre_attn_scalar": _whole(config.score_width or config.head_width),
                "attn_logit_softcapping": config.score_cap or None, "final_logit_softcapping": config.logit_cap or None,
                "sliding_window": max(windows, default=4096),
                "layer_types": kinds or ["full_attention"] * config.layers,
            }  # fmt: skip
    elif config.positions == "rotary" and (config.query_key_norm or config.biases == "qkv"):
        name = "Qwen3" if config.query_key_norm else "Qwen2"
        more = {"use_sliding_window": bool(windows), "sliding_window": max(windows, default=None)}
        more |= {"layer_types": kinds} if windows else {}
    elif plain and windows:
        name, more = "Mistral", {"sliding_window": max(windows)}
    elif plain:
        name, more = "Llama", {"mlp_bias": config.feed_forward_biases}
    else:
        raise UserError(f"a model with positions {config.positions!r} has no published form; it cannot be exported")
    if config.feed_forward_biases and name != "Llama":
        raise UserError(f"feed-forward biases have no published form in {name}; it cannot be exported")
    if len(windows) > 1:
        raise UserError("a model with windows of several widths has no published form; it cannot be exported")
    return {"architectures": [f"{name}ForCausalLM"], "model_type": name.lower(), **more}


def _with_its_head(config: Any, fields: Fields, tensors: Mapping[str, Shaped]) -> llama.Config:
    """The configuration; of files without an output layer, as those of LlamaModel are, one that has none of its own."""
    found: llama.Config = config(fields, tensors)
    bare = all(name.endswith("Model") for name in fields.words("architectures") or ["ForCausalLM"])
    return replace(found, tied=True) if bare and "lm_head.weight" not in tensors else found


def _architecture(name: str, config: Any) -> Architecture:
    return Architecture(
        model="llama", classes=(f"{name}ForCausalLM", f"{name}Model"), prefix="model.",
        config=partial(_with_its_head, config), table=table,
        written=written, outer=r"lm_head\.", ignored=r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
        aliases=lambda config: {"lm_head.weight": "embed_tokens.weight"} if config.tied else {},
    )  # fmt: skip


FAMILY = {
    "llama": _architecture("Llama", llama_config), "mistral": _architecture("Mistral", mistral_config),
    "qwen2": _architecture("Qwen2", qwen2_config), "qwen3": _architecture("Qwen3", qwen3_config),
    "gemma": _architecture("Gemma", gemma_config), "gemma2": _architecture("Gemma2", gemma2_config),
}  # fmt: skip
