"""Named sizes and settings for `refllm train`."""

from __future__ import annotations

from typing import Any

# Chosen on the default text by short runs over tokenizers, widths, contexts, rates and deviations.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "tokenizer": "byte_pair", "vocabulary": 512, "layers": 4, "heads": 4, "width": 128, "context": 64,
        "dropout": 0.2, "batch": 16, "lr": 3e-3, "warmup": 0.025, "floor": 0.1, "beta1": 0.9, "beta2": 0.99,
        "eps": 1e-8, "decay": 0.1, "clip": 1.0, "steps": 2000,
    },
    "character": {
        "tokenizer": "character", "vocabulary": 512, "layers": 4, "heads": 4, "width": 128, "context": 64,
        "dropout": 0.0, "batch": 12, "lr": 2e-3, "warmup": 0.025, "floor": 0.1, "beta1": 0.9, "beta2": 0.99,
        "eps": 1e-8, "decay": 0.1, "clip": 1.0, "steps": 4000,
    },
    "small": {
        "tokenizer": "byte_pair", "vocabulary": 4096, "layers": 6, "heads": 6, "width": 384, "context": 256,
        "dropout": 0.1, "batch": 8, "lr": 1e-3, "warmup": 0.025, "floor": 0.1, "beta1": 0.9, "beta2": 0.99,
        "eps": 1e-8, "decay": 0.1, "clip": 1.0, "steps": 5000,
    },
}  # fmt: skip
