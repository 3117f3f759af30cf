"""What a smaller model costs: size, speed and quality before and after, as a table and a picture."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refllm.extras import how_to_install
from refllm.parameters import count
from refllm.pictures import save_pictures
from refllm.tasks import Task
from refllm.tasks import load as load_task
from refllm.tasks.classify import Classify
from refllm.tasks.language import Language
from refllm.trained import Trained, load_model
from refllm.workers import Workers

ROUNDS = 3  # measurements of the speed; the fastest counts
LONGEST, SHORT = 60.0, 5.0  # seconds that the measures of a model, and a round of its speed, may take
TRIED = 64  # held-out examples that tell how long the others take
SPEEDS = ("tokens per second", "texts per second", "seconds")


def whole(description: dict[str, Any]) -> dict[str, Any]:
    """The description of the same run as one in which the whole model was trained from the beginning: a smaller model
    has no part in the run that its teacher began from."""
    alone = {"tuning": {"tune": "all"}, "from": None} if "tuning" in description else {}
    return {**description, **alone}


def before_and_after(before: Path, after: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Of each: bytes of the weights on the disk, parameters, speed, and the task's measures of the model as stored, on
    all that is held out or, where that would take long, on a sample, which is the same for both.

    For the speed the two take turns, and the fastest of each counts: what else the machine does then slows both.
    """
    sides = {"before": before, "after": after}
    with Workers(options.threads) as workers:
        compared = {name: _Measured.of(directory, options.device, workers) for name, directory in sides.items()}
        most, few = compared["before"].affordable()
        measures = {name: one.measure(most) for name, one in compared.items()}
        for one in list(compared.values()) * (ROUNDS - (few == most)):
            one.measure(few)
    total = compared["before"].task.examples_held_out
    sample = {} if most == total else {"val_examples": most, "val_of": total}
    return {
        name: {
            "bytes": one.trained.description["files"]["weights"]["bytes"],
            "parameters": count(one.trained.model.shapes(one.trained.config)),
            **one.speed(few),
            **{measure: x for measure, x in measures[name].items() if measure != "criterion"},  # told in the others
            **sample,
        }
        for name, one in compared.items()
    }


@dataclass
class _Measured:
    """A stored model, its task, and the seconds that reading so many of the held-out examples has taken it."""

    trained: Trained
    task: Task
    device: str
    workers: Workers
    seconds: dict[int, list[float]]

    @classmethod
    def of(cls, directory: Path, device: str, workers: Workers) -> _Measured:
        trained = load_model(directory, device)
        return cls(trained, load_task(whole(trained.description)), device, workers, {})

    def measure(self, most: int) -> dict[str, float]:
        start = time.perf_counter()
        measured = self.task.validate(self.trained.parameters, device=self.device, workers=self.workers, most=most)
        self.seconds.setdefault(most, []).append(time.perf_counter() - start)
        return measured

    def affordable(self) -> tuple[int, int]:
        """How many of the held-out examples can be read in LONGEST seconds, and in SHORT ones."""
        total = self.task.examples_held_out
        if total <= TRIED:
            return total, total
        self.measure(TRIED)
        each = max(1e-9, min(self.seconds.pop(TRIED)) / TRIED)
        most, few = (min(total, max(TRIED, math.floor(seconds / each))) for seconds in (LONGEST, SHORT))
        return most, few

    def speed(self, read: int) -> dict[str, float]:
        """Of reading so many examples; the seconds of it where the task does not say how much it reads."""
        seconds, share = min(self.seconds[read]), read / self.task.examples_held_out
        if isinstance(self.task, Language):
            return {"tokens per second": share * self.task.validation_tokens / seconds}
        if isinstance(self.task, Classify):
            return {"texts per second": share * len(self.task.read.validation) / seconds}
        return {"seconds": seconds / share}


def sample_told(rows: dict[str, dict[str, float]]) -> str:
    """A line on what was measured, where that is not all that is held out."""
    row = rows["before"]
    if "val_of" not in row:
        return ""
    return f"Measured on {row['val_examples']:,} of the {row['val_of']:,} examples held out, evenly spread.\n"


def shown_of(rows: dict[str, dict[str, float]], *, faster: bool) -> dict[str, dict[str, float]]:
    """The rows that people see: a model that computes as many products as before is not faster, whatever two
    measurements on a busy machine say."""
    hidden = {"val_examples", "val_of", *(() if faster else SPEEDS)}
    return {side: {k: x for k, x in row.items() if k not in hidden} for side, row in rows.items()}


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
    return f"Picture: {save_pictures(figure, path)}"
