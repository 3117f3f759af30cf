"""The names of BART's tensors. Its tables of positions begin with two rows that no position uses.

Source: Lewis et al. 2020 (arXiv:1910.13461), code; the layout is that of transformers (modeling_bart.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refllm.errors import UserError
from refllm.models import encoder_decoder
from refllm.pretrained.fields import Fields
from refllm.pretrained.naming import Architecture, Entry, Shaped

UNUSED = 2  # rows of a table of positions


def config(fields: Fields, tensors: Mapping[str, Shaped]) -> encoder_decoder.Config:
    for name, value in (("normalize_before", False), ("add_final_layer_norm", False), ("normalize_embedding", True)):
        fields.require(name, (value,), value)
    heads, width = fields.whole("encoder_attention_heads", 16), fields.whole("d_model", 1024)
    hidden = fields.whole("encoder_ffn_dim", 4096)
    fields.require("decoder_attention_heads", (heads,), heads)
    fields.require("decoder_ffn_dim", (hidden,), hidden)
    if width % heads:
        raise UserError(f"{fields.path}: encoder_attention_heads {heads} does not divide d_model {width}")
    return encoder_decoder.Config(
        vocabulary=fields.whole("vocab_size", 50265), context=fields.whole("max_position_embeddings", 1024),
        encoder_layers=fields.whole("encoder_layers", 12), decoder_layers=fields.whole("decoder_layers", 12),
        heads=heads, head_width=width // heads, width=width, hidden=hidden, positions="learned",
        activation=fields.activation("activation_function", "gelu"), embedding_norm=True,
        scaled_embedding=fields.flag("scale_embedding", False), tied=fields.flag("tie_word_embeddings", True),
    )  # fmt: skip


def table(config: encoder_decoder.Config) -> list[Entry]:
    entries = [Entry("token", ("shared.weight",))]
    for stack, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        entries.append(Entry(f"{stack}.position", (f"{stack}.embed_positions.weight",), skipped=UNUSED))
        entries += _norm(f"{stack}.embedding_norm", f"{stack}.layernorm_embedding")
        for i in range(layers):
            ours = theirs = f"{stack}.layers.{i}"
            norms = ["self_attn_layer_norm", "final_layer_norm"]
            entries += _attention(f"{ours}.attention", f"{theirs}.self_attn", "qkv")
            if stack == "decoder":
                norms.insert(1, "encoder_attn_layer_norm")
                entries += _attention(f"{ours}.cross_attention", f"{theirs}.encoder_attn", "q", "kv")
            entries += _map(f"{ours}.feed_forward", "1", f"{theirs}.fc1") + _map(
                f"{ours}.feed_forward", "2", f"{theirs}.fc2"
            )
            for k, norm in enumerate(norms, start=1):
                entries += _norm(f"{ours}.norm{k}", f"{theirs}.{norm}")
    return entries if config.tied else [*entries, Entry("head", ("lm_head.weight",), transposed=True)]


def _attention(path: str, name: str, *parts: str) -> list[Entry]:
    entries = [one for part in parts for one in _map(path, part, *(f"{name}.{letter}_proj" for letter in part))]
    return entries + _map(path, "o", f"{name}.out_proj")


def _map(path: str, ours: str, *names: str) -> list[Entry]:
    return [
        Entry(f"{path}.W{ours}", tuple(f"{name}.weight" for name in names), transposed=True),
        Entry(f"{path}.b{ours}", tuple(f"{name}.bias" for name in names)),
    ]


def _norm(path: str, name: str) -> list[Entry]:
    return [Entry(f"{path}.g", (f"{name}.weight",)), Entry(f"{path}.b", (f"{name}.bias",))]


def aliases(config: encoder_decoder.Config) -> dict[str, str]:
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", *(["lm_head.weight"] if config.tied else [])]
    return dict.fromkeys(names, "shared.weight")


def written(config: encoder_decoder.Config) -> dict[str, Any]:
    activations = {"gelu_erf": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
    return {
        "architectures": ["BartForConditionalGeneration"], "model_type": "bart", "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context, "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers, "encoder_attention_heads": config.heads,
        "decoder_attention_heads": config.heads, "d_model": config.width, "encoder_ffn_dim": config.hidden,
        "decoder_ffn_dim": config.hidden, "activation_function": activations[config.activation],
        "scale_embedding": config.scaled_embedding, "tie_word_embeddings": config.tied, "dropout": config.dropout,
        "attention_dropout": 0.0, "activation_dropout": 0.0, "is_encoder_decoder": True,
    }  # fmt: skip


BART = Architecture(
    model="encoder_decoder", classes=("BartForConditionalGeneration", "BartModel"), prefix="model.", config=config,
    table=table, written=written, outer=r"(lm_head\.|final_logits_bias)", aliases=aliases,
    zeros=lambda config: {"final_logits_bias": (1, config.vocabulary)},
)  # fmt: skip
