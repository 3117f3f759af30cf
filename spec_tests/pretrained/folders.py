"""Small published models of every architecture, written into a folder without another framework."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy

from refllm.backend import Array
from refllm.models import bert, by_name, encoder_decoder, gpt, llama
from refllm.parameters import Tree, named_leaves
from refllm.pretrained.architectures import ARCHITECTURES
from refllm.pretrained.export import Written, config_of, file_of, leaves_of, tensors_of_leaves, write_folder
from refllm.pretrained.naming import Architecture
from spec_tests.gradients import random_tree

GPT = gpt.Config(vocabulary=11, context=8, layers=2, heads=2, width=4, hidden=6)
_LLAMA: dict[str, Any] = {
    "vocabulary": 11,
    "context": 16,
    "layers": 2,
    "heads": 2,
    "width": 4,
    "hidden": 6,
    "eps": 1e-6,
}
_SEQUENCE: dict[str, Any] = {
    "vocabulary": 11, "context": 8, "encoder_layers": 2, "decoder_layers": 1, "heads": 2, "width": 4, "hidden": 6,
}  # fmt: skip
_T5: dict[str, Any] = {
    **_SEQUENCE, "head_width": 3, "norm": "pre", "rms": True, "positions": "relative", "biases": False, "buckets": 4,
    "farthest": 6, "eps": 1e-6,
}  # fmt: skip
CONFIGS: dict[str, tuple[str, Any]] = {
    "GPT-2": ("gpt2", GPT),
    "GPT-2, untied": ("gpt2", gpt.Config(**{**GPT.as_dict(), "tied": False})),
    "Llama": ("llama", llama.Config(**_LLAMA, kv_heads=1)),
    "Llama 3": (
        "llama",
        llama.Config(**_LLAMA, head_width=6, tied=True, scaling="llama3", scaling_factor=8.0, scaling_original=8),
    ),
    "Llama, YaRN": (
        "llama",
        llama.Config(
            **_LLAMA, head_width=6, scaling="yarn", scaling_factor=4.0, scaling_original=8, scaling_high=2.0,
            scaling_scale=1.25, scaling_rounded=False,
        ),
    ),
    "Llama, dynamic": (
        "llama",
        llama.Config(
            **{**_LLAMA, "context": 32}, head_width=6, scaling="dynamic", scaling_factor=2.0, scaling_original=16
        ),
    ),
    "Llama, biases": ("llama", llama.Config(**_LLAMA, biases="qkvo", feed_forward_biases=True)),
    "Mistral": ("mistral", llama.Config(**_LLAMA, windows=(3, 3))),
    "Qwen 2": ("qwen2", llama.Config(**_LLAMA, biases="qkv", windows=(0, 3))),
    "Qwen 3": ("qwen3", llama.Config(**_LLAMA, query_key_norm=True)),
    "Gemma 2": (
        "gemma2",
        llama.Config(
            **_LLAMA, activation="gelu_tanh", offset_norms=True, norms_after=True, scaled_embedding=True,
            score_width=3.0, score_cap=5.0, logit_cap=3.0, windows=(4, 0), tied=True,
        ),
    ),
    "BERT": (
        "bert",
        bert.Config(vocabulary=11, context=8, layers=2, heads=2, width=4, hidden=6, outputs=("classes",), labels=3),
    ),
    "BERT, masked": (
        "bert",
        bert.Config(vocabulary=11, context=8, layers=1, heads=1, width=4, hidden=6, outputs=("masked",), pooler=False),
    ),
    "T5": ("t5", encoder_decoder.Config(**_T5, scaled_output=True)),
    "T5 1.1": ("t5", encoder_decoder.Config(**_T5, gated=True, activation="gelu_tanh", tied=False)),
    "Switch": (
        "switch_transformers",
        encoder_decoder.Config(**_T5, scaled_output=True, experts=3, encoder_every=2, decoder_every=1, capacity=2),
    ),
    "BART": (
        "bart",
        encoder_decoder.Config(
            **_SEQUENCE, head_width=2, positions="learned", activation="gelu_erf", embedding_norm=True
        ),
    ),
}  # fmt: skip


def random_leaves(
    architecture: Architecture, config: Any, *, dtype: str = "float32", seed: int = 0
) -> dict[str, Array]:
    tree: Tree = random_tree(by_name(architecture.model).shapes(config), seed, scale=0.5)
    return {path: leaf.astype(dtype) for path, leaf in named_leaves(tree)}


def made(which: str, directory: Path, *, seed: int = 0) -> dict[str, Array]:
    """A folder with a random model; its parameters, as ours."""
    kind, config = CONFIGS[which]
    architecture = ARCHITECTURES[kind]
    leaves = random_leaves(architecture, config, seed=seed)
    tensors = tensors_of_leaves(architecture, config, leaves)
    write_folder(directory, config_of(architecture.written(config), tensors), tensors, {})
    return leaves


def written_tensors(directory: Path) -> Written:
    from refllm.pretrained.tensor_file import tensors_of

    return {
        name: (tensor.dtype, tensor.shape, tensor.raw())
        for name, tensor in tensors_of(directory / "model.safetensors").items()
    }


def rewrite(directory: Path, tensors: Written) -> None:
    (directory / "model.safetensors").write_bytes(file_of(tensors))


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not ...}))


def zeros(*shape: int) -> tuple[str, tuple[int, ...], bytes]:
    return "F32", shape, numpy.zeros(shape, "<f4").tobytes()


__all__ = ["CONFIGS", "change_config", "leaves_of", "made", "random_leaves", "rewrite", "written_tensors", "zeros"]
