"""refllm compare: every language model on the same text, split, tokens and time, in one table."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

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
from refllm.commands.progress import Display, interrupts, silent_divergence
from refllm.commands.train import LESS_MEMORY, lost, next_free
from refllm.data.corpus import Corpus, split
from refllm.errors import UserError
from refllm.metrics import perplexity
from refllm.models import by_name
from refllm.plan import Plan
from refllm.presets import MODELS, PRESETS
from refllm.run import Run, require_empty, require_free
from refllm.tasks.counting import count_text
from refllm.tasks.language import Language, bits_of, read_corpus
from refllm.tokenizers import Tokenizer
from refllm.workers import Workers, keep_freed_memory

DESCRIPTION = """Train every language model on the same text, tokens and time, and print one table.

example: refllm compare --data my_texts/ --minutes 2 --out runs/compared"""

__all__ = ["DESCRIPTION", "LESS_MEMORY", "add_arguments", "run"]

ALL = ("ngram", "nnlm", "rnn", "lstm", "hybrid", "gpt", "llama", "switch")  # in the order of their years


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", nargs="+", metavar="PATH", default=[], help="UTF-8 files or folders (default: the Python reference)")
    add("--minutes", type=float, default=2.0, help="of training for each model (default 2)")
    add("--models", nargs="+", choices=ALL, default=list(ALL), metavar="NAME", help=f"some of: {', '.join(ALL)}")
    add("--out", metavar="DIR", help="directory of the runs (default: runs/ and the next free number)")
    add("--json", action="store_true", help="the table as JSON, a row a model")
    add("--plot", metavar="FILE", help="where the picture goes (default: compare.png in the directory)")
    add_machine_arguments(parser)
    add_model_arguments(parser)
    add_optimiser_arguments(parser)


def run(options: argparse.Namespace) -> int:
    keep_freed_memory()
    corpus = read_corpus(options.data)
    parts = split(corpus)
    out = Path(options.out) if options.out else next_free()
    require_empty(out)
    if options.plot:
        require_free(Path(options.plot), ".png", ".svg", ".pdf")
    plans = {name: _values(name, options) for name in options.models}
    first = next(iter(plans.values()))
    if any(values["tokenizer"] != first["tokenizer"] for values in plans.values()):
        raise UserError("the models must share one tokenizer; give --tokenizer")
    tokenizer = tokenizer_of(first, corpus.text, parts.train)
    print(
        f"text       {corpus.name}: {len(parts.train):,} characters to learn from, {len(parts.validation):,} held out\n"
        f"tokens     {tokenizer.size} {tokenizer.kind}\n"
        f"time       {options.minutes:g} minutes a model, {len(plans)} models\n"
        f"directory  {out}",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    rows = []
    with interrupts() as interrupted:
        for name, values in plans.items():
            print(f"\n{name}", file=sys.stderr, flush=True)
            rows.append(_row(name, values, options, corpus, tokenizer, out / name, interrupted))
            if interrupted:
                break
    rows.sort(key=bits_of)
    (out / "compare.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    picture = _plot(rows, Path(options.plot) if options.plot else out / "compare.png")
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        print(table(rows))
        print(f"\n{picture}", file=sys.stderr)
    return 130 if interrupted else 0


def _values(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A model's preset under the flags: a flag that some models lack counts for those that have it."""
    mine = vars(options) | {"model": name, "preset": None}
    model = by_name(PRESETS[MODELS[name]]["model"])
    kept = {k: v for k, v in mine.items() if k not in OF_MODELS or takes(model, k)}
    return chosen(argparse.Namespace(**kept))


def _row(
    name: str,
    values: dict[str, Any],
    options: argparse.Namespace,
    corpus: Corpus,
    tokenizer: Tokenizer,
    directory: Path,
    interrupted: list[int],
) -> dict[str, Any]:
    """Trains one model in its directory; its line of the table."""
    if name == "ngram":
        summary = count_text(
            directory, parts=split(corpus), name=corpus.name, data=options.data, tokenizer=tokenizer,
            order=values["order"],
        )  # fmt: skip
    else:
        settings = settings_of(values, options)
        task = Language(
            model=values["model"], config=config_of(by_name(values["model"]), values, tokenizer), tokenizer=tokenizer,
            data=options.data,
        )  # fmt: skip
        prepared = Run.begin(
            directory, task=task, settings=settings, plan=Plan(steps=None, minutes=options.minutes, reports=4),
            workers=Workers(settings.shards, settings.blas_threads),
        )  # fmt: skip
        with prepared.trainer.workers, Display(prepared, sys.stderr) as display, silent_divergence():
            prepared.train(lambda: bool(interrupted), display.on_step, display.on_report)
            summary = prepared.summarise({})
    return {
        "name": name, **{key: summary[key] for key in ("val_bpc", "val_bpt", "val_unknown") if key in summary},
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
        return "No picture: matplotlib is not installed (pip install 'refllm[plot]')."
    figure = Figure(figsize=(7, 0.5 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    names = [row["name"] for row in reversed(rows)]
    bars = axes.barh(names, [bits_of(row)[0] for row in reversed(rows)], color="#4878a8", height=0.65)
    axes.bar_label(bars, fmt="%.3f", padding=4)
    axes.set_xlabel(f"bits per {bits_of(rows[0])[1]} of the held-out text (lower is better)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(path, dpi=150)
    return f"Picture: {path}"
