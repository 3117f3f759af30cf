"""The peak of memory and the time of one training step over one window, as the window grows."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HELP = "memory and time of a training step as the context grows"
MODELS = {"gpt": "learned", "llama": "rotary"}

STEP = """
import json, resource, sys, time
import numpy
from refllm.models import by_name
from refllm.objectives.causal import Causal
from refllm.train import Settings, Trainer
from refllm.workers import Workers, keep_freed_memory

name, context = sys.argv[1], int(sys.argv[2])
keep_freed_memory()
model = by_name(name)
config = model.Config(vocabulary=512, context=context, layers=4, heads=4, width=128, hidden=512)
settings = Settings(batch=1, lr=1e-3, warmup=0, floor=1, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.1, clip=1.0, seed=1,
                    shards=1, dtype="float32", device="cpu")
with Workers(1) as workers:
    trainer = Trainer(model=model, config=config, objective=Causal(model, config), settings=settings, workers=workers)
    trainer.initialise()
    tokens = numpy.random.default_rng(0).integers(0, 512, (1, context + 1))
    start = time.perf_counter()
    trainer.step(tokens, lr=1e-3)
    seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for name in MODELS:
        for context in options.contexts:
            done = subprocess.run(
                [sys.executable, "-c", STEP, name, str(context)], capture_output=True, text=True, check=True,
                cwd=Path(__file__).resolve().parents[2],
            )  # fmt: skip
            seconds, peak = json.loads(done.stdout)
            rows.append({"model": name, "context": context, "seconds": seconds, "peak_bytes": peak})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'model':<8}{'context':>9}{'peak':>10}{'step':>10}"]
    for row in rows:
        peak = f"{row['peak_bytes'] / 1e6:.0f} MB"
        lines.append(f"{row['model']:<8}{row['context']:>9,}{peak:>10}{row['seconds']:>8.2f} s")
    return "\n".join(lines)


def draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axes = figure.add_subplot()
    for name, positions in MODELS.items():
        mine = [row for row in rows if row["model"] == name]
        axes.plot(
            [row["context"] for row in mine], [row["peak_bytes"] / 1e6 for row in mine], marker="o",
            label=f"{name}, {positions} positions",
        )  # fmt: skip
    axes.set_xlabel("tokens in the window")
    axes.set_ylabel("peak memory of a training step (MB)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
