"""Randomly initialised models of transformers in odd sizes, saved as they save themselves, and what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.parameters import Tree, named_leaves
from refllm.pretrained.folder import Folder

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 37, "hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 3,
    "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 50.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
GEMMA2: dict[str, Any] = {
    "head_dim": 10, "num_key_value_heads": 1, "sliding_window": 4, "query_pre_attn_scalar": 7,
    "attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.7,
}  # fmt: skip
YARN: dict[str, Any] = {
    "rope_type": "yarn", "factor": 4.0, "rope_theta": 50.0, "original_max_position_embeddings": 16, "beta_fast": 2.0,
}  # fmt: skip
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("GPT2", {"vocab_size": 37, "n_positions": 32, "n_embd": 12, "n_layer": 3, "n_head": 3}),
    "GPT-2, odd": (
        "GPT2",
        {"vocab_size": 37, "n_positions": 32, "n_embd": 5, "n_layer": 1, "n_head": 1, "n_inner": 7,
         "tie_word_embeddings": False, "activation_function": "relu"},
    ),
    "Llama, one key head": ("Llama", {**SIZES, "num_key_value_heads": 1}),
    "Llama, wide heads, tied, biases": (
        "Llama",
        {**SIZES, "head_dim": 10, "num_key_value_heads": 3, "tie_word_embeddings": True, "attention_bias": True},
    ),
    "Llama 3, scaled": ("Llama", {**SIZES, "head_dim": 16, "num_key_value_heads": 1, "rope_parameters": LLAMA3}),
    "Llama, linear": (
        "Llama", {**SIZES, "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 100.0}}
    ),
    "Llama, YaRN": ("Llama", {**SIZES, "head_dim": 16, "num_key_value_heads": 1, "rope_parameters": YARN}),
    "Qwen 2, YaRN, its ends between pairs": (
        "Qwen2",
        {**SIZES, "head_dim": 16, "hidden_size": 24, "num_key_value_heads": 1,
         "rope_parameters": {**YARN, "truncate": False, "attention_factor": 1.5, "beta_slow": 0.5}},
    ),
    "Llama, YaRN with two scales": (
        "Llama",
        {**SIZES, "head_dim": 8, "rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3}},
    ),
    "Llama, dynamic": (
        "Llama",
        {**SIZES, "head_dim": 8, "max_position_embeddings": 8,
         "rope_parameters": {"rope_type": "dynamic", "factor": 9.0, "rope_theta": 100.0}},
    ),
    "Llama, biases everywhere": (
        "Llama", {**SIZES, "num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}
    ),
    "Mistral": ("Mistral", {**SIZES, "num_key_value_heads": 1, "sliding_window": 3}),
    "Qwen 2": ("Qwen2", {**SIZES, "num_key_value_heads": 1}),
    "Qwen 2, windows": (
        "Qwen2", {**SIZES, "use_sliding_window": True, "max_window_layers": 1, "sliding_window": 3,
                  "num_key_value_heads": 3},
    ),
    "Qwen 3": ("Qwen3", {**SIZES, "num_key_value_heads": 1, "head_dim": 6, "tie_word_embeddings": True}),
    "Gemma": ("Gemma", {**SIZES, "num_key_value_heads": 1, "head_dim": 6}),
    "Gemma 2": ("Gemma2", {**SIZES, **GEMMA2}),
}  # fmt: skip


def made(kind: str, values: dict[str, Any], *, suffix: str, dtype: str = "float32") -> Any:
    """A model whose every number is random, gains and biases too."""
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(**values, attn_implementation="eager")
    model = getattr(transformers, f"{kind}{suffix}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(getattr(torch, dtype))


def saved(model: Any, directory: Path) -> Path:
    model.save_pretrained(directory)
    return directory


def as_published(folder: Folder, gradient: Tree) -> dict[str, Array]:
    """Our gradient by the names of the files."""
    leaves = dict(named_leaves(gradient))
    found = {}
    for entry in folder.entries:
        for name, part in zip(entry.names, entry.parted(leaves[entry.path]), strict=True):
            found[folder.names[name]] = part
    return found


def gradients(model: Any) -> dict[str, Array]:
    return {
        name: numpy.zeros(tuple(p.shape)) if p.grad is None else p.grad.numpy() for name, p in model.named_parameters()
    }


def ids_of(vocabulary: int, *shape: int, seed: int = 0, first: int = 0) -> Array:
    """`first` leaves out what pads: torch gives a row of an embedding for padding no gradient."""
    return numpy.random.default_rng(seed).integers(first, vocabulary, shape)


def assert_close(found: Array, wanted: Array, dtype: str, what: str) -> None:
    """Within so many roundings of the largest entry."""
    bound = {"float32": 1e-5, "float64": 1e-6}[dtype]  # angles are formed in float32 there
    largest = numpy.abs(wanted).max(initial=0)
    worst = numpy.abs(found - wanted).max(initial=0)
    assert worst <= bound * largest + 1e-7 * (dtype == "float32"), f"{what} is off by {worst:.3g} of {largest:.3g}"


T5_SIZES: dict[str, Any] = {
    "vocab_size": 37, "d_model": 10, "d_kv": 3, "d_ff": 14, "num_layers": 2, "num_heads": 5, "num_decoder_layers": 3,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 11, "pad_token_id": 0,
}  # fmt: skip
BART_SIZES: dict[str, Any] = {
    "vocab_size": 37, "d_model": 10, "max_position_embeddings": 16, "encoder_layers": 2, "decoder_layers": 1,
    "encoder_attention_heads": 5, "decoder_attention_heads": 5, "encoder_ffn_dim": 14, "decoder_ffn_dim": 14,
}  # fmt: skip
SEQUENCE: dict[str, tuple[str, dict[str, Any]]] = {
    "T5 1.0": ("T5", T5_SIZES),
    "T5 1.1": ("T5", {**T5_SIZES, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "BART": ("Bart", BART_SIZES),
    "BART, scaled": ("Bart", {**BART_SIZES, "scale_embedding": True, "activation_function": "relu"}),
    "Switch": (
        "SwitchTransformers",
        {**T5_SIZES, "num_layers": 4, "num_decoder_layers": 2, "num_experts": 3, "expert_capacity": 2,
         "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2},
    ),
}  # fmt: skip
