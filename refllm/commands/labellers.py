"""What labels texts: the classifier of a run, several together, or a language model that is asked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from refllm.commands.texts import require_text
from refllm.data.classification import MARKS, by_length, marked_texts
from refllm.data.examples import Example, read_labelled
from refllm.errors import UserError
from refllm.invocation import command
from refllm.tasks.labels import (
    PROMPT,
    label_log_probabilities,
    mean_of_probabilities,
    most_probable,
    sentence_labels,
)
from refllm.trained import Trained, load_model, require_language_model
from refllm.workers import Workers

Text: TypeAlias = tuple[str, str]  # and where it comes from
Rows: TypeAlias = list[list[float]]  # log P(label | text), a row a text


@dataclass(frozen=True)
class Labeller:
    """What gives log P(label | text): a row a text for each of its members, which `names` tells; `run` is the first."""

    names: list[str]
    labels: list[str]
    each: Callable[[Sequence[Text]], list[Rows]]
    run: Trained

    def answers(self, rows: Rows) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[most_probable(row)] for row in rows]


def labeller_of(options: argparse.Namespace, workers: Workers, *, may_cut: bool) -> Labeller:
    """The classifier of the run, several together, or a language model that is asked for labels.

    A text that is longer than a classifier's context is read up to there, if that may be, and else refused.
    """
    first = load_model(Path(options.run_directory), options.device)
    of_language = {"--labels": options.labels, "--prompt": options.prompt, "--examples": options.examples}
    if first.description.get("task") == "classify":
        if given := [flag for flag, value in of_language.items() if value]:
            raise UserError(f"{given[0]} is for a language model; {options.run_directory} has its labels: leave it out")
        return _classifiers(first, options, workers, may_cut=may_cut)
    if not (options.labels or options.examples):
        what = "published model" if "published" in first.description else "run"
        raise UserError(
            f"{options.run_directory} is a {what} of {first.description['model']}, no classifier; give one of "
            f"{command('classify', 'fit')}, or --labels if it is a language model"
        )
    return _asked(first, options)


def _classifiers(first: Trained, options: argparse.Namespace, workers: Workers, *, may_cut: bool) -> Labeller:
    members, labels = [first], first.description["labels"]
    for directory in options.others:
        other = load_model(Path(directory), options.device)
        if other.description.get("labels") != labels:
            raise UserError(f"{directory} is no classifier for the labels {', '.join(labels)}; leave it out")
        members.append(other)

    def each(texts: Sequence[Text]) -> list[Rows]:
        found = []
        _tell_long_ones(members, texts, may_cut=may_cut)
        for one in members:
            tokenizer: Any = one.tokenizer  # of the kinds with special tokens
            marked, _ = marked_texts([text for text, _ in texts], tokenizer=tokenizer, context=one.config.context)
            pieces = by_length(marked, pad=tokenizer.special.pad)
            found.append(
                label_log_probabilities(
                    one.parameters, pieces, config=one.config, device=options.device, workers=workers
                )
            )
        return found

    return Labeller([options.run_directory, *options.others], labels, each, first)


def _tell_long_ones(members: Sequence[Trained], texts: Sequence[Text], *, may_cut: bool) -> None:
    """Says on the standard error how many texts are longer than a model; UserError for the first if none may be."""
    found = []
    for one in members:
        lengths = [(len(one.tokenizer.encode(text)) + MARKS, where) for text, where in texts]
        found.append(([(n, where) for n, where in lengths if n > one.config.context], one.config.context))
    long, context = max(found, key=lambda item: len(item[0]))
    if long and not may_cut:
        length, where = long[0]
        raise UserError(
            f"{where}: the text has {length} tokens with its marks, and the model reads {context} at once; shorten it, "
            "or give --cut to have its beginning read"
        )
    if long:
        print(
            f"texts longer than the context of {context} tokens, read up to there: {len(long):,} of {len(texts):,}, "
            f"the first in {long[0][1]}",
            file=sys.stderr,
        )


def together(each: Sequence[Rows]) -> Rows:
    """The probabilities of all members in one."""
    return each[0] if len(each) == 1 else mean_of_probabilities(each)


def _asked(run: Trained, options: argparse.Namespace) -> Labeller:
    """A language model and what it is asked."""
    kind = run.description.get("task", "language")
    if kind not in ("language", "counting"):
        raise UserError(
            f"{options.run_directory} has learnt {kind} and is no language model; give one of {command('train')}"
        )
    if kind == "language":
        require_language_model(run, Path(options.run_directory))
    if options.others:
        raise UserError("--with is for classifiers; leave it out with a language model")
    shown: list[Example] = []
    if options.examples:
        shown = read_labelled([options.examples], text=options.text, label=options.label, needs_label=True)
    for label in options.labels or ():
        require_text(label, "--labels")
    labels = [label.strip() for label in options.labels or sorted({str(one.label) for one in shown})]
    for one in shown:
        if one.label not in labels:
            raise UserError(
                f"{one.where}: the label {one.label!r} is not among {', '.join(labels)}; add it to --labels or leave "
                "the line out"
            )
    if len(set(labels)) < max(2, len(labels)):
        raise UserError(f"labels must be at least two different ones; got {' '.join(labels)}")

    def each(texts: Sequence[Text]) -> list[Rows]:
        found, most = [], 0
        for text, _ in texts:
            row, lost = sentence_labels(
                run.parameters, text, labels=labels, examples=[(one.text, str(one.label)) for one in shown],
                prompt=options.prompt or PROMPT, model=run.model, config=run.config, tokenizer=run.tokenizer,
                device=options.device,
            )  # fmt: skip
            found.append(row)
            most = max(most, lost)
        if most:
            print(
                f"prompts are longer than the context of {run.config.context} tokens: they lose up to {most:,} tokens "
                "of their beginning",
                file=sys.stderr,
            )
        return [found]

    return Labeller([options.run_directory], labels, each, run)
