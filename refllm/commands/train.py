"""refllm train: a language model learns a text, and says how well."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from refllm import ranks
from refllm.backend import allow_tf32, device_namespace
from refllm.commands.choices import (
    ARCHITECTURE,
    SWITCHES,
    add_length_arguments,
    add_machine_arguments,
    add_model_arguments,
    add_optimiser_arguments,
    chosen,
    config_of,
    given,
    require_alone,
    settings_of,
    tokenizer_of,
)
from refllm.commands.progress import carried_out, complete, make_longer
from refllm.commands.streams import INTERRUPTED, lasting_output
from refllm.commands.texts import tell_broken
from refllm.commands.wording import counted, length_of, time_told, what_was_read, who_works
from refllm.data.corpus import split
from refllm.data.part import part_of_text, share_of
from refllm.data.sentences import BORDER, FILE_BORDER
from refllm.directory import occupied, require_empty
from refllm.errors import UserError
from refllm.generation.text import stream_text
from refllm.invocation import began, command
from refllm.models import by_name
from refllm.parameters import count
from refllm.plan import Plan
from refllm.presets import DEFAULT_MODEL, MODELS, PRESETS, rates
from refllm.ranks import PARAMETERS
from refllm.ranks import workers as workers_of
from refllm.run import Run
from refllm.tasks import Task
from refllm.tasks.counted import counted_bits
from refllm.tasks.counting import count_text, part_counted
from refllm.tasks.denoising import TextInfilling
from refllm.tasks.language import Language, bits_of
from refllm.tasks.masked import MaskedPretraining, documents_of
from refllm.tasks.start import Start, begun_from
from refllm.tasks.text import LearntText, ReadText, read_corpus
from refllm.tokenizers import Tokenizer
from refllm.tokenizers.marked import with_marks
from refllm.tokenizers.pieces import completed
from refllm.workers import keep_freed_memory

DESCRIPTION = """Train a language model on text: by default a Llama on the language reference that every Python carries.

example: refllm train --data my_texts/ --minutes 5 --out runs/mine
         refllm train --model gpt"""

LESS_MEMORY = "begin a run with a lower --batch, --context, --width or --layers"
OF_STEPS = ("steps", "minutes", "reports", "dtype", "shard")
RUNS = Path("runs")  # where runs without --out go
PAIRED = 0.3  # of the time for making tokens is BERT's for these alone
COUNTING, WRITING = 2e-6, 1.0  # seconds that are kept for counting a character, and for what the model writes


def add_arguments(
    parser: argparse.ArgumentParser, *, what: str = f"which kind: {', '.join(sorted(MODELS))} (default {DEFAULT_MODEL})"
) -> None:
    add = parser.add_argument
    add("--data", nargs="+", metavar="PATH", default=[], help="UTF-8 files or folders (default: the Python reference)")
    add("--out", metavar="DIR", help="directory of the run (default: runs/ and the next free number)")
    add("--resume", metavar="DIR", help="go on with the run in DIR, with its own settings, bit for bit")
    add("--from", dest="start", metavar="RUN", help="go on from a run or a published model: tokenizer, sizes, weights")
    add("--model", metavar="NAME", choices=sorted(MODELS), help=what)
    add("--preset", choices=sorted(PRESETS), help="sizes and settings to start from (default: those of the model)")
    add_length_arguments(parser)
    add("--reports", type=int, default=10, help="validations and checkpoints during the run (default 10)")
    add_machine_arguments(parser)
    add_model_arguments(parser)
    add_optimiser_arguments(parser)


def run(options: argparse.Namespace) -> int:
    since = began()
    keep_freed_memory()
    device_namespace(options.device)
    if options.resume:
        require_alone(options, add_arguments)
        prepared = Run.resume(Path(options.resume), partial(workers_of, shard=options.shard))
        _require_own(prepared)
        make_longer(prepared, options, since)
        allow_tf32(prepared.settings.tf32, prepared.settings.device)
    else:
        allow_tf32(options.tf32, options.device)
        start = None if options.start is None else start_of(options)
        values = chosen(options) if start is None else values_from(options, start)
        if values["model"] == "ngram":
            return _count(values, options)
        prepared = _new_run(values, options, since, start)
    with prepared.trainer.workers, prepared.held(), lasting_output():
        return _train(prepared)


def _require_own(prepared: Run) -> None:
    kind = prepared.description.get("task", "language")
    if kind not in ("language", "masked", "denoising"):
        kind = prepared.description.get("command", kind)
        how = command(kind, "fit", "--resume", prepared.directory)
        raise UserError(f"{prepared.directory} is a run of {kind}; go on with it by {how}")


def start_of(options: argparse.Namespace) -> Start:
    """The language model that is gone on from. UserError for a flag that it decides by itself."""
    for name in (*ARCHITECTURE, *SWITCHES, "tokenizer", "vocabulary", "model", "preset"):
        if name not in ("dropout", "context") and getattr(options, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is that of {options.start}; leave it out")
    piecewise = options.shard == PARAMETERS  # no rank has the whole model then
    return begun_from(Path(options.start), model=None, device=options.device, piecewise=piecewise)


def values_from(options: argparse.Namespace, start: Start) -> dict[str, Any]:
    """The preset of its model, with the rate of a model that has learnt already: the wider it is, the less.

    Raises: UserError for windows that are longer than its context.
    """
    preset = PRESETS[MODELS[start.model]]
    rate = (
        {}
        if "lr" not in preset
        else {"lr": rates(preset["lr"])["all"] * min(1.0, preset["width"] / start.config.width)}
    )
    wanted = {key: value for key, value in vars(options).items() if value is not None}
    values = {**preset, **rate, **wanted, "model": start.model}
    if options.context is not None and not 0 < options.context <= start.config.context:
        raise UserError(
            f"--context is the tokens of a window here, 1 to {start.config.context:,}, those that {options.start} reads"
        )
    return values


def _new_run(values: dict[str, Any], options: argparse.Namespace, since: float, start: Start | None) -> Run:
    settings = settings_of(values, options)
    steps = None if options.minutes is not None else values["steps"]
    plan = Plan(steps=steps, minutes=options.minutes, reports=options.reports)
    text, tokenizer = _read(values, options, None if start is None else start.tokenizer)
    if start is None:
        config = config_of(by_name(values["model"]), values, tokenizer)
    else:
        config = start.config if options.dropout is None else replace(start.config, dropout=options.dropout)
    task: Task
    if values["model"] == "bert":
        task = MaskedPretraining(
            config=config, tokenizer=tokenizer, data=options.data, pairing=values["pairing"], text=text
        )
    elif values["model"] == "encoder_decoder":
        task = TextInfilling(config=config, tokenizer=tokenizer, data=options.data, text=text)
    else:
        learnt = LearntText.of(text, tokenizer)
        task = Language(
            model=values["model"], config=config, tokenizer=tokenizer, data=options.data, text=learnt, start=start,
            window=None if start is None else values["context"],
        )  # fmt: skip
    del text
    out = Path(options.out) if options.out else next_free()
    workers = workers_of(settings.shards, settings.blas_threads, shard=options.shard)
    return Run.begin(out, task=task, settings=settings, plan=plan, workers=workers, since=since)


def _read(values: dict[str, Any], options: argparse.Namespace, known: Tokenizer | None) -> tuple[ReadText, Tokenizer]:
    """The text, or what of it a run by minutes has the time to read, and its tokenizer, learnt from all of it unless it
    is known."""
    bert = values["model"] == "bert"
    corpus = read_corpus(options.data, border=FILE_BORDER if bert else "")
    for line in corpus.skipped:
        print(f"left out: {line}", file=sys.stderr)
    parts = split(corpus)
    tokenizer = known or tokenizer_of(
        values, corpus.text.replace(BORDER, ""), parts.train.replace(BORDER, ""), asked=options.vocabulary
    )
    if values["model"] in ("bert", "encoder_decoder"):
        tokenizer = with_marks(tokenizer)
    seconds = share_of(options.minutes)
    if bert:  # its pairs are made of the documents beside their tokens
        part = part_of_text(parts, lambda some: documents_of(some, tokenizer), seconds=seconds and PAIRED * seconds)
    else:
        part = part_of_text(parts, tokenizer.encode, seconds=seconds)
    return ReadText.of(corpus, parts, part), tokenizer


def _count(values: dict[str, Any], options: argparse.Namespace) -> int:
    """The n-gram model, which takes no steps.

    Raises: UserError for a flag about steps.
    """
    if ranks.count() > 1:
        raise UserError("several ranks share the steps of a training, and ngram counts; leave --ranks out")
    for name, how in given(options, add_arguments).items():
        if name in OF_STEPS:
            raise UserError(f"{how} is for models that are trained by steps, and ngram counts; leave it out")
    corpus = read_corpus(options.data)
    parts = split(corpus)
    out = Path(options.out) if options.out else next_free()
    require_empty(out)
    tokenizer = tokenizer_of(values, corpus.text, parts.train, asked=options.vocabulary)
    text = LearntText.of(ReadText.of(corpus, parts), tokenizer)
    del corpus, parts
    with occupied(out, until="summary.json", fresh=True):
        summary = count_text(out, text=text, data=options.data, tokenizer=tokenizer, order=values["order"])
    bits, unit = bits_of(summary)
    print(
        f"An n-gram model of order {summary['order']} on {text.about.name}: {summary['parameters']:,} n-grams of "
        f"{tokenizer.size} tokens, {bits:.3f} bits per {unit} of the held-out text.\n"
        f"{part_counted(summary)}{lost(summary)}Text from it: {command('generate', out)}"
    )
    return 0


def next_free() -> Path:
    number = 1
    while (RUNS / f"{number:03d}").exists():
        number += 1
    return RUNS / f"{number:03d}"


def _train(prepared: Run) -> int:
    _introduce(prepared)
    if prepared.concluded:
        print(complete(prepared, "train"))
        return 0
    task = prepared.task
    if isinstance(task, Language):
        prepared.budget.wanted_afterwards = COUNTING * len(task.text.end) + WRITING
        if not prepared.trainer.workers.layered:  # no rank has all that would write
            prepared.keeper.sampler = lambda: _writing(prepared)
    if not carried_out(prepared, go_on=command("train")):
        return INTERRUPTED
    if isinstance(task, MaskedPretraining):
        summary = prepared.summarise(task.baselines())
        _conclude_pretraining(prepared, summary)
        return 0
    if isinstance(task, TextInfilling):
        summary = prepared.summarise({})
        print(
            f"\n{time_told(summary, prepared)}. "
            f"Fine-tune it: {command('translate', 'fit', 'SOURCE', 'TARGET', '--from', prepared.directory)}"
        )
        return 0
    measured = prepared.evaluate()
    print("Fitting the n-gram models to the same text ...", flush=True)
    minutes = prepared.plan.minutes
    bits, note = counted_bits(
        _language(prepared).text, _language(prepared).spans(measured["val_examples"]),
        seconds=None if minutes is None else max(0.5, 0.03 * 60 * minutes),
    )  # fmt: skip
    _conclude(prepared, prepared.summarise(bits), note)
    return 0


def _language(prepared: Run) -> Language:
    assert isinstance(prepared.task, Language)
    return prepared.task


def _introduce(prepared: Run) -> None:
    settings, plan, task = prepared.settings, prepared.plan, prepared.task
    names = ("layers", "encoder_layers", "decoder_layers", "heads")
    size = [
        counted(getattr(task.config, name), name[:-1].replace("_", " ")) for name in names if hasattr(task.config, name)
    ]
    size += [f"{name} {getattr(task.config, name)}" for name in ("width", "context")]
    print(
        f"data       {task.introduced()}\n"
        f"model      {prepared.description['model']}, {count(prepared.trainer.shapes):,} parameters: "
        f"{', '.join(size)}, {task.tokenizer.size} {task.tokenizer.kind} tokens\n"
        f"training   {length_of(plan)}, batch {settings.batch}, {settings.dtype} on {settings.device}, "
        f"{who_works(prepared)}, seed {settings.seed}\n"
        f"directory  {prepared.directory}",
        flush=True,
    )


def _conclude(prepared: Run, summary: dict[str, Any], note: str) -> None:
    more = "Text"
    if not prepared.trainer.workers.layered:
        _show_writing(prepared, summary)
        more = "More text"
    own, unit = bits_of(summary)
    print(f"\nBits per {unit} of {what_was_read(summary)} (lower is better):\n")
    for name, bits in [*summary["baselines"].items(), ("this model", own)]:
        print(f"    {name:<10} {bits:6.3f}  {'#' * round(8 * bits)}")
    print(
        f"\n{lost(summary)}{note}{note and chr(10)}"
        f"{time_told(summary, prepared)}. {more} from it: {command('generate', prepared.directory)}"
    )


def _show_writing(prepared: Run, summary: dict[str, Any]) -> None:
    print("\nWhat it writes:\n")
    text = "".join(_in_time(_writing(prepared), prepared))
    print("\n".join("    " + line for line in text.splitlines()), flush=True)
    tell_broken(text, _language(prepared).tokenizer)
    prepared.keeper.keep(prepared.trainer.step_number, text)
    prepared.keeper.write(prepared, summary)


def _writing(prepared: Run) -> Iterator[str]:
    """A text from the weights of the moment, piece by piece: the beginning of what is held out, and how it goes on."""
    task, weights = _language(prepared), prepared.trainer.parameters.tree
    start = task.held_out.tokens[: min(8, task.config.context)]
    yield completed(start.tolist(), task.tokenizer)
    yield from stream_text(
        weights, model=task.model, config=task.config, tokenizer=task.tokenizer, prompt=start, new_tokens=300,
        temperature=0.8, top_k=None, top_p=None, greedy=False, seed=prepared.settings.seed,
        device=prepared.settings.device,
    )  # fmt: skip


def _in_time(pieces: Iterator[str], prepared: Run) -> Iterator[str]:
    """The pieces of a text; of a run by minutes those that there is time for."""
    for piece in pieces:
        yield piece
        plan = prepared.plan
        if plan.minutes is not None and prepared.clock.elapsed() - plan.after_seconds > 1.03 * 60 * plan.minutes:
            return


def lost(summary: dict[str, Any]) -> str:
    """A line that says why bits are counted by the token, if they are."""
    if "val_unknown" not in summary:
        return ""
    return (
        f"These tokens do not give the text back ({100 * summary['val_unknown']:.1f} % of the held-out ones are "
        "unknown words): their bits compare with models of the same tokens alone.\n"
    )


def _conclude_pretraining(prepared: Run, summary: dict[str, Any]) -> None:
    print("\nOn the held-out text (in brackets: always the most frequent answer):\n")
    for name, what in (("masked_accuracy", "masked words right"), ("pair_accuracy", "sentence pairs right")):
        print(f"    {what:<22}{100 * summary[name]:6.1f} %   ({100 * summary['baselines'][name]:.1f} %)")
    print(
        f"\n{time_told(summary, prepared)}. "
        f"Fine-tune it: {command('classify', 'fit', 'DATA', '--from', prepared.directory)}"
    )
