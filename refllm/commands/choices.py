"""The flags that say what is trained and how, for every command that trains; and what they come to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from refllm import ranks
from refllm.errors import UserError
from refllm.models import by_name
from refllm.presets import DEFAULT_MODEL, DTYPES, MODELS, PRESETS
from refllm.pretrained.weights import WEIGHTS
from refllm.tasks.text import learnable
from refllm.tokenizers import BytePairTokenizer, CharacterTokenizer, Tokenizer
from refllm.tokenizers.pieces import LOST
from refllm.tokenizers.spelling import SELDOM, has_more_pairs, share_in_pieces, size_for
from refllm.tokenizers.word import WordTokenizer
from refllm.tokenizers.wordpiece import WordPieceTokenizer
from refllm.train import Settings
from refllm.workers import available_cores, require_threads

# Every field of a model's Config that a user may set.
ARCHITECTURE: dict[str, tuple[type, str]] = {
    "context": (int, "tokens that the model sees at once"),
    "layers": (int, "how many"),
    "encoder_layers": (int, "that read the source (encoder_decoder)"),
    "decoder_layers": (int, "that write the target (encoder_decoder)"),
    "heads": (int, "of attention, in each layer"),
    "width": (int, "of the residual stream, or of the embedding"),
    "hidden": (int, "width inside the feed-forward layers, or of a recurrent state"),
    "dropout": (float, "share of what is dropped in training"),
    "norm": (str, "pre or post (gpt, switch, encoder_decoder)"),
    "activation": (str, "relu, gelu_tanh or gelu_erf (gpt, switch, encoder_decoder)"),
    "positions": (
        str,
        "learned or sinusoidal (gpt); rotary, rotary_interleaved, alibi, relative or none (llama); "
        "learned, sinusoidal or relative (encoder_decoder)",
    ),
    "buckets": (int, "of relative positions (encoder_decoder)"),
    "farthest": (int, "distance that relative positions tell apart (encoder_decoder)"),
    "kv_heads": (int, "heads of keys and values, shared by groups of queries (llama)"),
    "head_width": (int, "of a head; 0 stands for width / heads (llama, encoder_decoder)"),
    "base": (float, "of the rotary angles (llama)"),
    "cell": (str, "rnn or lstm (recurrent_lm)"),
    "order": (int, "tokens in an n-gram, the predicted one among them (nnlm)"),
    "experts": (int, "feed-forward layers to choose from (switch)"),
    "every": (int, "every how many layers experts stand (switch)"),
    "capacity_factor": (float, "room of an expert, in shares of the tokens / experts (switch)"),
    "balance": (float, "weight of the loss that spreads tokens over experts (switch)"),
}
SWITCHES = {
    "tied": "embedding and head in one",
    "direct": "a path around the hidden layer (nnlm)",
    "rms": "norms without mean and bias (encoder_decoder)",
    "gated": "gates in the feed-forward layers (encoder_decoder)",
    "biases": "in all linear layers (encoder_decoder)",
    "scaled_embedding": "embeddings times the root of the width (encoder_decoder; gpt, where sinusoidal)",
    "embedding_norm": "a norm after the embeddings (encoder_decoder)",
    "scaled_output": "last hidden states over the root of the width (encoder_decoder)",
}


OPTIMISER: dict[str, tuple[type, str]] = {
    "batch": (int, "windows per step"),
    "lr": (float, "peak of the learning rate"),
    "warmup": (float, "share of the run that warms up"),
    "floor": (float, "learning rate at the end, as a share of the peak"),
    "beta1": (float, "decay of the mean of the gradients"),
    "beta2": (float, "decay of the mean of their squares"),
    "eps": (float, "added to the root of that mean"),
    "decay": (float, "weight decay, of matrices only"),
    "clip": (float, "largest global norm of the gradient; inf for none"),
}
# runs are saved with "floor", and earlier versions had the flag of that name
FLAGS = {"floor": ("--min-lr-ratio", "--floor")}
OF_MODELS = (*ARCHITECTURE, *SWITCHES, *OPTIMISER)  # the flags that some models have no use for


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("the model (defaults from the preset)")
    model.add_argument("--tokenizer", choices=("character", "byte_pair", "word", "wordpiece"))
    model.add_argument(
        "--vocabulary",
        type=int,
        help="tokens of the tokenizer, at most (not of characters)",
    )
    add_architecture_arguments(model, (*ARCHITECTURE, *SWITCHES))


def add_architecture_arguments(group: argparse._ArgumentGroup, names: Sequence[str]) -> None:
    """A flag for each of these fields of a model's Config."""
    for name in names:
        flag = f"--{name.replace('_', '-')}"
        if name in SWITCHES:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=SWITCHES[name])
        else:
            kind, text = ARCHITECTURE[name]
            group.add_argument(flag, type=kind, help=text)


def add_optimiser_arguments(parser: argparse.ArgumentParser) -> None:
    rule = parser.add_argument_group("the optimiser, AdamW (defaults from the preset)")
    for name, (kind, text) in OPTIMISER.items():
        rule.add_argument(*FLAGS.get(name, (f"--{name}",)), dest=name, type=kind, help=text)


LONGER = ("steps", "minutes")  # the flags that make a run longer that is complete
FREE = ("resume", "ranks", "shard", *LONGER)  # what may stand beside --resume


def add_length_arguments(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """How long a run is, or how much longer one becomes that is complete."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--steps", type=int, help="train for this many steps; with --resume of a complete run, for this many more"
    )
    length.add_argument(
        "--minutes", type=float,
        help="train for this long, the schedule follows the clock; with --resume of a complete run, so much longer",
    )  # fmt: skip
    return length


def require_alone(options: argparse.Namespace, add_arguments: Callable[[argparse.ArgumentParser], None]) -> None:
    """A resumed run keeps its settings: any flag beside --resume but those that make it longer would be ignored, so it
    is refused."""
    for name, how in given(options, add_arguments).items():
        if name not in FREE:
            raise UserError(f"--resume goes on with the settings of the run; leave out {how}")


def given(options: argparse.Namespace, add_arguments: Callable[[argparse.ArgumentParser], None]) -> dict[str, str]:
    """The names of the arguments that are not as by default, each with how it is written."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    written = {action.dest: (*action.option_strings, str(action.metavar))[0] for action in parser._actions}
    defaults = vars(parser.parse_args([]))
    return {name: written[name] for name, value in defaults.items() if getattr(options, name) != value}


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """What every training takes, whatever it learns."""
    add = parser.add_argument
    add("--seed", type=int, default=1, help="of the weights, the order of the data and dropout (default 1)")
    add("--threads", type=int, help="workers, a share of the batch each (default: the cores)")
    add("--ranks", type=int, metavar="N", help="processes with memory of their own, by MPI, with a share each")
    add(
        "--shard",
        choices=ranks.SHARDS,
        help="with --ranks: each keeps the moments of its share (optimizer), or a share of the parameters too",
    )
    add_device_arguments(parser)
    add("--dtype", choices=DTYPES, default=DTYPES[0], help="of all numbers (default float32)")


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda runs on a GPU through CuPy")
    parser.add_argument(
        "--tf32",
        action="store_true",
        help="with --device cuda: float32 matrix products in TF32, which has 11 bits instead of 24 and is faster",
    )


def add_weights_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", choices=WEIGHTS, default="stored",
        help="how those of a published model are kept: as in its files (stored, the default), or in so many bits",
    )  # fmt: skip


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """The preset's values and those of the flags given. UserError for a flag that the model has no use for."""
    name = options.preset or MODELS[options.model or DEFAULT_MODEL]
    wanted = {key: value for key, value in vars(options).items() if value is not None}
    values = {**PRESETS[name], **{key: value for key, value in wanted.items() if key != "model"}}
    if options.model and PRESETS[MODELS[options.model]]["model"] != values["model"]:
        raise UserError(
            f"the preset {name} is one of {values['model']}, not of {options.model}; leave out one of the two"
        )
    model = by_name(values["model"])
    for key in OF_MODELS:
        if key in wanted and not takes(model, key):
            raise UserError(
                f"--{key.replace('_', '-')} is nothing that {values['model']} has; leave it out "
                f"(it has {', '.join(model.CHOICES)})"
            )
    if "vocabulary" in wanted and values["tokenizer"] == "character":
        raise UserError("--vocabulary is nothing that characters have: all of the text are tokens; leave it out")
    if "hidden_per_width" in values:
        values.setdefault("hidden", round(values["width"] * values["hidden_per_width"]))
    if "kv_heads" in PRESETS[name] and "heads" in wanted and "kv_heads" not in wanted:
        values["kv_heads"] = shared_heads(values["heads"], of=PRESETS[name]["heads"] // PRESETS[name]["kv_heads"])
    if values["model"] == "gpt" and values.get("positions") == "sinusoidal":
        values.setdefault("scaled_embedding", True)  # waves of size 1 drown embeddings that begin near 0
    if values["model"] == "encoder_decoder" and not values.get("head_width"):
        values["head_width"] = max(1, values["width"] // max(1, values["heads"]))
    return values


def shared_heads(heads: int, *, of: int) -> int:
    """How many heads of keys and values go with so many of queries, each for at least `of` of them, or for all."""
    return max((n for n in range(1, heads // of + 1) if heads % n == 0), default=1)


def takes(model: ModuleType, flag: str) -> bool:
    """Whether a model has a use for one of the flags OF_MODELS; one that counts has no optimiser, and no `initial`."""
    return flag in model.CHOICES or (flag in OPTIMISER and hasattr(model, "initial"))


def config_of(model: ModuleType, values: dict[str, Any], tokenizer: Tokenizer) -> Any:
    return model.Config(vocabulary=tokenizer.size, **{name: values[name] for name in model.CHOICES if name in values})


def settings_of(values: dict[str, Any], options: argparse.Namespace) -> Settings:
    cores = available_cores()
    threads = (cores if options.device == "cpu" else 1) if options.threads is None else options.threads
    require_threads(threads)
    if ranks.count() > 1:  # one shard a rank; the threads are those of its BLAS
        shards, threads = min(ranks.count(), values["batch"]), options.threads or 1
        return _settings(values, options, shards, threads)
    shards = max(1, min(threads, values["batch"]))
    return _settings(values, options, shards, threads // shards)


def _settings(values: dict[str, Any], options: argparse.Namespace, shards: int, blas_threads: int) -> Settings:
    return Settings(
        **{name: values[name] for name in ("batch", "lr", "warmup", "floor", "beta1", "beta2", "eps", "decay", "clip")},
        seed=options.seed, shards=shards, dtype=options.dtype, device=options.device, tf32=options.tf32,
        blas_threads=blas_threads,
    )  # fmt: skip


def tokenizer_of(values: dict[str, Any], text: str, train: str, *, asked: int | None) -> Tokenizer:
    """Byte pairs and words are learnt from the training part, or from a part of a large one; of byte pairs as many as
    were `asked` for or suit its script. The alphabet of characters is that of the whole text, so that the held-out part
    can be spelled."""
    if values["tokenizer"] == "character":
        return CharacterTokenizer.train(text)
    train = learnable(train)
    if values["tokenizer"] == "wordpiece":
        return WordPieceTokenizer.train(train, vocabulary=values["vocabulary"], lower=True)
    if values["tokenizer"] == "word":
        return WordTokenizer.train(train, vocabulary=values["vocabulary"], lower=True)
    return byte_pairs_of(train, usual=values["vocabulary"], asked=asked, else_take="--tokenizer character")


def byte_pairs_of(text: str, *, usual: int, asked: int | None, else_take: str) -> BytePairTokenizer:
    """As many byte pairs as were asked for, or the usual number and more where the script of the text needs them. Says
    on the standard error where it took more, and where many characters stay in pieces."""
    tokenizer = BytePairTokenizer.train(text, vocabulary=size_for(text, usual=usual) if asked is None else asked)
    if tokenizer.size > usual and asked is None:
        print(
            f"{tokenizer.size:,} byte-pair tokens instead of {usual:,}, for the characters of this text "
            "(--vocabulary takes another number)",
            file=sys.stderr,
        )
    share = share_in_pieces(text, tokenizer)
    if share > SELDOM:
        remedy = f"a larger --vocabulary, or {else_take}" if has_more_pairs(text, tokenizer) else else_take
        print(
            f"{100 * share:.0f} % of the characters are in pieces with {tokenizer.size:,} byte-pair tokens, and {LOST} "
            f"stands where a model writes a wrong piece: give {remedy}",
            file=sys.stderr,
        )
    return tokenizer
