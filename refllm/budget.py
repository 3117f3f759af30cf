"""What the plan of a run leaves of its time: for its training, for what each report reads, and for the evaluation.

The formulas are in refllm/timing.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from refllm.plan import Plan
from refllm.timing import Clock, Timing, affordable, afterwards_of, kept_of, of_plan


@dataclass
class Budget:
    """The plan of a run, its clock, and what has taken how long. A step is the number of those that are done."""

    plan: Plan
    clock: Clock
    timing: Timing
    examples: int  # held out
    batch: int
    wanted_afterwards: float = 0.0  # seconds that the command needs after the evaluation of a run by minutes

    def begun_again(self, plan: Plan) -> Budget:
        """For the part that is added to a run that is done: what was decided for the part before is open again."""
        return replace(self, plan=plan, timing=replace(self.timing, kept=0.0, afterwards=0.0))

    @property
    def afterwards(self) -> float:
        """Decided once and saved: a run that is opened again is done if it was, whatever the command wants by now."""
        return self.timing.afterwards or afterwards_of(self.plan, self.wanted_afterwards)

    def kept(self, step: int) -> float:
        """Seconds for the last report and the evaluation, as they are foreseen now."""
        an_example = self._an_example(step)
        return kept_of(self.plan, examples=self.examples, sample=self.timing.sample, an_example=an_example)

    def plan_seconds(self, step: int) -> float:
        """The seconds of the run as those of its plan."""
        kept = self.timing.kept or self.kept(step)
        seconds, prepared = self.clock.seconds, self.timing.prepared
        return of_plan(self.plan, seconds, prepared=prepared, kept=kept, afterwards=self.afterwards)

    def progress(self, step: int) -> float:
        return self.plan.progress(step, self.plan_seconds(step))

    def sample(self, step: int) -> int:
        """How many of the held-out examples every report reads."""
        progress = self.progress(step)
        return self.timing.decide(self.plan, examples=self.examples, batch=self.batch, step=step, progress=progress)

    def affordable(self, step: int) -> int:
        """How many of the held-out examples the evaluation at the end may read."""
        return affordable(
            self.plan, self.clock.elapsed(), examples=self.examples, an_example=self._an_example(step),
            batch=self.batch, afterwards=self.afterwards,
        )  # fmt: skip

    def _an_example(self, step: int) -> float:
        return self.timing.an_example(self.clock.training, step, self.batch)
