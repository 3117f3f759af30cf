"""The smallest training that shows everything: a text, a model and settings that a step of takes a millisecond."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from refllm.models import gpt
from refllm.parameters import named_leaves
from refllm.plan import Plan
from refllm.run import Run
from refllm.tasks.language import Language
from refllm.tokenizers import CharacterTokenizer
from refllm.train import Settings
from refllm.workers import Workers

TEXT = "".join(f"{n} times {m} is {n * m}.\n" for n in range(1, 13) for m in range(1, 13))  # 2 kB, no line twice

TIMES = ("seconds", "tokens_per_second", "reading_seconds", "training_seconds", "evaluation_seconds")  # in summaries


def settings(**changes: Any) -> Settings:
    usual: dict[str, Any] = {
        "batch": 4, "lr": 0.01, "warmup": 0.1, "floor": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "decay": 0.1,
        "clip": 1.0, "seed": 1, "shards": 1, "dtype": "float32", "device": "cpu",
    }  # fmt: skip
    return Settings(**{**usual, **changes})


def config(**changes: Any) -> gpt.Config:
    usual: dict[str, Any] = {
        "vocabulary": len(set(TEXT)), "context": 16, "layers": 2, "heads": 2, "width": 8, "hidden": 16,
    }  # fmt: skip
    return gpt.Config(**{**usual, **changes})


def data(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def begin(folder: Path, name: str, *, steps: int = 12, reports: int = 3, dropout: float = 0.0, **changes: Any) -> Run:
    """A run in `folder / name` that has not begun."""
    made = settings(**changes)
    task = Language(
        model="gpt", config=config(dropout=dropout), tokenizer=CharacterTokenizer.train(TEXT), data=[str(data(folder))]
    )
    return Run.begin(
        folder / name, task=task, settings=made, plan=Plan(steps=steps, minutes=None, reports=reports),
        workers=Workers(made.shards),
    )  # fmt: skip


def train(run: Run, *, stop_after: int | None = None, on_report: Callable[[Any], None] = lambda line: None) -> Run:
    """Trains to the end, or until so many steps are done in all."""
    with run.trainer.workers:
        run.train(
            lambda: stop_after is not None and run.trainer.step_number >= stop_after, lambda loss: None, on_report
        )
    return run


def bits(run: Run) -> dict[str, bytes]:
    """Weights and moments, to the bit."""
    groups = run.trainer.groups().items()
    return {f"{group} {name}": x.tobytes() for group, arrays in groups for name, x in arrays.items()}


def metrics(directory: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")} for line in lines]


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def file_of(checkpoint: Path, group: str) -> Path:
    """The file of a group of arrays."""
    return checkpoint / str(json.loads((checkpoint / "state.json").read_bytes())["files"][group]["file"])


def resealed(state: dict[str, Any]) -> bytes:
    """A state with other values and the checksum of these; as it is where it is of format 1."""
    state = dict(state)
    if state.pop("sha256", None) is None:
        return json.dumps(state).encode()
    body = json.dumps(state, indent=1).removesuffix("\n}").encode()
    return body + f',\n "sha256": "{hashlib.sha256(body).hexdigest()}"\n}}'.encode()


def largest_difference(a: Any, b: Any) -> float:
    """Of two trees, relative to the largest number of each leaf."""
    pairs = zip(named_leaves(a), named_leaves(b), strict=True)
    return max(float(numpy.abs(x - y).max() / max(numpy.abs(x).max(), 1e-30)) for (_, x), (_, y) in pairs)
