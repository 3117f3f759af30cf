"""refllm generate: a trained model writes."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from refllm.backend import allow_tf32, device_namespace
from refllm.commands.choices import add_device_arguments, add_weights_argument
from refllm.commands.sequences import Search, add_search_arguments, answer, tell_what_is_left_out
from refllm.commands.texts import require_text, tell_broken
from refllm.commands.train import RUNS
from refllm.errors import UserError
from refllm.generation.sampling import check_sampling
from refllm.generation.text import stream_text
from refllm.invocation import command
from refllm.parameters import for_decoding
from refllm.tokenizers import begun, default_start
from refllm.trained import Trained, load_model, require_language_model

DESCRIPTION = """Write text with the model of a run or of a published directory, to the terminal as it comes.

example: refllm generate runs/001 --prompt "The assert statement" --temperature 0.8 --top-p 0.95
         refllm generate models/t5-small --prompt "translate English to German: Hello" --beams 4"""

LESS_MEMORY = "use --device cpu or a run with a smaller model"


def add_run_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_directory", metavar="RUN", nargs="?", help="a run or a published model (default: the newest run)"
    )
    add_device_arguments(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    add_weights_argument(parser)
    add = parser.add_argument
    add("--prompt", metavar="TEXT", help="what the text begins with (default: a new line, of words a full stop)")
    add("--tokens", type=int, default=500, help="how many tokens to write (default 500)")
    add_sampling_arguments(parser, temperature=1.0)
    add_search_arguments(parser)


def add_sampling_arguments(parser: argparse.ArgumentParser, *, temperature: float) -> None:
    add = parser.add_argument
    add("--greedy", action="store_true", help="always the most probable token")
    add(
        "--temperature", type=float, default=temperature,
        help=f"below 1 the probable tokens gain, above 1 the improbable ones (default {temperature:g})",
    )  # fmt: skip
    add("--top-k", type=int, help="choose among the k most probable tokens")
    add("--top-p", type=float, help="choose among the fewest tokens whose probabilities reach p")
    add("--seed", type=int, default=1, help="of the choices (default 1)")


def generator_of(options: argparse.Namespace, *, may_answer: bool = False) -> Trained:
    """The model that writes, after a look at the options; UserError for one that cannot be meant. An encoder-decoder,
    which answers a text, only where that `may_answer`."""
    device_namespace(options.device)
    allow_tf32(options.tf32, options.device)
    check_sampling(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    if options.tokens < 1:
        raise UserError(f"tokens must be at least 1, got {options.tokens}")
    if options.seed < 0:
        raise UserError(f"seed must not be negative, got {options.seed}")
    directory = chosen_run(options.run_directory)
    trained = load_model(directory, options.device, options.weights)
    if trained.writing is None or not may_answer:
        require_language_model(trained, directory)
    return replace(trained, parameters=for_decoding(trained.parameters))


def run(options: argparse.Namespace) -> int:
    trained = generator_of(options, may_answer=True)
    if trained.writing is not None:
        return answered(trained, options)
    for flag, value in (("--beams", options.beams), ("--length-penalty", options.length_penalty)):
        if value is not None:
            raise UserError(f"{flag} is for a published encoder-decoder; leave it out")
    config, tokenizer = trained.config, trained.tokenizer
    prompt = default_start(tokenizer) if options.prompt is None else begun(tokenizer, options.prompt)
    if not len(prompt):
        raise UserError("the prompt is empty; give at least one character, or word of a model of words")
    if len(prompt) > config.context and hasattr(trained.model, "cache_shape"):  # a carried state has no limit
        raise UserError(
            f"the prompt has {len(prompt)} tokens, the model's context only {config.context}; give a shorter prompt"
        )
    print(tokenizer.decode(prompt).lstrip("\n"), end="", flush=True)
    written = ""
    for piece in stream_text(
        trained.parameters, model=trained.model, config=config, tokenizer=tokenizer, prompt=prompt,
        new_tokens=options.tokens,
        temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, greedy=options.greedy,
        seed=options.seed, device=options.device, ends=trained.ends,
    ):  # fmt: skip
        written += piece
        sys.stdout.write(piece)
        sys.stdout.flush()
    print(flush=True)
    tell_broken(written, tokenizer)
    return 0


def answered(trained: Trained, options: argparse.Namespace) -> int:
    """Writes what an encoder-decoder answers to the prompt."""
    if options.prompt is None:
        raise UserError("an encoder-decoder answers a text; give one by --prompt")
    require_text(options.prompt, "--prompt")
    if options.beams is not None and options.beams < 1:
        raise UserError(f"beams must be at least 1, got {options.beams}")
    if options.length_penalty is not None and (options.beams or 1) == 1:
        raise UserError("--length-penalty is for a search; give --beams of at least 2 with it")
    assert trained.writing is not None
    tell_what_is_left_out(trained.writing)
    search = Search(
        options.beams or 1, options.length_penalty, options.greedy, options.temperature, options.top_k, options.top_p,
        options.seed,
    )  # fmt: skip
    written = answer(trained, options.prompt, tokens=options.tokens, search=search, device=options.device)
    print(written, flush=True)
    tell_broken(written, trained.tokenizer)
    return 0


def chosen_run(directory: str | None) -> Path:
    """The run that the user named, or the newest in runs/."""
    if directory is not None:
        return Path(directory)
    states = sorted(RUNS.glob("*/checkpoint/state.json"), key=lambda path: path.stat().st_mtime)
    if not states:
        raise UserError(
            f"there is no run in runs/ yet; make one with: {command('train')} (or name the directory of one)"
        )
    return states[-1].parents[1]
