"""Versions 1.0 and 1.1 of T5, and the published Switch Transformers, which are a T5 with experts in some layers.

Source: Raffel et al. 2020 (arXiv:1910.10683) and Fedus et al. 2021 (arXiv:2101.03961), code; the layout is that of
transformers (modeling_t5.py, modeling_switch_transformers.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from refllm.errors import UserError
from refllm.models import encoder_decoder
from refllm.pretrained.fields import ACTIVATIONS, Fields
from refllm.pretrained.naming import Architecture, Entry, Shaped


def t5_config(fields: Fields, tensors: Mapping[str, Shaped]) -> encoder_decoder.Config:
    """Whether the hidden states are scaled before the head, version 1.0 says by tying it, and newer files by itself."""
    projection = fields.values.get("feed_forward_proj", "relu")
    gate, _, kind = str(projection).rpartition("-")
    if gate not in ("", "gated") or kind not in ACTIVATIONS:
        raise UserError(
            f"{fields.path}: feed_forward_proj {str(projection)[:40]!r} is not supported; relu and gated-gelu are"
        )
    kind = "gelu_new" if projection == "gated-gelu" else kind
    scaled = fields.flag("scale_decoder_outputs", fields.flag("tie_word_embeddings", True))
    return encoder_decoder.Config(
        **_sizes(fields), activation=ACTIVATIONS[kind], gated=gate == "gated", scaled_output=scaled,
        tied=scaled or "lm_head.weight" not in tensors,
    )  # fmt: skip


def switch_config(fields: Fields, tensors: Mapping[str, Shaped]) -> encoder_decoder.Config:
    fields.require("router_bias", (False,), False)
    tied, sizes = fields.flag("tie_word_embeddings", True), _sizes(fields)
    steps: dict[str, Any] = {
        "encoder_every": _step(fields, "num_sparse_encoder_layers", "encoder_sparse_step", sizes["encoder_layers"]),
        "decoder_every": _step(fields, "num_sparse_decoder_layers", "decoder_sparse_step", sizes["decoder_layers"]),
    }
    return encoder_decoder.Config(
        **sizes, **steps, experts=fields.whole("num_experts", 8), capacity=fields.whole("expert_capacity", 64),
        activation=fields.activation("dense_act_fn", "relu"), scaled_output=tied, tied=tied,
    )  # fmt: skip


def _step(fields: Fields, sparse: str, step: str, layers: int) -> int:
    """As the published code has it: of a number of sparse layers, or as many layers as there are for none."""
    number = fields.whole(sparse, 3, least=0)
    return fields.whole(step, layers // number if number else layers, least=0)


def _sizes(fields: Fields) -> dict[str, Any]:
    layers = fields.whole("num_layers", 6)
    return {
        "vocabulary": fields.whole("vocab_size", 32128), "context": fields.whole("n_positions", 512),
        "encoder_layers": layers, "decoder_layers": fields.whole("num_decoder_layers", layers),
        "heads": fields.whole("num_heads", 8), "head_width": fields.whole("d_kv", 64),
        "width": fields.whole("d_model", 512), "hidden": fields.whole("d_ff", 2048), "norm": "pre", "rms": True,
        "positions": "relative", "biases": False, "buckets": fields.whole("relative_attention_num_buckets", 32),
        "farthest": fields.whole("relative_attention_max_distance", 128),
        "eps": fields.positive("layer_norm_epsilon", 1e-6),
    }  # fmt: skip


def table(config: encoder_decoder.Config, *, dense: str) -> list[Entry]:
    """`dense` is what a feed-forward layer is called."""
    entries = [Entry("token", ("shared.weight",))]
    for stack, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        first = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        entries.append(Entry(f"{stack}.relative", (first,)))
        for i in range(layers):
            ours, theirs = f"{stack}.layers.{i}", f"{stack}.block.{i}.layer"
            entries += _attention(f"{ours}.attention", f"{theirs}.0.SelfAttention", "qkv")
            if stack == "decoder":
                entries += _attention(f"{ours}.cross_attention", f"{theirs}.1.EncDecAttention", "q", "kv")
            last = 2 if stack == "decoder" else 1
            entries += _feed_forward(f"{ours}.feed_forward", f"{theirs}.{last}.{dense}", stack, i, config)
            entries += [Entry(f"{ours}.norm{k + 1}.g", (f"{theirs}.{k}.layer_norm.weight",)) for k in range(last + 1)]
        entries.append(Entry(f"{stack}.norm.g", (f"{stack}.final_layer_norm.weight",)))
    return entries if config.tied else [*entries, Entry("head", ("lm_head.weight",), transposed=True)]


def _attention(path: str, name: str, *parts: str) -> list[Entry]:
    return [
        Entry(f"{path}.W{part}", tuple(f"{name}.{letter}.weight" for letter in part), transposed=True)
        for part in (*parts, "o")
    ]


def _feed_forward(path: str, name: str, stack: str, layer: int, config: encoder_decoder.Config) -> list[Entry]:
    if encoder_decoder.has_experts(stack, layer, config):
        experts = [f"{name}.experts.expert_{e}" for e in range(config.experts)]
        return [
            Entry(f"{path}.Wr", (f"{name}.router.classifier.weight",), transposed=True),
            Entry(f"{path}.W1", tuple(f"{one}.wi.weight" for one in experts), transposed=True, stacked=True),
            Entry(f"{path}.W2", tuple(f"{one}.wo.weight" for one in experts), transposed=True, stacked=True),
        ]
    names = {"Wg": "wi_0", "W1": "wi_1", "W2": "wo"} if config.gated else {"W1": "wi", "W2": "wo"}
    return [Entry(f"{path}.{ours}", (f"{name}.{theirs}.weight",), transposed=True) for ours, theirs in names.items()]


def aliases(config: encoder_decoder.Config) -> dict[str, str]:
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", *(["lm_head.weight"] if config.tied else [])]
    return dict.fromkeys(names, "shared.weight")


def written(config: encoder_decoder.Config) -> dict[str, Any]:
    """UserError for a form that neither T5 nor Switch has."""
    if config.positions != "relative" or not config.rms or config.biases or config.norm != "pre":
        raise UserError("this encoder-decoder has the form of neither T5 nor BART; it cannot be exported")
    activations = {"relu": "relu", "gelu_tanh": "gelu_new", "gelu_erf": "gelu", "silu": "silu"}
    act = activations[config.activation]
    projection = ("gated-gelu" if act == "gelu_new" else f"gated-{act}") if config.gated else act
    sizes = {
        "vocab_size": config.vocabulary, "n_positions": config.context, "num_layers": config.encoder_layers,
        "num_decoder_layers": config.decoder_layers, "num_heads": config.heads, "d_kv": config.head_width,
        "d_model": config.width, "d_ff": config.hidden, "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.farthest, "layer_norm_epsilon": config.eps,
        "dropout_rate": config.dropout, "tie_word_embeddings": config.tied, "is_encoder_decoder": True,
    }  # fmt: skip
    if not config.experts:
        return {
            "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", **sizes,
            "feed_forward_proj": projection, "scale_decoder_outputs": config.scaled_output,
            "tie_word_embeddings": config.scaled_output,  # what says of a T5 that it is version 1.0
        }  # fmt: skip
    return {
        "architectures": ["SwitchTransformersForConditionalGeneration"], "model_type": "switch_transformers", **sizes,
        "dense_act_fn": act, "num_experts": config.experts, "expert_capacity": config.capacity,
        "encoder_sparse_step": config.encoder_every, "decoder_sparse_step": config.decoder_every,
    }  # fmt: skip


T5 = Architecture(
    model="encoder_decoder", classes=("T5ForConditionalGeneration", "T5Model"), prefix="", config=t5_config,
    table=partial(table, dense="DenseReluDense"), written=written, aliases=aliases,
    ignored=r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
)  # fmt: skip
SWITCH = Architecture(
    model="encoder_decoder", classes=("SwitchTransformersForConditionalGeneration", "SwitchTransformersModel"),
    prefix="", config=switch_config, table=partial(table, dense="mlp"), written=written, aliases=aliases,
)  # fmt: skip
