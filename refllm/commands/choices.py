"""The flags that say what is trained and how, for every command that trains; and what they come to."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import Any

from refllm.errors import UserError
from refllm.models import by_name
from refllm.presets import MODELS, PRESETS
from refllm.tokenizers import BytePairTokenizer, CharacterTokenizer, Tokenizer
from refllm.tokenizers.word import WordTokenizer
from refllm.tokenizers.wordpiece import WordPieceTokenizer
from refllm.train import Settings
from refllm.workers import available_cores

# Every field of a model's Config that a user may set.
ARCHITECTURE: dict[str, tuple[type, str]] = {
    "context": (int, "tokens that the model sees at once"),
    "layers": (int, "how many"),
    "heads": (int, "of attention, in each layer"),
    "width": (int, "of the residual stream, or of the embedding"),
    "hidden": (int, "width inside the feed-forward layers, or of a recurrent state"),
    "dropout": (float, "share of what is dropped in training"),
    "norm": (str, "pre or post (gpt, switch)"),
    "activation": (str, "relu, gelu_tanh or gelu_erf (gpt, switch)"),
    "positions": (str, "learned or sinusoidal (gpt); rotary, rotary_interleaved, alibi, relative or none (llama)"),
    "kv_heads": (int, "heads of keys and values, shared by groups of queries (llama)"),
    "head_width": (int, "of a head; 0 stands for width / heads (llama)"),
    "base": (float, "of the rotary angles (llama)"),
    "cell": (str, "rnn or lstm (recurrent_lm)"),
    "order": (int, "tokens in an n-gram, the predicted one among them (nnlm)"),
    "experts": (int, "feed-forward layers to choose from (switch)"),
    "every": (int, "every how many layers experts stand (switch)"),
    "capacity_factor": (float, "room of an expert, in shares of the tokens / experts (switch)"),
    "balance": (float, "weight of the loss that spreads tokens over experts (switch)"),
}
SWITCHES = {"tied": "embedding and head in one", "direct": "a path around the hidden layer (nnlm)"}


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("the model (defaults from the preset)")
    model.add_argument("--tokenizer", choices=("character", "byte_pair", "word", "wordpiece"))
    model.add_argument("--vocabulary", type=int, help="tokens of the byte-pair tokenizer")
    for name, (kind, text) in ARCHITECTURE.items():
        model.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    for name, text in SWITCHES.items():
        model.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=None, help=text)


def add_optimiser_arguments(parser: argparse.ArgumentParser) -> None:
    rule = parser.add_argument_group("the optimiser, AdamW (defaults from the preset)")
    rule.add_argument("--batch", type=int, help="windows a step")
    for name, text in (
        ("lr", "peak of the learning rate"),
        ("warmup", "share of the run that warms up"),
        ("floor", "learning rate at the end, as a share of the peak"),
        ("beta1", None),
        ("beta2", None),
        ("eps", None),
        ("decay", "weight decay, of matrices only"),
        ("clip", "largest global norm of the gradient; inf for none"),
    ):
        rule.add_argument(f"--{name}", type=float, help=text)


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda runs on a GPU through CuPy")
    parser.add_argument(
        "--tf32",
        action="store_true",
        help="with --device cuda: float32 matrix products in TF32, which has 11 bits instead of 24 and is faster",
    )


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """The preset's values and those of the flags given. UserError for a flag that the model has no use for."""
    name = options.preset or MODELS[options.model or "gpt"]
    given = {key: value for key, value in vars(options).items() if value is not None}
    values = {**PRESETS[name], **{key: value for key, value in given.items() if key != "model"}}
    if options.model and PRESETS[MODELS[options.model]]["model"] != values["model"]:
        raise UserError(
            f"the preset {name} is one of {values['model']}, not of {options.model}; leave out one of the two"
        )
    model = by_name(values["model"])
    for key in (*ARCHITECTURE, *SWITCHES):
        if key in given and key not in model.CHOICES:
            raise UserError(
                f"--{key.replace('_', '-')} is nothing that {values['model']} has; leave it out "
                f"(it has {', '.join(model.CHOICES)})"
            )
    if "hidden_per_width" in values:
        values.setdefault("hidden", round(values["width"] * values["hidden_per_width"]))
    return values


def config_of(model: ModuleType, values: dict[str, Any], tokenizer: Tokenizer) -> Any:
    return model.Config(vocabulary=tokenizer.size, **{name: values[name] for name in model.CHOICES if name in values})


def settings_of(values: dict[str, Any], options: argparse.Namespace) -> Settings:
    cores = available_cores()
    threads = (cores if options.device == "cpu" else 1) if options.threads is None else options.threads
    if threads < 1:
        raise UserError(f"threads must be at least 1, got {threads}")
    shards = max(1, min(threads, values["batch"]))
    return Settings(
        **{name: values[name] for name in ("batch", "lr", "warmup", "floor", "beta1", "beta2", "eps", "decay", "clip")},
        seed=options.seed, shards=shards, dtype=options.dtype, device=options.device, tf32=options.tf32,
        blas_threads=threads // shards,
    )  # fmt: skip


def tokenizer_of(values: dict[str, Any], text: str, train: str) -> Tokenizer:
    """Byte pairs are learnt from the training part; the alphabet of characters is that of the whole text, so that the
    held-out part can be spelled."""
    if values["tokenizer"] == "character":
        return CharacterTokenizer.train(text)
    if values["tokenizer"] == "wordpiece":
        return WordPieceTokenizer.train(train, vocabulary=values["vocabulary"], lower=True)
    if values["tokenizer"] == "word":
        return WordTokenizer.train(train, vocabulary=values["vocabulary"], lower=True)
    return BytePairTokenizer.train(train, vocabulary=values["vocabulary"])
