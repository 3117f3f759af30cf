"""refllm classify predict and evaluate: labels for texts, and how good they are."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from refllm.cells import cut, padded, widest
from refllm.commands.choices import add_device_arguments
from refllm.commands.label_report import (
    as_json,
    baseline_labels,
    confusion_table,
    label_table,
    print_comparison,
    shown,
)
from refllm.commands.labellers import labeller_of, together
from refllm.commands.texts import texts_of
from refllm.data.examples import Example, read_labelled
from refllm.errors import UserError
from refllm.metrics import accuracy, confusion_matrix, macro_scores
from refllm.tasks.classify import read_again
from refllm.tasks.labels import (
    PROMPT,
    log_sum_exp,
    most_probable,
)
from refllm.workers import Workers, available_cores, require_threads

PREDICT = """Label texts: arguments (right after RUN), the lines of a file, or those of the standard input.

example: refllm classify predict runs/stars "I read it twice." --with runs/other
         refllm classify predict runs/001 "I read it twice." --labels good bad --examples few.csv"""

EVALUATE = """Measure a run on labelled examples, beside the most frequent label and Naive Bayes.

example: refllm classify evaluate runs/stars more_reviews.csv --text review --label stars"""


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
    parser.add_argument("--cut", action="store_true", help="of texts longer than the model read the beginning alone")
    add_column_arguments(parser)
    add_labeller_arguments(parser)


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="a run of refllm classify fit, or of a language model")
    parser.add_argument("data", metavar="DATA", nargs="+", help="tables or folders with labelled texts")
    add_column_arguments(parser)
    add_labeller_arguments(parser)


def predict(options: argparse.Namespace) -> int:
    texts = texts_of(options, column=options.text)
    with _workers(options) as workers:
        labeller = labeller_of(options, workers, may_cut=options.cut)
        rows = together(labeller.each(texts))
    longest = widest(map(shown, labeller.labels))
    for (text, _), row in zip(texts, rows, strict=True):
        whole = log_sum_exp(row)
        probabilities = {label: math.exp(x - whole) for label, x in zip(labeller.labels, row, strict=True)}
        label = labeller.labels[most_probable(row)]
        if options.json:
            answer = {"text": text, "label": label, "probabilities": probabilities}
            print(json.dumps(answer))
        else:
            room = max(20, shutil.get_terminal_size().columns - longest - 10)
            print(f"{padded(shown(label), longest)}  {probabilities[label]:.3f}  {_line(text, room)}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    examples = read_labelled(options.data, text=options.text, label=options.label, needs_label=True)
    texts, wanted = [one.text for one in examples], [str(one.label) for one in examples]
    with _workers(options) as workers:
        labeller = labeller_of(options, workers, may_cut=True)
        labels = labeller.labels
        for one in examples:
            if one.label not in labels:
                raise UserError(
                    f"{one.where}: the label {one.label!r} was never seen in training, which had {', '.join(labels)}; "
                    "correct it or leave the line out"
                )
        each = labeller.each([(one.text, one.where) for one in examples])
    given = labeller.answers(together(each))
    members = [(name, labeller.answers(rows)) for name, rows in zip(labeller.names, each, strict=True)]
    members = members if len(members) > 1 else []
    guesses: dict[str, list[str]] = {}
    note = "(no baselines: a language model has no training labels)"
    if "label_counts" in labeller.run.description:
        guesses, note = _baselines(labeller.run.description, texts)
    confusion = confusion_matrix(wanted, given, labels)
    if options.json:
        print(json.dumps(as_json(wanted, given, labels, guesses, members)))
        if note:
            print(note, file=sys.stderr)
        return 0
    print(f"{len(texts):,} texts by {', '.join(labeller.names)}\n")
    print_comparison(accuracy(wanted, given), macro_scores(confusion).f1, wanted, guesses, labels, members)
    print(*filter(None, [note]), *label_table(labels, confusion), *confusion_table(labels, confusion), sep="\n")
    return 0


def _baselines(description: dict[str, Any], texts: Sequence[str]) -> tuple[dict[str, list[str]], str]:
    try:
        train: list[Example] | None = read_again(description).train
    except UserError:
        train = None  # moved or changed since; the note says so
    return baseline_labels(description["label_counts"], train, texts)


def _workers(options: argparse.Namespace) -> Workers:
    cores = available_cores() if options.device == "cpu" else 1
    if options.threads is not None:
        require_threads(options.threads)
    return Workers(options.threads or cores)


def _line(text: str, room: int) -> str:
    return cut(" ".join(text.split()), room)
