"""refllm compare: every language model on the same text, split, tokens and time, in one table."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refllm.backend import allow_tf32, device_namespace
from refllm.checkpoint import write_atomically
from refllm.commands.choices import (
    OF_MODELS,
    add_machine_arguments,
    add_model_arguments,
    add_optimiser_arguments,
    chosen,
    config_of,
    settings_of,
    takes,
    tokenizer_of,
)
from refllm.commands.compare_page import compare_page
from refllm.commands.progress import Display, interrupts, silent_divergence
from refllm.commands.streams import INTERRUPTED, lasting_output, output_is_lost
from refllm.commands.train import LESS_MEMORY, lost, next_free
from refllm.commands.wording import counted
from refllm.data.batching import refuse_shorter_than_window
from refllm.data.corpus import split
from refllm.data.held_out import HeldOutWindows
from refllm.data.part import part_of_text, share_of
from refllm.directory import occupied, require_empty, require_place
from refllm.errors import UserError
from refllm.extras import how_to_install
from refllm.metrics import perplexity
from refllm.models import by_name
from refllm.page import replace_page, require_replaceable
from refllm.pictures import require_free_pictures, save_pictures
from refllm.plan import Plan
from refllm.presets import MODELS, PRESETS
from refllm.ranks import workers as workers_of
from refllm.run import Run
from refllm.tasks.counting import count_text, part_counted, require_order
from refllm.tasks.language import Language, bits_of
from refllm.tasks.text import LearntText, ReadText, read_corpus
from refllm.tokenizers import Tokenizer
from refllm.train import Settings
from refllm.workers import keep_freed_memory

DESCRIPTION = """Train every language model on the same text, tokens and time, and print one table.

example: refllm compare --data my_texts/ --minutes 2 --out runs/compared"""

__all__ = ["DESCRIPTION", "LESS_MEMORY", "add_arguments", "run"]

TABLE = "compare.json"
ALL = ("ngram", "nnlm", "rnn", "lstm", "hybrid", "gpt", "llama", "switch")  # in the order of their years


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", nargs="+", metavar="PATH", default=[], help="UTF-8 files or folders (default: the Python reference)")
    add(
        "--minutes",
        type=float,
        default=2.0,
        help="of training for each model, nothing else (default 2)",
    )
    add("--models", nargs="+", choices=ALL, default=list(ALL), metavar="NAME", help=f"some of: {', '.join(ALL)}")
    add("--out", metavar="DIR", help="directory of the runs (default: runs/ and the next free number)")
    add("--json", action="store_true", help="the table as JSON, a row a model")
    add("--html", metavar="FILE", help="also as a page")
    add(
        "--plot",
        metavar="FILE",
        help="where the picture goes, as PNG and as SVG (default: compare.png in the directory)",
    )
    add_machine_arguments(parser)
    add_model_arguments(parser)
    add_optimiser_arguments(parser)


@dataclass(frozen=True)
class Contender:
    """A model that is about to be trained; one that counts has no configuration yet."""

    name: str
    values: dict[str, Any]
    settings: Settings
    config: Any


def run(options: argparse.Namespace) -> int:
    with lasting_output():
        return _compared(options)


def _compared(options: argparse.Namespace) -> int:
    keep_freed_memory()
    device_namespace(options.device)
    allow_tf32(options.tf32, options.device)
    plan = Plan(steps=None, minutes=options.minutes, reports=4, training_alone=True)
    plans = _values(options)
    settings = {name: settings_of(values, options) for name, values in plans.items()}
    out = Path(options.out) if options.out else next_free()
    require_empty(out)
    if options.plot:
        require_free_pictures(Path(options.plot))
    if options.html:
        require_replaceable(Path(options.html))
        require_place(Path(options.html), within=Path(options.html).parent)
    corpus = read_corpus(options.data)
    parts = split(corpus)
    tokenizer = tokenizer_of(next(iter(plans.values())), corpus.text, parts.train, asked=options.vocabulary)
    contenders = [Contender(name, values, settings[name], _config(values, tokenizer)) for name, values in plans.items()]
    part = part_of_text(parts, tokenizer.encode, seconds=share_of(options.minutes))
    text = LearntText.of(ReadText.of(corpus, parts, part), tokenizer)
    del corpus, parts
    _require_windows(contenders, text)
    about = (
        f"{text.about.introduced(tokenizer)}; {tokenizer.size} {tokenizer.kind} tokens; "
        f"{counted(options.minutes, 'minute')} of training for each model."
    )
    print(
        f"text       {text.about.introduced(tokenizer)}\n"
        f"tokens     {tokenizer.size} {tokenizer.kind}\n"
        f"time       {counted(options.minutes, 'minute')} of training for each of {counted(len(contenders), 'model')}; "
        "reports and evaluation add to them\n"
        f"directory  {out}",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    with occupied(out, until=TABLE, fresh=True):
        rows, interrupted = _trained(contenders, plan, options, text, tokenizer, out)
        write_atomically(out / TABLE, (json.dumps(rows, indent=1) + "\n").encode())
        picture = _plot(rows, Path(options.plot) if options.plot else out / "compare.png")
        if options.html:
            page = Path(options.html)
            replace_page(
                page,
                compare_page(rows, title="Language models compared", about=about, directory=out, file=page),
            )
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        print(table(rows))
        print(f"\n{picture}", file=sys.stderr)
    return INTERRUPTED if interrupted else 0


def _trained(
    contenders: list[Contender],
    plan: Plan,
    options: argparse.Namespace,
    text: LearntText,
    tokenizer: Tokenizer,
    out: Path,
) -> tuple[list[dict[str, Any]], bool]:
    """The lines of the table, best first, of all models or those before the user stopped; and whether that was so."""
    rows = []
    with interrupts() as interrupted:
        for one in contenders:
            print(f"\n{one.name}", file=sys.stderr, flush=True)
            rows.append(_row(one, plan, options, text, tokenizer, out / one.name, interrupted))
            if interrupted or output_is_lost():
                break
    return sorted(rows, key=bits_of), bool(interrupted)


def _values(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Each model's preset under the flags: a flag that some models lack counts for those that have it.

    Raises: UserError for a flag that none has, and for tokenizers that differ.
    """
    models = {name: by_name(PRESETS[MODELS[name]]["model"]) for name in options.models}
    for key in OF_MODELS:
        if getattr(options, key) is not None and not any(takes(model, key) for model in models.values()):
            flag = f"--{key.replace('_', '-')}"
            raise UserError(f"{flag} is nothing that any of {', '.join(models)} has; leave it out")
    found = {}
    for name, model in models.items():
        mine = vars(options) | {"model": name, "preset": None}
        kept = {key: value for key, value in mine.items() if key not in OF_MODELS or takes(model, key)}
        found[name] = chosen(argparse.Namespace(**kept))
    if len({values["tokenizer"] for values in found.values()}) > 1:
        raise UserError("the models must share one tokenizer; give --tokenizer")
    return found


def _config(values: dict[str, Any], tokenizer: Tokenizer) -> Any:
    """What the model is like; None for one that counts, whose order is looked at."""
    if values["model"] == "ngram":
        require_order(values["order"])
        return None
    return config_of(by_name(values["model"]), values, tokenizer)


def _require_windows(contenders: list[Contender], text: LearntText) -> None:
    """UserError if a part of the text is too short for a window of one of them."""
    for context in {one.config.context for one in contenders if one.config is not None}:
        refuse_shorter_than_window(text.tokens, context=context, part="training")
        HeldOutWindows(text.tokens, text.held_out.tokens, context=context, batch=1)


def _row(
    one: Contender,
    plan: Plan,
    options: argparse.Namespace,
    text: LearntText,
    tokenizer: Tokenizer,
    directory: Path,
    interrupted: list[int],
) -> dict[str, Any]:
    """Trains one model in its directory; its line of the table."""
    if one.config is None:
        summary = count_text(
            directory, text=text, data=options.data, tokenizer=tokenizer, order=one.values["order"],
            seconds=60 * options.minutes,
        )  # fmt: skip
        print(part_counted(summary), end="", file=sys.stderr)
    else:
        task = Language(model=one.values["model"], config=one.config, tokenizer=tokenizer, data=options.data, text=text)
        workers = workers_of(one.settings.shards, one.settings.blas_threads, shard=options.shard)
        prepared = Run.begin(directory, task=task, settings=one.settings, plan=plan, workers=workers)
        with prepared.trainer.workers, Display(prepared, sys.stderr) as display, silent_divergence():
            prepared.train(lambda: bool(interrupted) or output_is_lost(), display.on_step, display.on_report)
            summary = prepared.summarise({})
    return {
        "name": one.name, **{key: summary[key] for key in ("val_bpc", "val_bpt", "val_unknown") if key in summary},
        "perplexity": perplexity(summary["val_loss"], 1),
        "parameters": summary["parameters"], "seconds": summary["seconds"], "steps": summary.get("steps", 0),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The rows with a bar each, for a terminal; and why bits are counted by the token, if they are."""
    unit = "bits/char" if bits_of(rows[0])[1] == "character" else "bits/token"
    lines = [f"{'model':<8}{unit:>10}{'perplexity':>12}{'parameters':>12}{'steps':>8}{'seconds':>9}"]
    for row in rows:
        bits, _ = bits_of(row)
        lines.append(
            f"{row['name']:<8}{bits:>10.3f}{row['perplexity']:>12.2f}{row['parameters']:>12,}"
            f"{row['steps']:>8,}{row['seconds']:>9.0f}  {'#' * round(8 * bits)}"
        )
    return "\n".join(lines) + f"\n\n{lost(rows[0])}".rstrip()


def _plot(rows: list[dict[str, Any]], path: Path) -> str:
    """A picture of the table where matplotlib is installed; what became of it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return f"No picture: matplotlib is not installed ({how_to_install('plot')})."
    figure = Figure(figsize=(7, 0.5 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    names = [row["name"] for row in reversed(rows)]
    bars = axes.barh(names, [bits_of(row)[0] for row in reversed(rows)], color="#4878a8", height=0.65)
    axes.bar_label(bars, fmt="%.3f", padding=4)
    axes.set_xlabel(f"bits per {bits_of(rows[0])[1]} of the held-out text (lower is better)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    return f"Picture: {save_pictures(figure, path)}"
