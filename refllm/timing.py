"""The time of a run: how it is counted, how much of it reports and saves may take, and what of the minutes is left for
training."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from refllm.plan import Plan

REPORTS = 0.05  # share of the training that its reports may take, all together
CONCLUSION = 0.1  # share of the minutes that is kept for the evaluation at the end, at most
TRAINING = 0.1  # share of the minutes that training has at least, however long reading takes
EVALUATION = 0.05  # share of the minutes that the evaluation at the end may take, however late it begins
RATIO = 3.0  # a step of training takes about as long as reading three times its examples
SAVES = 0.05  # share of the training that checkpoints may take, all together,
SAVED_ANYWAY = 1.0  # or seconds that they may take anyway
MARGIN = 1.2  # what takes longer than was foreseen fits all the same
FEWEST = 64  # examples of a report, of a run by steps, which promises no time


def sample_size(*, examples: int, steps: float, batch: int, reports: int, fewest: int) -> int:
    """How many of the held-out examples a report reads: as many as REPORTS permits for that many steps, if not all.

    It follows from counts alone, so that a run that is gone on with reads the same.
    """
    most = REPORTS * RATIO * steps * batch / reports
    return min(examples, max(fewest, math.floor(most)))


@dataclass
class Clock:
    """The seconds of a run: all that count, and those of its training. With `training_alone` no others count."""

    seconds: float
    training: float
    training_alone: bool
    since: float = 0.0  # of what is not yet counted; 0: from now

    def __post_init__(self) -> None:
        self.since = self.since or time.perf_counter()

    def count_from(self, since: float) -> None:
        """Lets the time of a run that is about to be trained count from an earlier moment (time.perf_counter)."""
        if not self.training_alone:
            self.since = since

    def elapsed(self) -> float:
        """The seconds of the run that count, until now."""
        return self.seconds if self.training_alone else self.seconds + time.perf_counter() - self.since

    def count(self) -> float:
        """Takes the time since the last count into the seconds of the run; how long that was."""
        now = time.perf_counter()
        seconds, self.since = now - self.since, now
        self.seconds += 0.0 if self.training_alone else seconds
        return seconds

    def count_training(self) -> None:
        """As `count`, of time that was training."""
        seconds = self.count()
        self.training += seconds
        if self.training_alone:
            self.seconds = self.training


@dataclass
class Timing:
    """What has taken how long, and what each report reads. Goes into the state of a run."""

    prepared: float = 0.0  # seconds before the first step: reading the data, and making tokens of it
    evaluation: float = 0.0  # seconds of reports and of the evaluation at the end
    read: int = 0  # examples that were evaluated in them
    sample: int = 0  # of the held-out examples, that every report reads; 0: not yet decided
    kept: float = 0.0  # seconds of the minutes, for what follows the training; 0: not yet decided
    afterwards: float = 0.0  # seconds of the minutes, for what the command does in the end; 0: not yet decided
    saves: float = 0.0  # seconds of checkpoints
    saved: int = 0  # how many they were

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) and x >= 0 for x in vars(self).values()):
            raise TypeError(f"timing {self}")

    def decide(self, plan: Plan, *, examples: int, batch: int, step: int, progress: float) -> int:
        """The size of the sample, decided at the first report: of a run by minutes from its speed until then."""
        if not self.sample:
            steps = plan.steps if plan.steps is not None else step / min(1.0, max(progress, 1e-3))
            fewest = FEWEST if plan.steps is not None else batch
            self.sample = sample_size(examples=examples, steps=steps, batch=batch, reports=plan.reports, fewest=fewest)
        return self.sample

    def has_saved(self, seconds: float) -> None:
        self.saves, self.saved = self.saves + seconds, self.saved + 1

    def may_save(self, *, training: float) -> bool:
        """Whether a report saves: the first does, and a later one if saves have not taken too much of the training. A
        slow disk then has fewer of them, and a stop costs more steps."""
        if not self.saved:
            return True
        return self.saves + self.saves / self.saved <= max(SAVED_ANYWAY, SAVES * training)

    def an_example(self, training: float, step: int, batch: int) -> float:
        """Seconds that evaluating an example takes, as measured; before the first report, as the steps suggest."""
        if self.read:
            return self.evaluation / self.read
        return training / step / batch / RATIO if step else 0.0


def kept_of(plan: Plan, *, examples: int, sample: int, an_example: float) -> float:
    """Seconds of the minutes that are kept for the last report and for evaluating the held-out examples."""
    whole = 60 * (plan.minutes or math.inf)
    report = an_example * (sample or examples)
    return min(REPORTS * whole / plan.reports, report) + min(CONCLUSION * whole, MARGIN * an_example * examples)


def of_plan(plan: Plan, seconds: float, *, prepared: float, kept: float, afterwards: float) -> float:
    """Seconds of a run, some of them before its first step, as seconds of its plan, which ends with the
    training: what follows, `kept` seconds and those of the command afterwards, is to end when the minutes do."""
    if plan.minutes is None or plan.training_alone:
        return seconds
    whole = 60 * plan.minutes
    available = max(whole - prepared - kept - afterwards_of(plan, afterwards), TRAINING * whole)
    return plan.after_seconds + whole * (seconds - plan.after_seconds - prepared) / available


def afterwards_of(plan: Plan, seconds: float) -> float:
    """What is kept of the minutes for what a command does after the evaluation: no more than a twentieth."""
    return min(seconds, 0.05 * 60 * (plan.minutes or math.inf))


def affordable(plan: Plan, elapsed: float, *, examples: int, an_example: float, batch: int, afterwards: float) -> int:
    """How many of the held-out examples the evaluation at the end may read: all, but of a run by minutes no more than
    there is time for."""
    if plan.minutes is None or plan.training_alone or not an_example:
        return examples
    whole = 60 * plan.minutes
    left = max(1.02 * whole - (elapsed - plan.after_seconds) - afterwards_of(plan, afterwards), EVALUATION * whole)
    return min(examples, max(batch, math.floor(left / an_example)))
