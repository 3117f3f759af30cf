"""What a run writes beside its checkpoint: metrics.jsonl, a line a report, and summary.json, at the end.

metrics.jsonl   step, train_loss, val_loss, val_bpc, tokens_per_second, seconds, lr, norm; val_loss and the other
                measures are those of val_examples held-out windows or texts of val_of, evenly spread and the same in
                every line (refllm/timing.py)
summary.json    steps, seconds, parameters, val_bpc, baselines, tokens_per_second, threads, ...; its measures are those
                of all that is held out unless val_examples is below val_of; reading_seconds, training_seconds and
                evaluation_seconds are parts of its seconds (val_bpt and val_unknown for val_bpc where the tokens do not
                give the text back)
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import refllm
from refllm import checkpoint
from refllm.errors import UserError
from refllm.parameters import count
from refllm.tasks import Task
from refllm.timing import Clock, Timing
from refllm.train import Trainer

METRICS, SUMMARY = "metrics.jsonl", "summary.json"


def append_line(directory: Path, line: dict[str, Any], *, go_on: str) -> None:
    """One more report. UserError, which says how to `go_on`, where it cannot be written."""
    try:
        with open(directory / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise UserError(
            f"cannot write {directory}/{METRICS}: {error.strerror}; free some space, then {go_on}"
        ) from None


def drop_lines_after(directory: Path, step: int) -> None:
    """The reports after a step, and what was cut short, go: they will be made again."""
    metrics = directory / METRICS
    if metrics.exists() and not metrics.is_file():  # reading a pipe would wait for who writes into it
        raise UserError(f"{metrics} is not a file; take it away, and the run goes on with a new one")
    if metrics.exists():
        lines = metrics.read_text("utf-8", "replace").splitlines()
        kept = [line for line in lines if step_of(line) <= step]
        if kept != lines:
            checkpoint.write_atomically(metrics, "".join(line + "\n" for line in kept).encode())


def step_of(line: str) -> float:
    """The step of a line of metrics; infinite for one that was cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf


def summary_of(
    model: str,
    task: Task,
    trainer: Trainer,
    clock: Clock,
    timing: Timing,
    *,
    measured: dict[str, Any],
    best: dict[str, int],
) -> dict[str, Any]:
    settings = trainer.settings
    tokens = trainer.step_number * task.tokens_a_batch(settings.batch)
    return {
        "model": model,
        "steps": trainer.step_number,
        "seconds": round(clock.elapsed(), 3),
        "reading_seconds": round(timing.prepared, 3),
        "training_seconds": round(clock.training, 3),
        "evaluation_seconds": round(timing.evaluation, 3),
        "parameters": count(trainer.shapes),
        **measured,
        "tokens_per_second": round(tokens / max(clock.training, 1e-9)),
        "threads": settings.shards * settings.blas_threads,
        "device": settings.device,
        "dtype": settings.dtype,
        "tf32": settings.tf32,
        "seed": settings.seed,
        "version": refllm.__version__,
        "data": task.name,
        **best,
    }


def write_summary(directory: Path, summary: dict[str, Any]) -> None:
    checkpoint.write_atomically(directory / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())


def is_summarised(directory: Path, *, step: int) -> bool:
    """Whether there is a summary of the run as it stands at that step."""
    stored = stored_summary(directory)
    return stored is not None and stored.get("steps") == step


def stored_summary(directory: Path) -> dict[str, Any] | None:
    """The summary of a run; None if there is none that can be read."""
    if not (directory / SUMMARY).is_file():
        return None
    try:
        stored = json.loads((directory / SUMMARY).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return stored if isinstance(stored, dict) else None
