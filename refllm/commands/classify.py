"""refllm classify: texts get labels. `fit` learns them, `predict` gives them, `evaluate` says how well."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from refllm.backend import allow_tf32, device_namespace
from refllm.commands import labelling
from refllm.commands.choices import (
    ARCHITECTURE,
    add_device_arguments,
    add_optimiser_arguments,
    require_alone,
    settings_of,
)
from refllm.commands.label_report import baseline_labels, print_comparison
from refllm.commands.labelling import add_column_arguments
from refllm.commands.progress import carried_out
from refllm.commands.train import next_free
from refllm.errors import UserError
from refllm.finetune import TUNES
from refllm.metrics import accuracy
from refllm.models import bert
from refllm.plan import Plan
from refllm.run import Run
from refllm.tasks.classify import Classify, Labelled, Start, begun_from, read_data
from refllm.tokenizers import load as load_tokenizer
from refllm.tokenizers.wordpiece import WordPieceTokenizer
from refllm.workers import Workers, keep_freed_memory

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
    add("--validation", type=float, default=0.1, help="share of every label's texts that is held out (default 0.1)")
    add("--out", metavar="DIR", help="directory of the run (default: runs/ and the next free number)")
    add("--resume", metavar="DIR", help="go on with the run in DIR, with its own settings, bit for bit")
    add("--from", dest="start", metavar="RUN", help="begin from a run of bert: its tokenizer, sizes and weights")
    add("--tune", choices=sorted(TUNES), help="what of it is trained (default all)")
    add("--upper", type=int, metavar="N", help="with --tune upper: the last N layers and the head (default 1)")
    add("--rank", type=int, help="with --tune low-rank: of the adapters (default 8)")
    add("--alpha", type=float, help="with --tune low-rank: the adapters count alpha / rank (default 16)")
    add("--class-weights", action="store_true", help="every label weighs the same, however rare it is")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=float, help=f"train for so many passes over the texts (default {EPOCHS})")
    length.add_argument("--steps", type=int, help="train for this many steps")
    length.add_argument("--minutes", type=float, help="train for this long; the schedule follows the clock")
    add("--patience", type=int, default=3, help="reports without a better validation that end the run (default 3)")
    add("--reports", type=int, default=10, help="validations and checkpoints during the run (default 10)")
    add("--seed", type=int, default=1, help="of the weights, the order of the data and dropout (default 1)")
    add("--threads", type=int, help="workers, a share of the batch each (default: the cores)")
    add_device_arguments(parser)
    add("--dtype", choices=("float32", "float64"), default="float32", help="of all numbers (default float32)")
    model = parser.add_argument_group("the model; only dropout is free where --from is given")
    model.add_argument("--vocabulary", type=int, help=f"WordPiece tokens (default {SIZES['vocabulary']})")
    for name in bert.CHOICES:
        kind, text = ARCHITECTURE[name]
        model.add_argument(f"--{name}", type=kind, help=text.partition(" (")[0])
    add_optimiser_arguments(parser)


def fit(options: argparse.Namespace) -> int:
    keep_freed_memory()
    if options.resume:
        require_alone(options, add_fit_arguments)
        prepared = Run.resume(Path(options.resume), Workers)
        if not isinstance(prepared.task, Classify):
            raise UserError(f"{options.resume} is no run of a classifier; go on with it by the command that began it")
    else:
        prepared = new_run(options)
    task = prepared.task
    assert isinstance(task, Classify)
    with prepared.trainer.workers:
        introduce(prepared, task)
        if prepared.done and (prepared.directory / "summary.json").exists():
            print(f"The run is complete at step {prepared.trainer.step_number:,}: there is nothing left to do.")
            return 0
        if not carried_out(prepared, go_on="refllm classify fit"):
            return 130
        conclude(prepared, task)
    return 0


def new_run(options: argparse.Namespace) -> Run:
    if not options.data:
        raise UserError("there is nothing to learn from; give a table or folder of labelled texts")
    _require_useful(options)
    read = read_data(options.data, text=options.text, label=options.label, validation=options.validation)
    start = None if options.start is None else begun_from(Path(options.start), options.device)
    config, tokenizer = from_scratch(options, read) if start is None else from_run(options, read, start)
    tune = options.tune or "all"
    task = Classify(
        config=config, tokenizer=tokenizer, read=read, data=options.data, text=options.text, label=options.label,
        validation=options.validation, balanced=options.class_weights, start=start, tuning=_tuning(tune, options),
    )  # fmt: skip
    given = {key: value for key, value in vars(options).items() if value is not None}
    values = {**SETTINGS, "lr": RATES["scratch" if start is None else tune], **given}
    settings = settings_of(values, options)
    steps = options.steps
    if steps is None and options.minutes is None:
        epochs = EPOCHS if options.epochs is None else options.epochs
        if not (epochs > 0 and math.isfinite(epochs)):
            raise UserError(f"epochs must be above 0, got {epochs}")
        steps = math.ceil(epochs * math.ceil(len(read.train) / settings.batch))
    plan = Plan(steps=steps, minutes=options.minutes, reports=options.reports, patience=options.patience)
    out = Path(options.out) if options.out else next_free()
    workers = Workers(settings.shards, settings.blas_threads)
    return Run.begin(out, task=task, settings=settings, plan=plan, workers=workers)


def _require_useful(options: argparse.Namespace) -> None:
    """UserError for a flag that would have no effect."""
    tune = options.tune or "all"
    for flag, wanted in (("upper", "upper"), ("rank", "low-rank"), ("alpha", "low-rank")):
        if getattr(options, flag) is not None and tune != wanted:
            raise UserError(f"--{flag} belongs to --tune {wanted}; leave it out, or give that")
    if tune != "all" and options.start is None:
        raise UserError(f"--tune {tune} needs a trained model; give its run by --from, or tune all")
    if options.start is not None:
        for flag in ("vocabulary", *bert.CHOICES):
            if flag != "dropout" and getattr(options, flag) is not None:
                raise UserError(f"--{flag} is that of the run {options.start}; leave it out")


def _tuning(tune: str, options: argparse.Namespace) -> dict[str, Any]:
    if tune == "upper":
        return {"tune": tune, "layers": 1 if options.upper is None else options.upper}
    chosen = {"rank": options.rank, "alpha": options.alpha}
    return {"tune": tune, **{name: value for name, value in chosen.items() if value is not None}}


def from_scratch(options: argparse.Namespace, read: Labelled) -> tuple[bert.Config, Any]:
    """Fresh sizes, and pieces of words learnt from the training texts alone."""
    given = {name: getattr(options, name) for name in (*bert.CHOICES, "vocabulary")}
    sizes = {**SIZES, **{name: value for name, value in given.items() if value is not None}}
    sizes.setdefault("hidden", 4 * sizes["width"])
    text = "\n".join(one.text for one in read.train)
    tokenizer = WordPieceTokenizer.train(text, vocabulary=sizes.pop("vocabulary"), lower=True)
    config = bert.Config(vocabulary=tokenizer.size, **sizes, outputs=("classes",), labels=len(read.labels))
    return config, tokenizer


def from_run(options: argparse.Namespace, read: Labelled, start: Start) -> tuple[bert.Config, Any]:
    """The sizes and the tokenizer of the run, with a head for these labels."""
    try:
        config = bert.Config(**start.description["config"])
        tokenizer = load_tokenizer(start.description["tokenizer"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{start.directory}/checkpoint/state.json is damaged ({error}); use another run") from None
    dropout = config.dropout if options.dropout is None else options.dropout
    return replace(config, outputs=("classes",), labels=len(read.labels), dropout=dropout), tokenizer


def introduce(prepared: Run, task: Classify) -> None:
    settings, plan, config = prepared.settings, prepared.plan, task.config
    length = f"{plan.steps:,} steps" if plan.steps is not None else f"{plan.minutes:g} minutes"
    start = "from scratch" if task.start is None else f"from {task.start.directory}"
    print(
        f"data       {task.introduced()}\n"
        f"model      bert {start}, {config.layers} layers, width {config.width}, context {config.context}, "
        f"{task.tokenizer.size} tokens\n"
        f"training   {task.tuning.count:,} parameters ({100 * task.tuning.share:.1f} % of the model's), "
        f"at most {length}, batch {settings.batch}, seed {settings.seed}\n"
        f"directory  {prepared.directory}",
        flush=True,
    )


def conclude(prepared: Run, task: Classify) -> None:
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
