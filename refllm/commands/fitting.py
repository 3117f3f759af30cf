"""What the commands that learn a task from examples share: where a run goes, what it begins from and what of that it
trains, how long it takes."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from refllm.backend import allow_tf32
from refllm.commands.choices import add_length_arguments, add_machine_arguments, require_alone, settings_of
from refllm.commands.progress import carried_out, complete, make_longer
from refllm.commands.streams import INTERRUPTED, lasting_output
from refllm.commands.train import next_free
from refllm.commands.wording import counted, length_of, who_works
from refllm.data.batching import evenly
from refllm.data.part import Examples, part_of_examples, share_of
from refllm.errors import UserError
from refllm.finetune import TUNES, Tuning
from refllm.invocation import began
from refllm.invocation import command as typed_command
from refllm.models import bert
from refllm.parameters import count
from refllm.plan import Plan
from refllm.presets import CLASSIFY_SIZES, FIT_SETTINGS, rates
from refllm.ranks import PARAMETERS
from refllm.ranks import workers as workers_of
from refllm.run import Run
from refllm.tasks import Task
from refllm.tasks.start import Start, begun_from
from refllm.tasks.text import learnable
from refllm.tokenizers.wordpiece import WordPieceTokenizer
from refllm.train import Settings
from refllm.workers import keep_freed_memory

Read = TypeVar("Read", bound=Examples[Any])


class Fitted(Task, Protocol):
    """A task that may begin from another run, and train a part of it."""

    start: Start | None
    tuning: Tuning


def add_run_arguments(
    parser: argparse.ArgumentParser, *, model: str, validation: float, epochs: float, patience: int, reports: int
) -> None:
    add = parser.add_argument
    add("--validation", type=float, default=validation, help=f"share that is held out (default {validation:g})")
    add("--out", metavar="DIR", help="directory of the run (default: runs/ and the next free number)")
    add("--resume", metavar="DIR", help="go on with the run in DIR, with its own settings, bit for bit")
    add(
        "--from",
        dest="start",
        metavar="RUN",
        help=f"begin from a run of {model} or a published one: tokenizer, sizes, weights",
    )
    length = add_length_arguments(parser)
    length.add_argument("--epochs", type=float, help=f"train for so many passes over the data (default {epochs:g})")
    add("--patience", type=int, default=patience, help=f"reports without progress that end it (default {patience})")
    add("--reports", type=int, default=reports, help=f"validations and checkpoints on the way (default {reports})")
    add_tuning_arguments(parser)
    add_machine_arguments(parser)


def add_tuning_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the part of the model of --from that is trained").add_argument
    add("--tune", choices=sorted(TUNES), help="all, the upper layers, or low-rank adapters (default all)")
    add("--upper", type=int, metavar="N", help="with --tune upper: the last N layers and what follows (default 1)")
    add("--rank", type=int, help="with --tune low-rank: of the adapters (default 4)")
    add("--alpha", type=float, help="with --tune low-rank: the adapters count alpha / rank (default 16)")


def add_smoothing_argument(parser: argparse.ArgumentParser, *, default: float) -> None:
    parser.add_argument(
        "--label-smoothing", type=float, metavar="E", default=default,
        help=f"spread E of every target over all, 0 <= E < 1; losses held out are without (default {default:g})",
    )  # fmt: skip


def begun(options: argparse.Namespace, *, task: Task, settings: Settings, examples: int, epochs: float) -> Run:
    """A new run, as long as the options say, or for so many epochs of the examples."""
    steps = options.steps
    if steps is None and options.minutes is None:
        epochs = epochs if options.epochs is None else options.epochs
        if not (epochs > 0 and math.isfinite(epochs)):
            raise UserError(f"epochs must be a finite number above 0, got {epochs}")
        steps = math.ceil(epochs * math.ceil(examples / settings.batch))
    plan = Plan(steps=steps, minutes=options.minutes, reports=options.reports, patience=options.patience)
    out = Path(options.out) if options.out else next_free()
    workers = workers_of(settings.shards, settings.blas_threads, shard=options.shard)
    return Run.begin(out, task=task, settings=settings, plan=plan, workers=workers)


def carry_out(
    options: argparse.Namespace,
    *,
    command: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    new_run: Callable[[], Run],
    conclude: Callable[[Run], None],
    afterwards: float = 1.0,
) -> int:
    """`fit`: a new run, or one that is gone on with; the exit status. Of the minutes of a run so many seconds are kept
    for `conclude`, beside the evaluation."""
    since = began()
    keep_freed_memory()
    if options.resume:
        require_alone(options, add_arguments)
        prepared = Run.resume(Path(options.resume), partial(workers_of, shard=options.shard))
        whose = prepared.description.get("command", prepared.description.get("task", "language"))
        if whose != command:
            raise UserError(f"{options.resume} is a run of {whose}; go on with it by the command that began it")
        make_longer(prepared, options, since)
        allow_tf32(prepared.settings.tf32, prepared.settings.device)
    else:
        prepared = new_run()
        prepared.clock.count_from(since)
    prepared.budget.wanted_afterwards = afterwards
    with prepared.trainer.workers, prepared.held(), lasting_output():
        introduce(prepared)
        if prepared.concluded:
            print(complete(prepared, command, "fit"))
            return 0
        if not carried_out(prepared, go_on=typed_command(command, "fit")):
            return INTERRUPTED
        conclude(prepared)
    return 0


def start_of(options: argparse.Namespace, *, model: str, choices: tuple[str, ...]) -> Start | None:
    """The run that is begun from, if any. UserError for a flag that would have no effect: of the sizes of the run,
    `choices` and the vocabulary, dropout alone is free, and what is trained is chosen for a run alone."""
    tune = options.tune or "all"
    for flag, wanted in (("upper", "upper"), ("rank", "low-rank"), ("alpha", "low-rank")):
        if getattr(options, flag) is not None and tune != wanted:
            raise UserError(f"--{flag} belongs to --tune {wanted}; leave it out, or give that")
    if options.start is None:
        if tune != "all":
            raise UserError(f"--tune {tune} needs a trained model; give its run by --from, or tune all")
        return None
    for flag in ("vocabulary", *choices):
        if flag != "dropout" and getattr(options, flag) is not None:
            raise UserError(f"--{flag.replace('_', '-')} is that of the run {options.start}; leave it out")
    piecewise = options.shard == PARAMETERS  # no rank has the whole model then
    return begun_from(Path(options.start), model=model, device=options.device, piecewise=piecewise)


def tuning_of(options: argparse.Namespace) -> dict[str, Any]:
    """What is trained, as the options of refllm.finetune.by_name."""
    if options.tune == "upper":
        return {"tune": "upper", "layers": 1 if options.upper is None else options.upper}
    chosen = {"rank": options.rank, "alpha": options.alpha}
    return {"tune": options.tune or "all", **{name: value for name, value in chosen.items() if value is not None}}


def rate_of(options: argparse.Namespace, scratch: float) -> float:
    """The usual rate for what the options say is trained, from the one for a model from scratch."""
    return rates(scratch)["scratch" if options.start is None else options.tune or "all"]


def fresh_bert(
    options: argparse.Namespace, sizes: dict[str, Any], text: str, **heads: Any
) -> tuple[bert.Config, WordPieceTokenizer]:
    """Fresh sizes, those of the options before the others, and pieces of words learnt from the text."""
    given = {name: getattr(options, name) for name in (*bert.CHOICES, "vocabulary")}
    sizes = {**sizes, **{name: value for name, value in given.items() if value is not None}}
    sizes.setdefault("hidden", 4 * sizes["width"])
    tokenizer = WordPieceTokenizer.train(learnable(text), vocabulary=sizes.pop("vocabulary"), lower=True)
    return bert.Config(vocabulary=tokenizer.size, **sizes, **heads), tokenizer


def config_of_the_run(options: argparse.Namespace, start: Start, **heads: Any) -> Any:
    """The sizes of the run that is begun from, with the dropout that is wished for and other heads."""
    dropout = start.config.dropout if options.dropout is None else options.dropout
    return replace(start.config, dropout=dropout, **heads)


def require_marks(tokenizer: Any, directory: str) -> None:
    """UserError for a tokenizer without the special tokens that stand around a text."""
    if not hasattr(tokenizer, "special"):
        raise UserError(f"the tokenizer in {directory} has no [CLS], [SEP] and [PAD]; give a model that has them")


def settings_to_fit(options: argparse.Namespace, start: Start | None = None) -> Settings:
    """The usual ones for what is trained, under the flags; of a model that is wider than those the rates were chosen
    with, so much less at the peak."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    rate = rate_of(options, FIT_SETTINGS["lr"])
    if start is not None and start.published:
        rate *= min(1.0, (CLASSIFY_SIZES["width"] / start.config.width) ** 1.5)
    return settings_of({**FIT_SETTINGS, "lr": rate, **given}, options)


def read_in_time(
    options: argparse.Namespace,
    read: Read,
    work: Callable[[Sequence[Any]], object],
    *,
    length: Callable[[Any], int],
) -> Read:
    """The examples, or of a run by minutes those that there is time for making tokens of."""
    part = part_of_examples(read, work, length=length, seconds=share_of(options.minutes))
    return read.read(part)


def held_out_part(examples: Sequence[Any], prepared: Run) -> list[Any]:
    """The held-out examples that the evaluation at the end has read: all, unless there was no time for that."""
    return [examples[i] for i in evenly(len(examples), prepared.evaluate()["val_examples"]).tolist()]


def introduce(prepared: Run) -> None:
    """What is about to be trained of which model, on what, how and where."""
    task = cast(Fitted, prepared.task)
    settings, tuning, config = prepared.settings, task.tuning, task.config
    each = (config.encoder_layers, config.decoder_layers) if hasattr(config, "encoder_layers") else (config.layers,)
    layers = counted(each[0], "layer") if len(each) == 1 else f"{each[0]} + {each[1]} layers"
    sizes = f"{layers}, width {config.width}, context {config.context}"
    start = "from scratch" if task.start is None else f"from {task.start.directory}"
    print(
        f"data       {task.introduced()}\n"
        f"model      {prepared.description['model']} {start}, {count(tuning.structure):,} parameters: {sizes}, "
        f"{task.tokenizer.size} tokens\n"
        f"training   {tuning.count:,} parameters ({100 * tuning.share:.3g} % of the model's), at most "
        f"{length_of(prepared.plan)}, batch {settings.batch} of {task.tokens_a_batch(1)} tokens each, "
        f"{who_works(prepared)}, seed {settings.seed}\n"
        f"directory  {prepared.directory}",
        flush=True,
    )
