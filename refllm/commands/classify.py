"""refllm classify: texts get labels. `fit` learns them, `predict` gives them, `evaluate` says how well."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from refllm.backend import allow_tf32, device_namespace
from refllm.commands import labelling
from refllm.commands.choices import add_architecture_arguments, add_optimiser_arguments, settings_of
from refllm.commands.fitting import (
    add_run_arguments,
    begun,
    carry_out,
    config_of_the_run,
    fresh_bert,
    length_of,
    require_sizes_of_the_run,
)
from refllm.commands.label_report import baseline_labels, print_comparison
from refllm.commands.labelling import add_column_arguments
from refllm.errors import UserError
from refllm.finetune import TUNES
from refllm.metrics import accuracy
from refllm.models import bert
from refllm.run import Run
from refllm.tasks.classify import Classify, read_data
from refllm.tasks.start import begun_from

DESCRIPTION = """Learn the labels of texts from examples (fit), label other texts (predict), and measure it (evaluate).

example: refllm classify fit reviews.csv --text review --label stars --from runs/001 --out runs/stars
         refllm classify predict runs/stars "I read it twice." --json
         refllm classify evaluate runs/stars more_reviews.csv --text review --label stars"""

LESS_MEMORY = "begin a run with a lower --batch, --context, --width or --layers"

FIT = """Learn labels from examples: a table (.csv, .tsv with a header, .jsonl) or a folder with a subfolder a label.

example: refllm classify fit reviews.csv --text review --label stars --from runs/001 --out runs/stars"""

SETTINGS: dict[str, Any] = {
    "batch": 16, "warmup": 0.1, "floor": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.01, "clip": 1.0,
}  # fmt: skip
# The fewer parameters are trained, the longer steps they bear; large models, such as BERT base, want ten times less.
RATES = {"scratch": 1e-3, "all": 5e-4, "upper": 1e-3, "low-rank": 2e-3}
SIZES: dict[str, Any] = {"context": 64, "layers": 4, "heads": 4, "width": 128, "dropout": 0.1, "vocabulary": 4096}
EPOCHS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text, description, add, action in (
        ("fit", "learn the labels of examples", FIT, add_fit_arguments, fit),
        ("predict", "label texts", labelling.PREDICT, labelling.add_predict_arguments, labelling.predict),
        ("evaluate", "measure on examples", labelling.EVALUATE, labelling.add_evaluate_arguments, labelling.evaluate),
    ):
        one = actions.add_parser(
            name, help=text, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add(one)
        one.set_defaults(act=action)


def run(options: argparse.Namespace) -> int:
    device_namespace(options.device)
    allow_tf32(options.tf32, options.device)
    return int(options.act(options))


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("data", nargs="*", metavar="DATA", help="tables or folders with labelled texts")
    add_column_arguments(parser)
    add_run_arguments(parser, model="bert", validation=0.1, epochs=EPOCHS, patience=3, reports=10)
    add("--tune", choices=sorted(TUNES), help="what of it is trained (default all)")
    add("--upper", type=int, metavar="N", help="with --tune upper: the last N layers and the head (default 1)")
    add("--rank", type=int, help="with --tune low-rank: of the adapters (default 8)")
    add("--alpha", type=float, help="with --tune low-rank: the adapters count alpha / rank (default 16)")
    add("--class-weights", action="store_true", help="every label weighs the same, however rare it is")
    model = parser.add_argument_group("the model; only dropout is free where --from is given")
    model.add_argument("--vocabulary", type=int, help=f"WordPiece tokens (default {SIZES['vocabulary']})")
    add_architecture_arguments(model, bert.CHOICES)
    add_optimiser_arguments(parser)


def fit(options: argparse.Namespace) -> int:
    return carry_out(
        options, command="classify", add_arguments=add_fit_arguments, new_run=lambda: new_run(options),
        introduce=introduce, conclude=conclude,
    )  # fmt: skip


def new_run(options: argparse.Namespace) -> Run:
    if not options.data:
        raise UserError("there is nothing to learn from; give a table or folder of labelled texts")
    _require_useful(options)
    read = read_data(options.data, text=options.text, label=options.label, validation=options.validation)
    start = None if options.start is None else begun_from(Path(options.start), model="bert", device=options.device)
    heads: dict[str, Any] = {"outputs": ("classes",), "labels": len(read.labels)}
    if start is None:
        config, tokenizer = fresh_bert(options, SIZES, "\n".join(one.text for one in read.train), **heads)
    else:
        config, tokenizer = config_of_the_run(options, start, **heads), start.tokenizer
    tune = options.tune or "all"
    task = Classify(
        config=config, tokenizer=tokenizer, read=read, data=options.data, text=options.text, label=options.label,
        validation=options.validation, balanced=options.class_weights, start=start, tuning=_tuning(tune, options),
    )  # fmt: skip
    given = {key: value for key, value in vars(options).items() if value is not None}
    values = {**SETTINGS, "lr": RATES["scratch" if start is None else tune], **given}
    settings = settings_of(values, options)
    return begun(options, task=task, settings=settings, examples=len(read.train), epochs=EPOCHS)


def _require_useful(options: argparse.Namespace) -> None:
    """UserError for a flag that would have no effect."""
    tune = options.tune or "all"
    for flag, wanted in (("upper", "upper"), ("rank", "low-rank"), ("alpha", "low-rank")):
        if getattr(options, flag) is not None and tune != wanted:
            raise UserError(f"--{flag} belongs to --tune {wanted}; leave it out, or give that")
    if tune != "all" and options.start is None:
        raise UserError(f"--tune {tune} needs a trained model; give its run by --from, or tune all")
    if options.start is not None:
        require_sizes_of_the_run(options, bert.CHOICES)


def _tuning(tune: str, options: argparse.Namespace) -> dict[str, Any]:
    if tune == "upper":
        return {"tune": tune, "layers": 1 if options.upper is None else options.upper}
    chosen = {"rank": options.rank, "alpha": options.alpha}
    return {"tune": tune, **{name: value for name, value in chosen.items() if value is not None}}


def _task(prepared: Run) -> Classify:
    assert isinstance(prepared.task, Classify)
    return prepared.task


def introduce(prepared: Run) -> None:
    settings, task = prepared.settings, _task(prepared)
    config = task.config
    start = "from scratch" if task.start is None else f"from {task.start.directory}"
    print(
        f"data       {task.introduced()}\n"
        f"model      bert {start}, {config.layers} layers, width {config.width}, context {config.context}, "
        f"{task.tokenizer.size} tokens\n"
        f"training   {task.tuning.count:,} parameters ({100 * task.tuning.share:.1f} % of the model's), "
        f"at most {length_of(prepared)}, batch {settings.batch}, seed {settings.seed}\n"
        f"directory  {prepared.directory}",
        flush=True,
    )


def conclude(prepared: Run) -> None:
    task = _task(prepared)
    wanted = [str(one.label) for one in task.read.validation]
    guesses, note = baseline_labels(task.counts, task.read.train, [one.text for one in task.read.validation])
    summary = prepared.summarise({name: accuracy(wanted, given) for name, given in guesses.items()})
    print(f"\nOn the {len(wanted):,} texts held out (the weights of step {summary['best_step']:,}):\n")
    print_comparison(summary["accuracy"], summary["macro_f1"], wanted, guesses, task.labels)
    if note:
        print(note)
    print(
        f"\n{summary['steps']:,} steps in {summary['seconds']:.0f} s. "
        f'Label a text: refllm classify predict {prepared.directory} "TEXT"'
    )
