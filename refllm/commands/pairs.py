"""What `refllm translate` and `refllm summarise` share: an encoder-decoder learns pairs of texts (fit)."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from refllm.commands import rewriting
from refllm.commands.choices import (
    add_architecture_arguments,
    add_optimiser_arguments,
    byte_pairs_of,
    chosen,
    config_of,
    settings_of,
)
from refllm.commands.fitting import (
    add_run_arguments,
    add_smoothing_argument,
    begun,
    carry_out,
    config_of_the_run,
    rate_of,
    read_in_time,
    start_of,
    tuning_of,
)
from refllm.commands.rewriting import fitting, notes_on_bleu, print_table, scores
from refllm.commands.verbs import Verb, add_verbs
from refllm.commands.wording import part_of, time_told
from refllm.data.batching import evenly
from refllm.data.examples import Pair
from refllm.data.pairs import encoded_pairs
from refllm.errors import UserError
from refllm.invocation import command
from refllm.models import encoder_decoder
from refllm.run import Run
from refllm.tasks.seq2seq import Paired, SequencePairs, read_data
from refllm.tasks.text import learnable
from refllm.tasks.writing import token_counts, written
from refllm.tokenizers.bpe import BYTES
from refllm.tokenizers.marked import MarkedTokenizer
from refllm.tokenizers.vocabulary import SPECIAL

LESS_MEMORY = "begin a run with a lower --batch, --context, --width or --encoder-layers and --decoder-layers"
CHARACTERS_A_TOKEN = 100  # of the training pairs for each learnt token: with fewer, whole texts would become tokens
TRIED = 32  # held-out pairs that are written first, to tell for how many more there is time
WRITING, LEAST_WRITING = 0.1, 20.0  # share of the training that writing may take, and seconds that it may take anyway


@dataclass(frozen=True)
class Kind:
    """A command: its name, the preset that it begins from, and examples for its help; the metric that it is about."""

    name: str
    preset: str
    epochs: float
    texts: tuple[str, str]  # what the two sides are, for people
    fit: str
    predict: str
    evaluate: str


def add_arguments(parser: argparse.ArgumentParser, kind: Kind) -> None:
    add_verbs(
        parser,
        Verb(
            "fit", "learn from pairs of texts", kind.fit, partial(add_fit_arguments, kind=kind), partial(fit, kind=kind)
        ),
        Verb("predict", "write for other texts", kind.predict, rewriting.add_predict_arguments, rewriting.predict),
        Verb(
            "evaluate", "measure on pairs of texts", kind.evaluate, rewriting.add_evaluate_arguments,
            rewriting.evaluate,
        ),
    )  # fmt: skip


def add_fit_arguments(parser: argparse.ArgumentParser, kind: Kind) -> None:
    add = parser.add_argument
    source, target = kind.texts
    add("data", nargs="*", metavar="DATA", help=f"two parallel files, {source} and {target}, or tables with both")
    add("--source", default="source", metavar="COLUMN", help=f"of {source} in a table (default source)")
    add("--target", default="target", metavar="COLUMN", help=f"of {target} in a table (default target)")
    add_run_arguments(parser, model="encoder_decoder", validation=0.05, epochs=kind.epochs, patience=4, reports=20)
    add_smoothing_argument(parser, default=0.1)
    model = parser.add_argument_group("the model; only dropout is free where --from is given")
    model.add_argument("--vocabulary", type=int, help="byte-pair tokens at most, the special ones among them")
    add_architecture_arguments(model, encoder_decoder.CHOICES)
    add_optimiser_arguments(parser)


def fit(options: argparse.Namespace, kind: Kind) -> int:
    return carry_out(
        options, command=kind.name, add_arguments=partial(add_fit_arguments, kind=kind),
        new_run=lambda: new_run(options, kind), conclude=conclude, afterwards=math.inf,
    )  # fmt: skip


def new_run(options: argparse.Namespace, kind: Kind) -> Run:
    if not options.data:
        raise UserError("there is nothing to learn from; give two parallel files, or a table with both texts")
    values = chosen(argparse.Namespace(**vars(options), preset=kind.preset, model=None))
    start = start_of(options, model="encoder_decoder", choices=encoder_decoder.CHOICES)
    read = read_data(options.data, source=options.source, target=options.target, validation=options.validation)
    if start is None:
        config, tokenizer = from_scratch(options, values, read)
    else:
        config, tokenizer = config_of_the_run(options, start), start.tokenizer
    read = read_in_time(
        options, read, lambda some: encoded_pairs(some, tokenizer=tokenizer, context=config.context),
        length=lambda pair: len(pair.source) + len(pair.target),
    )  # fmt: skip
    task = SequencePairs(
        command=kind.name, config=config, tokenizer=tokenizer, read=read, data=options.data, source=options.source,
        target=options.target, validation=options.validation, smoothing=options.label_smoothing, start=start,
        tuning=tuning_of(options),
    )  # fmt: skip
    if options.lr is None:
        values["lr"] = rate_of(options, values["lr"])
    settings = settings_of(values, options)
    return begun(options, task=task, settings=settings, examples=len(task.pairs), epochs=kind.epochs)


def from_scratch(
    options: argparse.Namespace, values: dict[str, Any], read: Paired
) -> tuple[encoder_decoder.Config, MarkedTokenizer]:
    """Fresh sizes, and byte pairs learnt from both sides of the training pairs, fewer of few pairs."""
    text = "\n".join(f" {side.strip()}" for pair in read.train for side in (pair.source, pair.target))
    learnt_by = BYTES + len(SPECIAL) + len(text) // CHARACTERS_A_TOKEN
    if options.vocabulary is not None:
        MarkedTokenizer.require_room(options.vocabulary)
    asked = None if options.vocabulary is None else options.vocabulary - len(SPECIAL)
    usual = min(values["vocabulary"], learnt_by) - len(SPECIAL)
    tokenizer = MarkedTokenizer(byte_pairs_of(learnable(text), usual=usual, asked=asked, else_take="more pairs"))
    return config_of(encoder_decoder, values, tokenizer), tokenizer


def _task(prepared: Run) -> SequencePairs:
    assert isinstance(prepared.task, SequencePairs)
    return prepared.task


def conclude(prepared: Run) -> None:
    task = _task(prepared)
    lengths = partial(token_counts, tokenizer=task.tokenizer)
    held_out = fitting(task.read.validation, lengths, context=task.config.context)
    measured = prepared.evaluate()
    if prepared.trainer.cut is not None:  # no rank has all that would write
        summary = prepared.summarise({})
        print(f"\n{task.told(measured)} (the weights of step {summary['best_step']:,})")
        print(
            f"\n{time_told(summary, prepared)}. "
            f"Measure what it writes: {command(task.command, 'evaluate', prepared.directory)}"
        )
        return
    print(f"\nWriting texts held out, {len(held_out):,} if there is time, greedily ...", flush=True)
    pairs, given = written_in_time(prepared, held_out)
    wanted = [pair.target for pair in pairs]
    copied = scores(wanted, [pair.source for pair in pairs])
    summary = prepared.summarise({f"copy_{name}": value for name, value in copied.items()}, also=scores(wanted, given))
    how_many = part_of({"val_examples": len(pairs), "val_of": len(held_out)}, "texts")
    print(f"\nOn {how_many} (the weights of step {summary['best_step']:,}):\n")
    print_table({"greedy": scores(wanted, given), "copy of the source": copied})
    for note in notes_on_bleu(wanted):
        print(note)
    print(
        f"\n{time_told(summary, prepared)}. "
        f"Measure it on all of them, by beam search too: {command(task.command, 'evaluate', prepared.directory)}"
    )


def written_in_time(prepared: Run, pairs: Sequence[Pair]) -> tuple[list[Pair], list[str]]:
    """All the pairs, or as many of them as there is time for, evenly spread, and what the model writes for each: what
    `evaluate` measures, if it is all."""
    plan, task = prepared.plan, _task(prepared)
    left = max(LEAST_WRITING, WRITING * prepared.training_seconds)
    if plan.minutes is not None:
        whole = 60 * plan.minutes
        left = max(1.02 * whole - (prepared.clock.elapsed() - plan.after_seconds), WRITING / 2 * whole)

    def write(some: Sequence[Pair]) -> list[str]:
        return written(
            task.full(prepared.trainer.parameters.tree), [pair.source for pair in some], config=task.config,
            tokenizer=task.tokenizer, beams=1, device=prepared.settings.device, workers=prepared.trainer.workers,
        )  # fmt: skip

    tried = [pairs[i] for i in evenly(len(pairs), TRIED).tolist()]
    start = time.perf_counter()
    given = write(tried)
    each = (time.perf_counter() - start) / len(tried)
    most = max(len(tried), int((left - each * len(tried)) / each))
    some = [pairs[i] for i in evenly(len(pairs), most).tolist()]
    return some, given if len(some) == len(tried) else write(some)
