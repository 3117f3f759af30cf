"""Small models of the published forms, large enough that mistakes can be told from each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refllm.models import bert, encoder_decoder, gpt, llama
from refllm.pretrained.architectures import ARCHITECTURES
from refllm.pretrained.export import config_of, tensors_of_leaves, write_folder
from spec_tests.pretrained.folders import random_leaves

_GPT: dict[str, Any] = {"vocabulary": 53, "context": 48, "layers": 3, "heads": 3, "width": 24, "hidden": 40}
_LLAMA: dict[str, Any] = {**_GPT, "heads": 4, "kv_heads": 2, "head_width": 8, "eps": 1e-6, "base": 50000.0}
_T5: dict[str, Any] = {
    "vocabulary": 53, "context": 48, "encoder_layers": 2, "decoder_layers": 2, "heads": 3, "head_width": 6, "width": 24,
    "hidden": 40, "norm": "pre", "rms": True, "positions": "relative", "biases": False, "buckets": 8, "farthest": 20,
    "eps": 1e-6,
}  # fmt: skip
CONFIGS: dict[str, tuple[str, Any]] = {
    "gpt2": ("gpt2", gpt.Config(**_GPT, tied=True)),
    "gpt2 untied": ("gpt2", gpt.Config(**_GPT, tied=False)),
    "llama3": ("llama", llama.Config(**{
        **_LLAMA, "base": 500.0, "scaling": "llama3", "scaling_factor": 8.0, "scaling_original": 32,
    })),
    "mistral": ("mistral", llama.Config(**_LLAMA, windows=(5, 5, 5))),
    "llama of wide heads": ("llama", llama.Config(**{**_LLAMA, "heads": 6})),
    "qwen2": ("qwen2", llama.Config(**_LLAMA, biases="qkv")),
    "qwen3": ("qwen3", llama.Config(**_LLAMA, query_key_norm=True)),
    "gemma2": ("gemma2", llama.Config(**{
        **_LLAMA, "activation": "gelu_tanh", "offset_norms": True, "norms_after": True, "scaled_embedding": True,
        "score_width": 5.0, "score_cap": 5.0, "logit_cap": 3.0, "windows": (5, 0, 5), "tied": True,
    })),
    "bert": ("bert", bert.Config(**_GPT, outputs=("masked",), pooler=False)),
    "bert classes": ("bert", bert.Config(**_GPT, outputs=("classes",), labels=5)),
    "t5": ("t5", encoder_decoder.Config(**_T5, scaled_output=True)),
    "t5 gated": ("t5", encoder_decoder.Config(**_T5, gated=True, activation="gelu_tanh", tied=False)),
}  # fmt: skip


def written(directory: Path, name: str) -> Path:
    kind, config = CONFIGS[name]
    architecture = ARCHITECTURES[kind]
    tensors = tensors_of_leaves(architecture, config, random_leaves(architecture, config, seed=3))
    write_folder(directory, config_of(architecture.written(config), tensors), tensors, {})
    return directory
