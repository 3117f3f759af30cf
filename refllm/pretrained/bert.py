"""BERT: the encoder, its pooler, and the heads that a file holds. Maps are stored (out, in); q, k and v are three.

Source: Devlin et al. 2019, code; the layout is that of transformers (modeling_bert.py), and of older files, whose norms
have a gamma and a beta.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refllm.errors import UserError
from refllm.models import bert
from refllm.pretrained.fields import Fields
from refllm.pretrained.naming import Architecture, Entry, Shaped

CLASSES = (
    "BertModel", "BertForPreTraining", "BertForMaskedLM", "BertForSequenceClassification", "BertForQuestionAnswering",
    "BertForNextSentencePrediction",
)  # fmt: skip
OF_HEAD = {  # a tensor that tells that a file has the head
    "masked": "cls.predictions.bias", "pair": "cls.seq_relationship.weight", "classes": "classifier.weight",
    "span": "qa_outputs.weight",
}  # fmt: skip


def config(fields: Fields, tensors: Mapping[str, Shaped]) -> bert.Config:
    """The heads are those of the file; how many labels, the head says."""
    fields.require("is_decoder", (False,), False)
    fields.require("add_cross_attention", (False,), False)
    fields.require("position_embedding_type", ("absolute", None), "absolute")
    outputs = tuple(name for name, tensor in OF_HEAD.items() if tensor in tensors)
    if outputs and not fields.flag("tie_word_embeddings", True):
        raise UserError(f"{fields.path}: an output layer that is not tied to the embedding is not supported")
    labels = tensors["classifier.weight"].shape[0] if "classes" in outputs else 2
    return bert.Config(
        vocabulary=fields.whole("vocab_size", 30522), context=fields.whole("max_position_embeddings", 512),
        layers=fields.whole("num_hidden_layers", 12), heads=fields.whole("num_attention_heads", 12),
        width=fields.whole("hidden_size", 768), hidden=fields.whole("intermediate_size", 3072),
        segments=fields.whole("type_vocab_size", 2), activation=fields.activation("hidden_act", "gelu"),
        eps=fields.positive("layer_norm_eps", 1e-12), outputs=outputs, labels=labels,
        pooler="pooler.dense.weight" in tensors, dropout=fields.number("hidden_dropout_prob", 0.1),
    )  # fmt: skip


def table(config: bert.Config) -> list[Entry]:
    entries = [
        Entry("token", ("embeddings.word_embeddings.weight",)),
        Entry("position", ("embeddings.position_embeddings.weight",)),
        Entry("segment", ("embeddings.token_type_embeddings.weight",)),
        *_norm("norm", "embeddings.LayerNorm"),
    ]
    for i in range(config.layers):
        ours, theirs = f"layers.{i}", f"encoder.layer.{i}"
        three = tuple(f"{theirs}.attention.self.{name}" for name in ("query", "key", "value"))
        entries += _map(f"{ours}.attention", "qkv", *three)
        entries += _map(f"{ours}.attention", "o", f"{theirs}.attention.output.dense")
        entries += _norm(f"{ours}.norm1", f"{theirs}.attention.output.LayerNorm")
        entries += _map(f"{ours}.feed_forward", "1", f"{theirs}.intermediate.dense")
        entries += _map(f"{ours}.feed_forward", "2", f"{theirs}.output.dense")
        entries += _norm(f"{ours}.norm2", f"{theirs}.output.LayerNorm")
    if config.pooler:
        entries += _map("pooler", "", "pooler.dense")
    if "masked" in config.outputs:
        entries += _map("masked", "", "cls.predictions.transform.dense")
        entries += _norm("masked.norm", "cls.predictions.transform.LayerNorm")
        entries.append(Entry("masked.bias", ("cls.predictions.bias",)))
    for head, name in (("pair", "cls.seq_relationship"), ("classes", "classifier"), ("span", "qa_outputs")):
        if head in config.outputs:
            entries += _map(head, "", name)
    return entries


def _map(path: str, ours: str, *names: str) -> list[Entry]:
    return [
        Entry(f"{path}.W{ours}", tuple(f"{name}.weight" for name in names), transposed=True),
        Entry(f"{path}.b{ours}", tuple(f"{name}.bias" for name in names)),
    ]


def _norm(path: str, name: str) -> list[Entry]:
    return [Entry(f"{path}.g", (f"{name}.weight",)), Entry(f"{path}.b", (f"{name}.bias",))]


def aliases(config: bert.Config) -> dict[str, str]:
    if "masked" not in config.outputs:
        return {}
    return {
        "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }


def written(config: bert.Config) -> dict[str, Any]:
    """The class is the one that has all heads. UserError where there is none."""
    named: dict[tuple[str, ...], str] = {
        (): "BertModel", ("masked", "pair"): "BertForPreTraining", ("masked",): "BertForMaskedLM",
        ("classes",): "BertForSequenceClassification", ("span",): "BertForQuestionAnswering",
        ("pair",): "BertForNextSentencePrediction",
    }  # fmt: skip
    if config.outputs not in named:
        raise UserError(
            f"a BERT with the heads {', '.join(config.outputs)} has no published class; export it with fewer"
        )
    activations = {"gelu_erf": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
    return {
        "architectures": [named[config.outputs]], "model_type": "bert", "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "hidden_size": config.width, "intermediate_size": config.hidden,
        "type_vocab_size": config.segments, "hidden_act": activations[config.activation], "layer_norm_eps": config.eps,
        "hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": 0.0, "tie_word_embeddings": True,
        "pad_token_id": 0, "id2label": {str(i): f"LABEL_{i}" for i in range(config.labels)},
    }  # fmt: skip


BERT = Architecture(
    model="bert", classes=CLASSES, prefix="bert.", config=config, table=table, written=written,
    outer=r"(cls|classifier|qa_outputs)\.", ignored=r"embeddings\.position_ids", aliases=aliases,
    renamed=((".gamma", ".weight"), (".beta", ".bias")),
)  # fmt: skip
