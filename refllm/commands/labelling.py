"""refllm classify predict and evaluate: labels for texts, and how good they are."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refllm.commands.choices import add_device_arguments
from refllm.commands.label_report import as_json, baseline_labels, confusion_table, label_table, print_comparison
from refllm.data.classification import by_length, marked_texts
from refllm.data.corpus import decoded
from refllm.data.examples import SUFFIXES, Example, read_labelled
from refllm.errors import UserError
from refllm.metrics import accuracy, confusion_matrix, macro_scores
from refllm.run import Trained, load_model
from refllm.tasks.classify import read_data
from refllm.tasks.labels import (
    PROMPT,
    label_log_probabilities,
    log_sum_exp,
    mean_of_probabilities,
    most_probable,
    sentence_labels,
)
from refllm.workers import Workers, available_cores

PREDICT = """Label texts: arguments (right after RUN), the lines of a file, or those of the standard input.

example: refllm classify predict runs/stars "I read it twice." --with runs/other
         refllm classify predict runs/001 "I read it twice." --labels good bad --examples few.csv"""

EVALUATE = """Measure a run on labelled examples, beside the most frequent label and Naive Bayes.

example: refllm classify evaluate runs/stars more_reviews.csv --text review --label stars"""


@dataclass(frozen=True)
class Labeller:
    """What gives log P(label | text), a row a text, and what it is, for people; `run` is its (first) run."""

    name: str
    labels: list[str]
    rows: Callable[[Sequence[str]], list[list[float]]]
    run: Trained


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", default="text", metavar="COLUMN", help="of the texts in a table (default text)")
    parser.add_argument("--label", default="label", metavar="COLUMN", help="of the labels in a table (default label)")


def add_labeller_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--with", action="append", default=[], dest="others", metavar="RUN",
        help="another classifier for the same labels; the probabilities are averaged (may be given several times)",
    )  # fmt: skip
    add("--labels", nargs="+", metavar="LABEL", help="for a run of a language model: the labels to choose among")
    add("--prompt", help=f"for a language model: how it is asked (default {PROMPT!r})")
    add("--examples", metavar="FILE", help="for a language model: labelled texts that it is shown first")
    add("--json", action="store_true", help="the result as JSON")
    add("--threads", type=int, help="texts that are read at the same time (default: the cores)")
    add_device_arguments(parser)


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="a run of refllm classify fit, or of a language model")
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="texts to label")
    parser.add_argument("--file", help="texts to label: a line a text, or a table with a column of texts")
    add_column_arguments(parser)
    add_labeller_arguments(parser)


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="a run of refllm classify fit, or of a language model")
    parser.add_argument("data", metavar="DATA", nargs="+", help="tables or folders with labelled texts")
    add_column_arguments(parser)
    add_labeller_arguments(parser)


def predict(options: argparse.Namespace) -> int:
    texts = texts_of(options)
    with _workers(options) as workers:
        labeller = labeller_of(options, workers)
        rows = labeller.rows(texts)
    longest = max(map(len, labeller.labels))
    for text, row in zip(texts, rows, strict=True):
        whole = log_sum_exp(row)
        probabilities = {label: math.exp(x - whole) for label, x in zip(labeller.labels, row, strict=True)}
        label = labeller.labels[most_probable(row)]
        if options.json:
            answer = {"text": text, "label": label, "probabilities": probabilities}
            print(json.dumps(answer, ensure_ascii=False))
        else:
            room = max(20, shutil.get_terminal_size().columns - longest - 10)
            print(f"{label:<{longest}}  {probabilities[label]:.3f}  {_line(text, room)}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    examples = read_labelled(options.data, text=options.text, label=options.label, needs_label=True)
    texts, wanted = [one.text for one in examples], [str(one.label) for one in examples]
    with _workers(options) as workers:
        labeller = labeller_of(options, workers)
        labels = labeller.labels
        for one in examples:
            if one.label not in labels:
                raise UserError(
                    f"{one.where}: the label {one.label!r} was never seen in training, which had {', '.join(labels)}; "
                    "correct it or leave the line out"
                )
        given = [labels[most_probable(row)] for row in labeller.rows(texts)]
    guesses: dict[str, list[str]] = {}
    note = "(no baselines: a language model has no training labels)"
    if "label_counts" in labeller.run.description:
        guesses, note = _baselines(labeller.run.description, texts)
    confusion = confusion_matrix(wanted, given, labels)
    if options.json:
        print(json.dumps(as_json(wanted, given, labels, guesses), ensure_ascii=False))
        if note:
            print(note, file=sys.stderr)
        return 0
    print(f"{len(texts):,} texts by {labeller.name}\n")
    print_comparison(accuracy(wanted, given), macro_scores(confusion).f1, wanted, guesses, labels)
    print(*filter(None, [note]), *label_table(labels, confusion), *confusion_table(labels, confusion), sep="\n")
    return 0


def texts_of(options: argparse.Namespace) -> list[str]:
    """The texts to label, from wherever they come. UserError for an empty one."""
    if options.texts and options.file:
        raise UserError("give texts or --file, not both")
    if options.file and Path(options.file).suffix in SUFFIXES:
        rows = read_labelled([options.file], text=options.text, label=options.label, needs_label=False)
        return [one.text for one in rows]
    name, texts = "argument", options.texts
    if options.file:
        name, texts = options.file, decoded(Path(options.file)).removesuffix("\n").split("\n")
    elif not texts:
        name, texts = "standard input", standard_input_lines()
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise UserError(f"{name}:{number}: the text is empty; fill it in or leave it out")
    if not texts:
        raise UserError("there is no text to label; give some after RUN, by --file or on the standard input")
    return list(texts)


def standard_input_lines() -> list[str]:
    raw = sys.stdin.buffer.read()
    try:
        return raw.decode().splitlines()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"standard input:{line}: not UTF-8 text; give texts in UTF-8") from None


def labeller_of(options: argparse.Namespace, workers: Workers) -> Labeller:
    """The classifier of the run, several together, or a language model that is asked for labels."""
    first = load_model(Path(options.run_directory), options.device)
    of_language = {"--labels": options.labels, "--prompt": options.prompt, "--examples": options.examples}
    if first.description.get("task") == "classify":
        if given := [flag for flag, value in of_language.items() if value]:
            raise UserError(f"{given[0]} is for a language model; {options.run_directory} has its labels: leave it out")
        return _classifiers(first, options, workers)
    if not (options.labels or options.examples):
        raise UserError(
            f"{options.run_directory} is a run of {first.description['model']}, no classifier; give one of "
            "refllm classify fit, or --labels if it is a language model"
        )
    return _asked(first, options)


def _classifiers(first: Trained, options: argparse.Namespace, workers: Workers) -> Labeller:
    members, labels = [first], first.description["labels"]
    for directory in options.others:
        other = load_model(Path(directory), options.device)
        if other.description.get("labels") != labels:
            raise UserError(f"{directory} is no classifier for the labels {', '.join(labels)}; leave it out")
        members.append(other)

    def rows(texts: Sequence[str]) -> list[list[float]]:
        each, cuts = [], {}
        for one in members:
            tokenizer: Any = one.tokenizer  # of the kinds with special tokens
            marked, cuts[one.config.context] = marked_texts(texts, tokenizer=tokenizer, context=one.config.context)
            pieces = by_length(marked, pad=tokenizer.special.pad)
            each.append(
                label_log_probabilities(
                    one.parameters, pieces, config=one.config, device=options.device, workers=workers
                )
            )
        context, cut = max(cuts.items(), key=lambda item: item[1])
        if cut:
            print(
                f"{cut:,} of {len(texts):,} texts are longer than the context of {context} tokens: "
                "they are read up to there",
                file=sys.stderr,
            )
        return mean_of_probabilities(each)

    return Labeller(", ".join([options.run_directory, *options.others]), labels, rows, first)


def _asked(run: Trained, options: argparse.Namespace) -> Labeller:
    """A language model and what it is asked."""
    kind = run.description.get("task", "language")
    if kind not in ("language", "counting"):
        raise UserError(f"{options.run_directory} is a run of {kind}, no language model; give one of refllm train")
    if options.others:
        raise UserError("--with is for classifiers; leave it out with a language model")
    shown: list[Example] = []
    if options.examples:
        shown = read_labelled([options.examples], text=options.text, label=options.label, needs_label=True)
    labels = options.labels or sorted({str(one.label) for one in shown})
    if len(set(labels)) < max(2, len(labels)):
        raise UserError(f"labels must be at least two different ones; got {' '.join(labels)}")

    def rows(texts: Sequence[str]) -> list[list[float]]:
        found, most = [], 0
        for text in texts:
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
        return found

    return Labeller(options.run_directory, labels, rows, run)


def _baselines(description: dict[str, Any], texts: Sequence[str]) -> tuple[dict[str, list[str]], str]:
    try:
        read = read_data(description["data"], **description["columns"])
        train = read.train if read.digest == description["examples_sha256"] else None
    except UserError:
        train = None  # moved or changed since; the note says so
    return baseline_labels(description["label_counts"], train, texts)


def _workers(options: argparse.Namespace) -> Workers:
    cores = available_cores() if options.device == "cpu" else 1
    if options.threads is not None and options.threads < 1:
        raise UserError(f"threads must be at least 1, got {options.threads}")
    return Workers(options.threads or cores)


def _line(text: str, room: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= room else line[: room - 1] + "…"
