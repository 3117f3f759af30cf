"""The names of GPT-2's tensors. Its maps are stored (in, out) as ours are, and queries, keys and values are one
tensor.

Source: Radford et al. 2019, code; the layout is that of transformers (modeling_gpt2.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refllm.errors import UserError
from refllm.models import gpt
from refllm.pretrained.fields import Fields
from refllm.pretrained.naming import Architecture, Entry, Shaped


def config(fields: Fields, tensors: Mapping[str, Shaped]) -> gpt.Config:
    fields.require("scale_attn_weights", (True,), True)
    fields.require("scale_attn_by_inverse_layer_idx", (False,), False)
    fields.require("add_cross_attention", (False,), False)
    width = fields.whole("n_embd", 768)
    return gpt.Config(
        vocabulary=fields.whole("vocab_size", 50257), context=fields.whole("n_positions", 1024),
        layers=fields.whole("n_layer", 12), heads=fields.whole("n_head", 12), width=width,
        hidden=fields.whole("n_inner", 4 * width), activation=fields.activation("activation_function", "gelu_new"),
        eps=fields.positive("layer_norm_epsilon", 1e-5), tied=fields.flag("tie_word_embeddings", True),
    )  # fmt: skip


def table(config: gpt.Config) -> list[Entry]:
    entries = [Entry("token", ("wte.weight",)), Entry("position", ("wpe.weight",))]
    for i in range(config.layers):
        ours, theirs = f"layers.{i}", f"h.{i}"
        for norm, name in (("norm1", "ln_1"), ("norm2", "ln_2")):
            entries += _norm(f"{ours}.{norm}", f"{theirs}.{name}")
        for path, name in (
            ("attention.{}qkv", "attn.c_attn"),
            ("attention.{}o", "attn.c_proj"),
            ("feed_forward.{}1", "mlp.c_fc"),
            ("feed_forward.{}2", "mlp.c_proj"),
        ):
            entries.append(Entry(f"{ours}.{path.format('W')}", (f"{theirs}.{name}.weight",)))
            entries.append(Entry(f"{ours}.{path.format('b')}", (f"{theirs}.{name}.bias",)))
    entries += _norm("norm", "ln_f")
    return entries if config.tied else [*entries, Entry("head", ("lm_head.weight",), transposed=True)]


def _norm(path: str, name: str) -> list[Entry]:
    return [Entry(f"{path}.g", (f"{name}.weight",)), Entry(f"{path}.b", (f"{name}.bias",))]


def written(config: gpt.Config) -> dict[str, Any]:
    """UserError for a form that GPT-2 has not."""
    if config.norm != "pre" or config.positions != "learned":
        raise UserError(
            f"a GPT with norm {config.norm!r} and positions {config.positions!r} has no published form; it cannot be "
            "exported"
        )
    names = {"gelu_tanh": "gelu_new", "gelu_erf": "gelu", "relu": "relu"}
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": config.vocabulary,
        "n_positions": config.context, "n_layer": config.layers, "n_head": config.heads, "n_embd": config.width,
        "n_inner": config.hidden, "activation_function": names[config.activation], "layer_norm_epsilon": config.eps,
        "tie_word_embeddings": config.tied, "attn_pdrop": 0.0, "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


GPT2 = Architecture(
    model="gpt", classes=("GPT2LMHeadModel", "GPT2Model"), prefix="transformer.", config=config, table=table,
    written=written, outer=r"lm_head\.", ignored=r"h\.\d+\.attn\.(masked_)?bias",
    aliases=lambda config: {"lm_head.weight": "wte.weight"} if config.tied else {},
)  # fmt: skip
