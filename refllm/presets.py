"""Named sizes and settings: what training a model, and learning a task, begin from. Every flag may change them."""

from __future__ import annotations

from typing import Any

# Chosen on the default text by short runs over tokenizers, widths, contexts, rates and deviations.
_USUAL: dict[str, Any] = {
    "tokenizer": "byte_pair", "vocabulary": 512, "context": 64, "dropout": 0.2, "batch": 16, "lr": 3e-3,
    "warmup": 0.025, "floor": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "decay": 0.1, "clip": 1.0, "steps": 2000,
}  # fmt: skip
_LAYERS: dict[str, Any] = {"layers": 4, "heads": 4, "width": 128, "hidden_per_width": 4}
# Batch, steps, floor and dropout are those that reached the least within two minutes on two cores.
_LLAMA: dict[str, Any] = {
    **_USUAL, "model": "llama", **_LAYERS, "kv_heads": 2, "hidden_per_width": 8 / 3, "tied": True, "batch": 12,
    "steps": 1900, "floor": 0.02, "dropout": 0.15,
}  # fmt: skip
# Chosen on short sentences of English and German.
_SEQUENCE: dict[str, Any] = {
    "model": "encoder_decoder", "encoder_layers": 3, "decoder_layers": 3, "heads": 4, "width": 192,
    "hidden_per_width": 4, "norm": "pre", "positions": "sinusoidal", "activation": "relu", "scaled_embedding": True,
    "vocabulary": 4096, "context": 128, "batch": 64, "lr": 2e-3, "warmup": 0.1, "floor": 0.02, "beta2": 0.98,
    "decay": 0.01,
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "default": _LLAMA,
    "gpt": {**_USUAL, "model": "gpt", **_LAYERS},
    "character": {
        **_USUAL, "model": "gpt", **_LAYERS, "tokenizer": "character", "dropout": 0.0, "batch": 12, "lr": 2e-3,
        "steps": 4000,
    },
    "small": {
        **_USUAL, "model": "gpt", "layers": 6, "heads": 6, "width": 384, "hidden_per_width": 4, "vocabulary": 4096,
        "context": 256, "dropout": 0.1, "batch": 8, "lr": 1e-3, "steps": 5000,
    },
    "llama": _LLAMA,
    "switch": {**_USUAL, "model": "switch", **_LAYERS, "experts": 4},
    "rnn": {**_USUAL, "model": "recurrent_lm", "cell": "rnn", "layers": 2, "width": 128, "hidden": 256},
    "lstm": {**_USUAL, "model": "recurrent_lm", "cell": "lstm", "layers": 2, "width": 128, "hidden": 256},
    "nnlm": {**_USUAL, "model": "nnlm", "width": 64, "hidden": 256, "order": 8},
    "hybrid": {**_USUAL, "model": "hybrid", "width": 128, "heads": 4, "hidden": 256, "dropout": 0.1},
    "bert": {
        **_USUAL, "model": "bert", **_LAYERS, "tokenizer": "wordpiece", "vocabulary": 2048, "dropout": 0.1, "batch": 32,
        "lr": 1e-3, "pairing": "next", "steps": 4000,
    },
    "encoder_decoder": {
        **_USUAL, **_SEQUENCE, "vocabulary": 2048, "context": 64, "batch": 32, "steps": 4000,
    },
    "translate": {**_USUAL, **_SEQUENCE},
    "summarise": {**_USUAL, **_SEQUENCE, "context": 256, "batch": 8},
    "ngram": {**_USUAL, "model": "ngram", "order": None},
}  # fmt: skip

# The names that --model takes, and the preset that each begins from.
DEFAULT_MODEL = "llama"  # of those that were tried with the same text, steps, batch and time a step the best
MODELS = {
    "gpt": "gpt", "llama": "llama", "switch": "switch", "hybrid": "hybrid", "lstm": "lstm", "rnn": "rnn",
    "recurrent_lm": "lstm", "nnlm": "nnlm",
    "ngram": "ngram", "bert": "bert", "encoder_decoder": "encoder_decoder",
}  # fmt: skip

# What `refllm classify fit` and `refllm answer fit` begin from; "lr" is that of a model from scratch.
FIT_SETTINGS: dict[str, Any] = {
    "batch": 16, "lr": 1e-3, "warmup": 0.1, "floor": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.01,
    "clip": 1.0,
}  # fmt: skip
FIT_EPOCHS = 8
DTYPES = ("float32", "float64")  # that a training may have
_FIT_SIZES: dict[str, Any] = {"layers": 4, "heads": 4, "width": 128, "dropout": 0.1, "vocabulary": 4096}
CLASSIFY_SIZES: dict[str, Any] = {"context": 64, **_FIT_SIZES}
ANSWER_SIZES: dict[str, Any] = {"context": 192, **_FIT_SIZES}


def rates(scratch: float) -> dict[str, float]:
    """The peak of the learning rate by what is trained, from the one for a model from scratch: the fewer parameters are
    trained, the longer steps they bear. Large models, such as BERT base, want ten times less."""
    return {"scratch": scratch, "all": scratch / 2, "upper": scratch, "low-rank": 2 * scratch}
