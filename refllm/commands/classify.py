"""refllm classify: texts get labels. `fit` learns them, `predict` gives them, `evaluate` says how well."""

from __future__ import annotations

import argparse
from typing import Any

from refllm.commands import labelling
from refllm.commands.choices import add_architecture_arguments, add_optimiser_arguments
from refllm.commands.fitting import (
    add_run_arguments,
    add_smoothing_argument,
    begun,
    carry_out,
    config_of_the_run,
    fresh_bert,
    held_out_part,
    read_in_time,
    require_marks,
    settings_to_fit,
    start_of,
    tuning_of,
)
from refllm.commands.label_report import baseline_labels, print_comparison
from refllm.commands.labelling import add_column_arguments
from refllm.commands.verbs import Verb, add_verbs, run_verb
from refllm.commands.wording import part_of, time_told
from refllm.data.classification import marked_texts
from refllm.errors import UserError
from refllm.invocation import command
from refllm.metrics import accuracy
from refllm.models import bert
from refllm.presets import CLASSIFY_SIZES, FIT_EPOCHS
from refllm.run import Run
from refllm.tasks.classify import Classify, read_data

DESCRIPTION = """Learn the labels of texts from examples (fit), label other texts (predict), and measure it (evaluate).

example: refllm classify fit reviews.csv --text review --label stars --from runs/bert --out runs/stars
         refllm classify predict runs/stars "I read it twice." --json
         refllm classify evaluate runs/stars more_reviews.csv --text review --label stars"""

run = run_verb
LESS_MEMORY = "begin a run with a lower --batch, --context, --width or --layers"

FIT = """Learn labels from examples: a table (.csv, .tsv with a header, .jsonl) or a folder with a subfolder a label.

example: refllm classify fit reviews.csv --text review --label stars --from runs/bert --out runs/stars"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_verbs(
        parser,
        Verb("fit", "learn the labels of examples", FIT, add_fit_arguments, fit),
        Verb("predict", "label texts", labelling.PREDICT, labelling.add_predict_arguments, labelling.predict),
        Verb(
            "evaluate", "measure on examples", labelling.EVALUATE, labelling.add_evaluate_arguments, labelling.evaluate
        ),
    )


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("data", nargs="*", metavar="DATA", help="tables or folders with labelled texts")
    add_column_arguments(parser)
    add_run_arguments(parser, model="bert", validation=0.1, epochs=FIT_EPOCHS, patience=3, reports=10)
    add("--class-weights", action="store_true", help="every label weighs the same, however rare it is")
    add_smoothing_argument(parser, default=0.0)
    model = parser.add_argument_group("the model; only dropout is free where --from is given")
    model.add_argument("--vocabulary", type=int, help=f"WordPiece tokens (default {CLASSIFY_SIZES['vocabulary']})")
    add_architecture_arguments(model, bert.CHOICES)
    add_optimiser_arguments(parser)


def fit(options: argparse.Namespace) -> int:
    return carry_out(
        options, command="classify", add_arguments=add_fit_arguments, new_run=lambda: new_run(options),
        conclude=conclude,
    )  # fmt: skip


def new_run(options: argparse.Namespace) -> Run:
    if not options.data:
        raise UserError("there is nothing to learn from; give a table or folder of labelled texts")
    start = start_of(options, model="bert", choices=bert.CHOICES)
    read = read_data(options.data, text=options.text, label=options.label, validation=options.validation)
    heads: dict[str, Any] = {"outputs": ("classes",), "labels": len(read.labels)}
    if start is None:
        config, tokenizer = fresh_bert(options, CLASSIFY_SIZES, "\n".join(one.text for one in read.train), **heads)
    else:
        config, tokenizer = config_of_the_run(options, start, **heads, pooler=True), start.tokenizer
        require_marks(tokenizer, options.start)
    read = read_in_time(
        options, read, lambda some: marked_texts(
            [one.text for one in some], tokenizer=tokenizer, context=config.context
        ), length=lambda one: len(one.text),
    )  # fmt: skip
    task = Classify(
        config=config, tokenizer=tokenizer, read=read, data=options.data, text=options.text, label=options.label,
        validation=options.validation, balanced=options.class_weights, start=start, tuning=tuning_of(options),
        smoothing=options.label_smoothing,
    )  # fmt: skip
    settings = settings_to_fit(options, start)
    return begun(options, task=task, settings=settings, examples=len(read.train), epochs=FIT_EPOCHS)


def _task(prepared: Run) -> Classify:
    assert isinstance(prepared.task, Classify)
    return prepared.task


def conclude(prepared: Run) -> None:
    task = _task(prepared)
    read = held_out_part(task.read.validation, prepared)
    wanted = [str(one.label) for one in read]
    guesses, note = baseline_labels(task.counts, task.read.train, [one.text for one in read])
    summary = prepared.summarise({name: accuracy(wanted, given) for name, given in guesses.items()})
    print(f"\nOn {part_of(summary, 'texts')} (the weights of step {summary['best_step']:,}):\n")
    print_comparison(summary["accuracy"], summary["macro_f1"], wanted, guesses, task.labels)
    if note:
        print(note)
    print(
        f'\n{time_told(summary, prepared)}. Label a text: {command("classify", "predict", prepared.directory)} "TEXT"'
    )
