"""The command line: `refllm COMMAND ...`.

A mistake of the user ends in one line on stderr and exit status 2, never in a traceback.
"""

from __future__ import annotations

import argparse
import importlib
import io
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import refllm
from refllm import ranks
from refllm.backend import is_out_of_memory
from refllm.commands.streams import (
    INTERRUPTED,
    NO_READER,
    ended_politely,
    fill_closed_streams,
    lead_nowhere,
)
from refllm.errors import UserError
from refllm.extras import optional_parts
from refllm.invocation import begin_command, retold, typed

COMMANDS = {
    "train": "train a model on text",
    "pretrain": "make the BERT or encoder-decoder that fit --from starts from",
    "runs": "list what has been trained",
    "compare": "train every language model on the same text and compare them",
    "generate": "write text with a trained model",
    "score": "the probability and perplexity of a text",
    "classify": "learn labels of texts, give them, measure them",
    "translate": "learn to translate from pairs, translate, measure it",
    "summarise": "learn to summarise from pairs, summarise, measure it",
    "answer": "learn to answer questions about texts, answer, measure it",
    "chat": "talk with a trained language model",
    "explain": "which tokens a label comes from, and what each head attends to",
    "compress": "make a trained model smaller: distil, prune, quantise",
    "embed": "vectors of texts",
    "scaling": "predict time, memory and money of a training on many processes",
    "inspect": "what a run or a published model is, before it is loaded",
    "export": "write a model in the layout of Hugging Face",
    "taps": "what a model computes on its way; where a port of it differs",
    "verify": "check an implementation against the golden files",
}


# What no model or training has so many of: a larger number fills the memory before it is refused elsewhere.
MOST = {
    "batch": 1 << 20, **dict.fromkeys(("layers", "encoder_layers", "decoder_layers", "heads", "kv_heads"), 1 << 16),
    "experts": 1 << 16,
}  # fmt: skip
LARGEST = 1 << 53  # of all other whole numbers: a checkpoint stores them so
PLACES = ("PATH", "DIR", "FILE", "RUN", "DATA")  # what stands for a file or a folder in the help


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the usage before it, and which page helps: that of the
    command or verb that was given them. So is an empty name of a file or folder, which would count as none or as the
    current one, and a number that nothing has so many of."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # each command's parser, too
        options, unknown = super().parse_known_args(args, namespace)
        for action in self._actions:
            given = getattr(options, action.dest, None)
            is_place = (action.metavar or action.dest.upper()) in PLACES
            if is_place and "" in (given if isinstance(given, list) else [given]):
                name = (*action.option_strings, str(action.metavar))[0]
                raise UserError(f"{name} is empty; name a file or folder, or leave it out")
            most = MOST.get(action.dest, LARGEST - 1)
            if isinstance(given, int) and given > most:
                raise UserError(f"{action.option_strings[0]} must be at most {most:,}, got {given:,}")
        if unknown:  # that of a verb is asked before that of its command
            raise UserError(f"no such argument: {shlex.join(unknown)}; see {self.prog} --help")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"refllm{self.prog.removeprefix(typed())}: {message}; see {self.prog} --help\n")


def module(command: str) -> Any:
    """The file of a command. Only the one that was asked for is loaded, so that a command starts at once."""
    return importlib.import_module(f"refllm.commands.{command}")


def parser(command: str | None) -> Parser:
    """Knows every command by its name, and the arguments of one of them."""
    top = Parser(
        prog=typed(), description="The executable specification of a language model.", epilog=optional_parts(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    top.add_argument("--version", action="version", version=f"refllm {refllm.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", prog=top.prog)
    for name, text in COMMANDS.items():
        each = commands.add_parser(name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == command:
            chosen = module(name)
            each.description = retold(chosen.DESCRIPTION)
            chosen.add_arguments(each)
            each.set_defaults(run=chosen.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit status."""
    fill_closed_streams()
    if arguments is None:
        begin_command(refllm.IMPORTED)
    words = sys.argv[1:] if arguments is None else list(arguments)
    command = next((word for word in words if word in COMMANDS), None)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what a terminal cannot show appears as its code
    try:
        with ended_politely():
            options = parser(command).parse_args(words)
            status = _carried_out(options, words)
            sys.stdout.flush()  # a full disk is said here, where it can be
            return status
    except UserError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return _refuse("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has left, as in `refllm generate | head`
        lead_nowhere(sys.stdout)
        return NO_READER
    except OSError as error:
        lead_nowhere(sys.stdout)
        place = error.filename or "input or output"
        return _refuse(f"{place}: {error.strerror or error}; check the place, its permissions and the free space")
    except Exception as error:
        if is_out_of_memory(error):
            return _refuse(f"out of memory ({error}); {module(str(command)).LESS_MEMORY}")
        raise


def _carried_out(options: argparse.Namespace, words: Sequence[str]) -> int:
    """The command, by this process or on several ranks; its exit status."""
    if ranks.count() == 1 and getattr(options, "ranks", None) in (None, 1):
        return int(options.run(options))
    return int(module("following").run(options, words))


def _refuse(line: str, status: int = 2) -> int:
    try:
        print(f"refllm: {' '.join(line.split())}", file=sys.stderr, flush=True)
    except (OSError, ValueError):  # there is no reader; the status says it
        lead_nowhere(sys.stderr)
    return status
