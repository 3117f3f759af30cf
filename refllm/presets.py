"""Named sizes and settings for `refllm train`."""

from __future__ import annotations

from typing import Any

_SETTINGS = {
    "batch": 12, "lr": 2e-3, "warmup": 0.05, "floor": 0.05, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "decay": 0.1,
    "clip": 1.0, "steps": 2400,
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "tokenizer": "character", "vocabulary": 512, "layers": 4, "heads": 4, "width": 128, "context": 64,
        "dropout": 0.0, **_SETTINGS,
    },
}  # fmt: skip
