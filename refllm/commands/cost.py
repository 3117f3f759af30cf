"""What a smaller model costs: size, speed and quality before and after, as a table and a picture."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from refllm.extras import how_to_install
from refllm.parameters import count
from refllm.tasks import Task
from refllm.tasks import load as load_task
from refllm.tasks.classify import Classify
from refllm.tasks.language import Language
from refllm.trained import load_model
from refllm.workers import Workers

ROUNDS = 3
SPEEDS = ("tokens per second", "texts per second", "seconds")


def whole(description: dict[str, Any]) -> dict[str, Any]:
    """The description of the same run as one in which the whole model was trained from the beginning: a smaller model
    has no part in the run that its teacher began from."""
    alone = {"tuning": {"tune": "all"}, "from": None} if "tuning" in description else {}
    return {**description, **alone}


def before_and_after(before: Path, after: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Of each: bytes of the weights on the disk, parameters, speed, and the task's measures of the model as stored.

    The two take turns, and the fastest of each counts: what else the machine does then slows both.
    """
    models = {"before": load_model(before, options.device), "after": load_model(after, options.device)}
    tasks = {name: load_task(whole(trained.description)) for name, trained in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    measures: dict[str, dict[str, float]] = {}
    with Workers(options.threads) as workers:
        for name in list(models) * ROUNDS:
            start = time.perf_counter()
            measures[name] = tasks[name].validate(models[name].parameters, device=options.device, workers=workers)
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {
            "bytes": trained.description["files"]["weights"]["bytes"],
            "parameters": count(trained.model.shapes(trained.config)),
            **_speed(tasks[name], min(seconds[name])),
            **{measure: x for measure, x in measures[name].items() if measure != "criterion"},  # told in the others
        }
        for name, trained in models.items()
    }


def _speed(task: Task, seconds: float) -> dict[str, float]:
    """Of a validation; its seconds where the task does not say how much it reads."""
    if isinstance(task, Language):
        return {"tokens per second": task.validation_tokens / seconds}
    if isinstance(task, Classify):
        return {"texts per second": len(task.read.validation) / seconds}
    return {"seconds": seconds}


def shown_of(rows: dict[str, dict[str, float]], *, faster: bool) -> dict[str, dict[str, float]]:
    """The rows that people see: a model that computes as many products as before is not faster, whatever two
    measurements on a busy machine say."""
    return rows if faster else {side: {k: x for k, x in row.items() if k not in SPEEDS} for side, row in rows.items()}


def table(rows: dict[str, dict[str, float]]) -> str:
    """A line a measure: before, after, and after in shares of before."""
    lines = [f"{'':<18}{'before':>14}{'after':>14}"]
    for name, before in rows["before"].items():
        after = rows["after"][name]
        share = f"{100 * after / before:10.1f} %" if before else ""
        lines.append(f"{name:<18}{_shown(before):>14}{_shown(after):>14}{share}")
    return "\n".join(lines)


def _shown(x: float) -> str:
    if abs(x) >= 100:
        return f"{x:,.0f}"
    return f"{x:.4f}" if abs(x) >= 0.001 or x == 0 else f"{x:.3g}"


def plot(rows: dict[str, dict[str, float]], path: Path) -> str:
    """A picture of the table, where matplotlib is installed; what became of it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return f"No picture: matplotlib is not installed ({how_to_install('plot')})."
    names = [name for name in rows["before"] if name != "parameters"]
    figure = Figure(figsize=(2.2 * len(names), 2.6), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), i + 1)
        bars = axes.bar(list(rows), [row[name] for row in rows.values()], color=["#888888", "#4878a8"], width=0.6)
        axes.bar_label(bars, labels=[_shown(row[name]) for row in rows.values()], padding=3)
        axes.set_title(name, fontsize=10)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.margins(y=0.15)
    figure.savefig(path, dpi=150)
    return f"Picture: {path}"
