"""What a model is trained for: its data, its objective, and how good it is at it. A file a task.

A run (refllm/run.py) trains a task in a directory; `describe` goes into the run's state, and `load` makes the task of
it again.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from refllm.errors import UserError
from refllm.parameters import Tree
from refllm.train import Objective
from refllm.workers import Workers

KINDS = ("language", "masked", "denoising", "classify", "seq2seq", "span")


class Feed(Protocol):
    """Batches in an order that can be stopped and gone on with."""

    def next_batch(self) -> Tree: ...

    def state(self) -> dict[str, Any]: ...


class Task(Protocol):
    """What a run asks of a task."""

    config: Any
    tokenizer: Any
    objective: Objective
    name: str  # of the data, for people

    @property
    def model(self) -> Any:
        """What the trainer asks for shapes(config) and initial(config, generator): a model, or one that goes on from
        given weights."""
        ...

    def introduced(self) -> str:
        """The data in a line: its name and size."""
        ...

    def describe(self) -> dict[str, Any]:
        """What `load` needs, ready for JSON; `task` is its kind."""
        ...

    def feed(self, *, batch: int, order: Any, state: dict[str, Any] | None) -> Feed:
        """Batches in the order of a Generator, or going on from a state."""
        ...

    def tokens_a_batch(self, batch: int) -> int:
        """For tokens per second."""
        ...

    @property
    def examples_held_out(self) -> int:
        """Windows, texts, pairs, questions: what a batch has one of in each row."""
        ...

    def validate(self, p: Tree, *, device: str, workers: Workers, most: int | None = None) -> dict[str, float]:
        """Measures on the held-out part: `val_loss`, the lower the better, and others; `criterion` among them where the
        best report is another one. Of `most` of its examples, evenly spread and always the same, unless that is None;
        where they are read in batches, of as many of these as hold so many."""
        ...

    def told(self, measured: dict[str, float]) -> str:
        """The measures in a few words, for the lines of a run."""
        ...


def part_told(measured: dict[str, float]) -> str:
    """What part of the held-out examples was read, where it was not all of them."""
    read, of = measured.get("val_examples", 1), measured.get("val_of", 1)
    return "" if read >= of else f" ({read:,} of {of:,})"


def load(description: dict[str, Any]) -> Task:
    """The task that `describe` wrote."""
    kind = description.get("task", "language")
    if kind not in KINDS:
        raise UserError(f"there is no task {kind!r} in this version of refllm; it knows {', '.join(KINDS)}")
    task: Task = importlib.import_module(f"{__name__}.{kind}").load(description)
    return task
