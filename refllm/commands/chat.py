"""refllm chat: a prompt, and a language model that goes on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from refllm.backend import Array
from refllm.commands.choices import add_weights_argument
from refllm.commands.generate import LESS_MEMORY, add_run_argument, add_sampling_arguments, generator_of
from refllm.commands.texts import tell_broken
from refllm.errors import UserError
from refllm.generation.text import stream_text
from refllm.tokenizers import begun
from refllm.trained import Trained

DESCRIPTION = """Talk with the language model of a run: it goes on after each line of yours, to the end of its own line.
It has learnt to continue texts, nothing else; --you and --it mark the speakers as in the texts that it learnt from.
/quit or Ctrl-D ends it. Lines from a pipe are answered one by one.

example: refllm chat runs/001 --you "Q: " --it "A: " --temperature 0.8"""

__all__ = ["DESCRIPTION", "LESS_MEMORY", "add_arguments", "run"]

QUIT = "/quit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    add_weights_argument(parser)
    add = parser.add_argument
    add("--you", default="", metavar="TEXT", help="what stands before each line of yours (default: nothing)")
    add("--it", default="", metavar="TEXT", help="what stands before each line of the model (default: nothing)")
    add("--tokens", type=int, default=100, help="of a line of the model, at most (default 100)")
    add_sampling_arguments(parser, temperature=0.8)


def run(options: argparse.Namespace) -> int:
    trained = generator_of(options)
    try:
        talk(trained, options)
    except KeyboardInterrupt:
        print()
    return 0


def talk(trained: Trained, options: argparse.Namespace) -> None:
    """Line by line until the user has said the last one.

    Raises: UserError if the tokenizer does not know a character of what stands before the lines.
    """
    for mark in (options.you, options.it):
        trained.tokenizer.encode(mark)
    dialogue = ""
    for turn, line in enumerate(lines()):
        try:
            trained.tokenizer.encode(line)
        except UserError as error:  # a character that the tokenizer does not know: say it otherwise
            print(f"refllm: {error}", file=sys.stderr)
            continue
        asked = f"{dialogue}{options.you}{line}\n{options.it}"
        prompt = within_context(trained, asked, options.tokens)
        said = ""
        for piece in reply(trained, prompt, options, seed=options.seed + turn):
            sys.stdout.write(piece)
            sys.stdout.flush()
            said += piece
        print(flush=True)
        tell_broken(said, trained.tokenizer)
        dialogue = f"{asked}{said}\n"


def lines() -> Iterator[str]:
    """The user's lines that hold something, from a terminal or a pipe, up to the end or /quit."""
    number = 0
    while True:
        number += 1
        if sys.stdin.isatty():
            try:
                line = input("> ")
            except EOFError:
                print()
                return
        else:
            raw = sys.stdin.buffer.readline()
            if not raw:
                return
            try:
                line = raw.decode()
            except UnicodeDecodeError:
                raise UserError(f"standard input:{number}: not UTF-8 text; give lines in UTF-8") from None
        if line.strip() == QUIT:
            return
        if line.strip():
            yield line.strip()


def within_context(trained: Trained, dialogue: str, tokens: int) -> Array:
    """The end of the dialogue that leaves the model room for a line; at least half of its context."""
    ids = begun(trained.tokenizer, dialogue)
    if not hasattr(trained.model, "cache_shape"):  # a carried state has no limit
        return ids
    context = trained.config.context
    return ids[-max(1, context - tokens, context // 2) :]


def reply(trained: Trained, prompt: Array, options: argparse.Namespace, *, seed: int) -> Iterator[str]:
    """The pieces of the model's line: from its first character that is not white space to the end of that line."""
    has_begun = False
    for piece in stream_text(
        trained.parameters, model=trained.model, config=trained.config, tokenizer=trained.tokenizer, prompt=prompt,
        new_tokens=options.tokens, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p,
        greedy=options.greedy, seed=seed, device=options.device, ends=trained.ends,
    ):  # fmt: skip
        text = piece if has_begun else piece.lstrip()
        has_begun = has_begun or bool(text)
        line, end, _ = text.partition("\n")
        yield line
        if end:
            return
