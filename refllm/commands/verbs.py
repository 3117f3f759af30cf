"""What the commands of a task have in common: the verbs fit, predict and evaluate, and the run that fit leaves."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from refllm.backend import allow_tf32, device_namespace
from refllm.errors import UserError
from refllm.invocation import command, retold
from refllm.trained import Trained, load_model

PUBLISHED = {"seq2seq": "encoder-decoder (T5, BART, Switch)", "span": "BertForQuestionAnswering"}  # by task


class Verb(NamedTuple):
    """A part of a command, with arguments of its own."""

    name: str
    help: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    act: Callable[[argparse.Namespace], int]


def add_verbs(parser: argparse.ArgumentParser, *verbs: Verb) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", prog=parser.prog)
    for verb in verbs:
        one = actions.add_parser(
            verb.name, help=verb.help, description=retold(verb.description),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        verb.add_arguments(one)
        one.set_defaults(act=verb.act)


def run_verb(options: argparse.Namespace) -> int:
    device_namespace(options.device)
    allow_tf32(options.tf32, options.device)
    return int(options.act(options))


def fitted(directory: str, device: str, *, task: str, learns: str, by: tuple[str, ...]) -> Trained:
    """The model of a run of `fit`, or a published one that does the same. UserError for one of another task."""
    run = load_model(Path(directory), device)
    if run.description.get("task") != task:
        what = "published model" if "published" in run.description else "run"
        fits = " or ".join(command(*one.split()) for one in by)
        raise UserError(
            f"{directory} is a {what} of {run.description['model']} that has learnt no {learns}; give a run of {fits}, "
            f"or a published {PUBLISHED[task]}"
        )
    return run
