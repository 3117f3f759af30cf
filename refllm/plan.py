"""How long to train, how often to look, and the learning rate in between."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from refllm.errors import UserError
from refllm.kinds import settle_fields
from refllm.optim.schedule import warmup_cosine
from refllm.train import Settings


@dataclass(frozen=True)
class Plan:
    """A number of steps, or of minutes: then the schedule follows the clock and the run ends on time, on any machine.

    What the minutes hold: reading the data, making tokens of it, training, reports, and the evaluation at the end with
    all that a command does after it (refllm/timing.py); or, where models are compared, the steps alone.
    Only a run by steps can be repeated bit for bit, since a clock cannot.

    A run that is done can be given more: then steps, minutes, reports and the schedule are those of the part that was
    added, which begins after so many steps and seconds. Its rate warms up and falls as that of a run of this length
    does: warm restarts (Loshchilov & Hutter 2017, arXiv:1608.03983), with a warm-up each (Ibrahim et al. 2024,
    arXiv:2403.08763).

    With `patience` the run ends early (early stopping: Prechelt 1998; documents 000 sec. 4.4) and leaves the weights of
    the report whose `criterion` was lowest, whether it ends early or not.
    """

    steps: int | None
    minutes: float | None
    reports: int  # lines of metrics, with a validation and a checkpoint each, spread evenly over the run
    patience: int | None = None  # reports without a better one before the run ends; None: it never ends early
    after_steps: int = 0  # of the parts before
    after_seconds: float = 0.0
    training_alone: bool = False  # the minutes are those of the steps: reports and evaluation add to them

    def __post_init__(self) -> None:
        settle_fields(self)
        if (self.steps is None) == (self.minutes is None):
            raise UserError("a run needs either --steps or --minutes; give one of them")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"steps must be at least 1, got {self.steps}")
        if self.minutes is not None and not (self.minutes > 0 and math.isfinite(self.minutes)):
            raise UserError(f"minutes must be a finite number above 0, got {self.minutes}")
        if self.reports < 1:
            raise UserError(f"reports must be at least 1, got {self.reports}")
        if self.patience is not None and self.patience < 1:
            raise UserError(f"patience must be at least 1, got {self.patience}")

    def whole(self) -> Plan:
        """One of the length of all parts together, for another run, which has none behind it."""
        if self.steps is not None:
            return replace(self, steps=self.after_steps + self.steps, after_steps=0, after_seconds=0.0)
        assert self.minutes is not None
        return replace(self, minutes=self.after_seconds / 60 + self.minutes, after_steps=0, after_seconds=0.0)

    def progress(self, step: int, seconds: float) -> float:
        """The share of the training that is done after `step` steps and `seconds` seconds of the plan."""
        if self.steps is not None:
            return (step - self.after_steps) / self.steps
        assert self.minutes is not None
        return (seconds - self.after_seconds) / (60 * self.minutes)

    def reports_due(self, step: int, seconds: float) -> int:
        """How many reports should have been made by now."""
        return math.floor(self.progress(step, seconds) * self.reports + 1e-9)

    def learning_rate(self, step: int, seconds: float, settings: Settings) -> float:
        """For step number `step`, which begins after `seconds` seconds."""
        if self.steps is not None:
            position, total = float(step - self.after_steps), float(self.steps)
        else:  # a thousandth of the time takes the place of a step
            position, total = 1 + 1000 * self.progress(step, seconds), 1000.0
        return warmup_cosine(
            position,
            max_lr=settings.lr,
            warmup=settings.warmup * total,
            total=total,
            min_lr=settings.lr * settings.floor,
        )


def criterion(measured: Mapping[str, float]) -> float:
    """What the best report has the least of: what the task calls so, or `val_loss`."""
    return measured.get("criterion", measured["val_loss"])


@dataclass
class Best:
    """STOP: the lowest criterion so far, the step that it was measured at, and the reports since then."""

    loss: float | None = None
    step: int = 0
    waited: int = 0

    def is_beaten(self, loss: float, step: int) -> bool:
        """Takes in the criterion of a report; whether it is the lowest so far."""
        if self.loss is not None and loss >= self.loss:
            self.waited += 1
            return False
        self.loss, self.step, self.waited = loss, step, 0
        return True
