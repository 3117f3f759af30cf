"""A model trained at one length, evaluated at longer ones, with each scheme of positions."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from refllm.data.batching import held_out_windows
from refllm.data.corpus import split
from refllm.metrics import bits_per_character
from refllm.models import by_name
from refllm.plan import Plan
from refllm.run import Run
from refllm.tasks.language import Language
from refllm.tasks.text import read_corpus
from refllm.tokenizers import BytePairTokenizer
from refllm.train import Settings, evaluate
from refllm.workers import Workers, available_cores, keep_freed_memory

HELP = "a model trained at one length, evaluated beyond it"
SCHEMES = {  # a learned table has no row beyond its length: it is evaluated there and nowhere else
    "learned": ("gpt", "learned"), "sinusoidal": ("gpt", "sinusoidal"), "rotary": ("llama", "rotary"),
    "relative (T5)": ("llama", "relative"), "ALiBi": ("llama", "alibi"), "none": ("llama", "none"),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", type=int, default=64, help="the length of training (default 64)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256, 512], help="those of evaluation")
    parser.add_argument("--minutes", type=float, default=2.0, help="of training for each scheme (default 2)")


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    keep_freed_memory()
    parts = split(read_corpus([]))
    tokenizer = BytePairTokenizer.train(parts.train, vocabulary=512)
    threads = available_cores()
    settings = Settings(
        batch=16, lr=3e-3, warmup=0.025, floor=0.1, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.1, clip=1.0, seed=1,
        shards=min(16, threads), dtype="float32", device="cpu",
    )  # fmt: skip
    rows = []
    for scheme, (name, positions) in SCHEMES.items():
        model = by_name(name)
        config = model.Config(
            vocabulary=tokenizer.size, context=options.train, layers=4, heads=4, width=128,
            hidden=512 if name == "gpt" else 341, positions=positions, tied=True, dropout=0.1,
            **({"scaled_embedding": True} if positions == "sinusoidal" else {}),
        )  # fmt: skip
        task = Language(model=name, config=config, tokenizer=tokenizer, data=[])
        with tempfile.TemporaryDirectory() as folder, Workers(settings.shards) as workers:
            plan = Plan(steps=None, minutes=options.minutes, reports=1, training_alone=True)
            run = Run.begin(Path(folder) / "run", task=task, settings=settings, plan=plan, workers=workers)
            run.train(lambda: False, lambda loss: None, lambda line: None)
            for length in options.lengths:
                if positions == "learned" and length > options.train:
                    continue
                bits = _bits(run, dataclasses.replace(config, context=length), length)
                rows.append({"scheme": scheme, "trained_at": options.train, "length": length, "val_bpc": bits})
                print(f"{scheme:<14} at {length:>5}: {bits:.3f}", flush=True)
    return rows


def _bits(run: Run, config: Any, length: int) -> float:
    """Bits per character of the held-out text in windows of `length`, every token once, with at least half of it
    before it."""
    task: Any = run.task
    ids, targets = held_out_windows(task.tokens, task.held_out.tokens, context=length, stride=max(1, length // 2))
    windows = [(ids[i : i + 8], targets[i : i + 8]) for i in range(0, len(ids), 8)]
    nll = evaluate(
        run.trainer.parameters.tree, windows, model=task.model, config=config, device="cpu",
        workers=run.trainer.workers,
    )  # fmt: skip
    return bits_per_character(nll, len(task.held_out.text))


def table(rows: list[dict[str, Any]]) -> str:
    lengths = sorted({row["length"] for row in rows})
    lines = ["bits per character at " + "".join(f"{length:>9}" for length in lengths)]
    for scheme in SCHEMES:
        found = {row["length"]: row["val_bpc"] for row in rows if row["scheme"] == scheme}
        cells = [f"{found[length]:.3f}" if length in found else "-" for length in lengths]
        lines.append(f"{scheme:<22}" + "".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axes = figure.add_subplot()
    for scheme in SCHEMES:
        mine = [row for row in rows if row["scheme"] == scheme]
        axes.plot([row["length"] for row in mine], [row["val_bpc"] for row in mine], marker="o", label=scheme)
    axes.axvline(rows[0]["trained_at"], color="0.6", linestyle=":", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xlabel(f"length of the windows (trained at {rows[0]['trained_at']})")
    axes.set_ylabel("bits per character, held out")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
