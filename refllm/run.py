"""A run is a directory: what was trained, how it went, and how to go on.

refllm.lock     while a process writes the run (refllm/directory.py)
checkpoint/     state.json (refllm/checkpoint.py) and arrays (refllm/run_arrays.py)
metrics.jsonl   a line a report (refllm/reported.py)
summary.json    written at the end
report.html     all of it as a page (refllm/training_page.py)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import refllm
from refllm import checkpoint
from refllm.backend import Array, generator, namespace, to_host
from refllm.budget import Budget
from refllm.cut_parameters import in_layers, require_layers
from refllm.directory import RESUMABLE, occupied, require_empty
from refllm.errors import UserError
from refllm.invocation import quoted
from refllm.plan import Best, Plan, criterion
from refllm.report_keeper import ReportKeeper
from refllm.reported import METRICS, append_line, drop_lines_after, is_summarised, summary_of, write_summary
from refllm.resumable import require_begun, require_numbers, require_resumable
from refllm.run_arrays import Groups, groups_of, groups_to_go_on_with
from refllm.state_file import made_of
from refllm.tasks import Task
from refllm.tasks import load as load_task
from refllm.tasks.stored import damage_refused, stored_model
from refllm.timing import Clock, Timing
from refllm.train import Settings, Trainer, refuse_divergence
from refllm.workers import WorkerEndedError, Workers

ShouldStop: TypeAlias = Callable[[], bool]
OnStep: TypeAlias = Callable[[Array], None]
OnReport: TypeAlias = Callable[[dict[str, Any]], None]


def measures(task: Task, trainer: Trainer, most: int | None) -> dict[str, float]:
    """The task's measures with the weights of the moment, on its held-out part or on a sample of it."""
    with trainer.lent() as p:
        return task.validate(p, device=trainer.settings.device, workers=trainer.workers, most=most)


class Run:
    """A training in its directory: `begin` or `resume` prepares it, `train` makes it, `summarise` concludes it."""

    def __init__(
        self,
        directory: Path,
        task: Task,
        description: dict[str, Any],
        workers: Workers,
        groups: Groups | None,
    ) -> None:
        self.directory, self.task, self.description = directory, task, description
        self.settings = made_of(Settings, description["settings"])
        plan = made_of(Plan, description["plan"])
        self.reported = description["reported"]
        self.loss_sum, self.loss_steps = description["loss_sum"], description["loss_steps"]
        self.final: dict[str, Any] | None = None
        self.clock = Clock(description["seconds"], description["training_seconds"], plan.training_alone)
        timing = made_of(Timing, description.get("timing", {}))
        self.budget = Budget(plan, self.clock, timing, examples=task.examples_held_out, batch=self.settings.batch)
        self.best = made_of(Best, description.get("best", {}))
        self.keeper = ReportKeeper(directory, description, metrics=METRICS)
        self.saved: str | None = None  # what tells its last checkpoint from another; none of a new run
        order = generator(self.settings.seed, 1)
        self.batches = task.feed(batch=self.settings.batch, order=order, state=description["order"] if groups else None)
        model = getattr(task, "beginning", task.model)
        if workers.layered:  # before the other ranks are asked
            require_layers(in_layers(model).shapes(task.config), self.settings.device)
        workers.begin(description)
        self.trainer = Trainer(
            model=model, config=task.config, objective=task.objective,
            settings=self.settings, workers=workers,
        )  # fmt: skip
        if groups is None:
            self.trainer.initialise()
        else:
            self.trainer.load(groups, step=description["step"])

    @classmethod
    def begin(
        cls,
        directory: Path,
        *,
        task: Task,
        settings: Settings,
        plan: Plan,
        workers: Workers,
        since: float | None = None,
    ) -> Run:
        """A new run, whose time counts from `since` (time.perf_counter) if that is given, as it does of a run by
        minutes. UserError if the directory holds anything: a run is never overwritten."""
        require_empty(directory, resumes=True)
        description = {
            "version": refllm.__version__, **task.describe(), "settings": settings.as_dict(), "plan": asdict(plan),
            "seconds": 0.0, "training_seconds": 0.0, "reported": 0, "loss_sum": 0.0, "loss_steps": 0,
        }  # fmt: skip
        run = cls(directory, task, description, workers, None)
        if since is not None:
            run.clock.count_from(since)
        return run

    @classmethod
    def resume(cls, directory: Path, workers: Callable[[int, int], Workers]) -> Run:
        """The run as its last checkpoint left it. Later lines of the metrics are dropped: they will be made again."""
        require_begun(directory)
        require_resumable(directory, checkpoint.load(directory / "checkpoint")[0])
        with occupied(directory, until=RESUMABLE, fresh=False):
            return cls._resumed(directory, workers)

    @classmethod
    def _resumed(cls, directory: Path, workers: Callable[[int, int], Workers]) -> Run:
        stored = stored_model(directory)
        description, read, saved = stored.description, stored.groups, checkpoint.stamp(directory / "checkpoint")
        require_resumable(directory, description)
        groups = groups_to_go_on_with(description["files"], read.piecewise)
        with damage_refused(directory):
            require_numbers(description)
            settings = made_of(Settings, description["settings"])
            run = cls(
                directory, load_task(description), description, workers(settings.shards, settings.blas_threads), groups
            )
        run.saved = saved
        drop_lines_after(directory, description["step"])
        checkpoint.tidy(directory / "checkpoint")
        return run

    @contextmanager
    def held(self) -> Iterator[None]:
        """The directory is there and of this process alone: `train` and `summarise` hold it, and who does both holds it
        over them.

        Raises: UserError if another process has it, or has trained the run meanwhile.
        """
        with occupied(self.directory, until=RESUMABLE, fresh=self.saved is None):
            if self.saved is not None and checkpoint.stamp(self.directory / "checkpoint") != self.saved:
                raise UserError(
                    f"another process has changed the run in {self.directory} meanwhile; give the command again to go "
                    "on from where it stands now"
                )
            yield

    @property
    def done(self) -> bool:
        out_of_patience = self.plan.patience is not None and self.best.waited >= self.plan.patience
        return out_of_patience or self.budget.progress(self.trainer.step_number) >= 1

    @property
    def seconds(self) -> float:
        return self.clock.seconds

    @property
    def training_seconds(self) -> float:
        return self.clock.training

    @property
    def plan(self) -> Plan:
        return self.budget.plan

    @property
    def timing(self) -> Timing:
        return self.budget.timing

    @property
    def _plan_seconds(self) -> float:
        return self.budget.plan_seconds(self.trainer.step_number)

    def extend(self, *, steps: int | None, minutes: float | None) -> None:
        """Makes a run that is done so much longer, with a schedule of its own for what is added (refllm/plan.py).

        With patience the best report so far stays the best until another one beats it.
        Raises: UserError if the run is not done.
        """
        if not self.done:
            raise UserError(
                f"the run in {self.directory} is not complete: it stands at step {self.trainer.step_number:,}; go on "
                f"with --resume {quoted(self.directory)} alone, and make it longer then"
            )
        plan = replace(
            self.plan, steps=steps, minutes=minutes, after_steps=self.trainer.step_number, after_seconds=self.seconds
        )
        self.budget, self.final = self.budget.begun_again(plan), None
        self.description["plan"] = asdict(self.plan)
        self.reported, self.loss_sum, self.loss_steps = 0, 0.0, 0
        if self.plan.patience is not None:
            self.best = replace(self.best, waited=0)
            if not self.trainer.keeps_best:
                self.trainer.keep_best()

    def train(self, should_stop: ShouldStop, on_step: OnStep, on_report: OnReport) -> None:
        """Steps until the plan is fulfilled or `should_stop` says so; then the state is saved.

        With patience a plan that is fulfilled leaves the weights of its best report. A training that fails before its
        first report leaves nothing.

        `on_step` gets the loss of each step where it is: reading it from a device waits for the device. `on_report`
        gets each line of the metrics.
        """
        with self.held():
            try:
                self._carry_on(should_stop, on_step, on_report)
            except WorkerEndedError as error:
                go_on = f", or go on from what is saved with --resume {quoted(self.directory)}"
                raise UserError(f"{error}{go_on if self.saved else ''}") from None

    def _carry_on(self, should_stop: ShouldStop, on_step: OnStep, on_report: OnReport) -> None:
        losses: list[Array] = []
        self.clock.count()
        if self.trainer.step_number == self.plan.after_steps:
            self.timing.prepared = self.seconds - self.plan.after_seconds
        if self.plan.minutes is not None:
            self.timing.afterwards = self.budget.afterwards
        trained, since = self.training_seconds, self.trainer.step_number  # at the last report
        while not self.done and not should_stop():
            lr = self.plan.learning_rate(self.trainer.step_number + 1, self._plan_seconds, self.settings)
            losses.append(self.trainer.step(self.batches.next_batch(), lr=lr))
            on_step(losses[-1])
            self.clock.count_training()
            if self.plan.reports_due(self.trainer.step_number, self._plan_seconds) > self.reported:
                self._read(losses)
                self.clock.count_training()  # a device ends its steps when the losses are read
                seconds = self.training_seconds - trained
                line = self._report(lr, steps=self.trainer.step_number - since, seconds=seconds)
                self._keep_the_best(criterion(line))
                on_report(line)
                self.keeper.sample(self)
                self.clock.count()
                if self.timing.may_save(training=self.training_seconds):
                    self.save()
                    self.timing.has_saved(self.clock.count())
                self.keeper.write_in_time(self)
                trained, since = self.training_seconds, self.trainer.step_number
        self._read(losses)
        self.clock.count_training()
        if self.done and self.trainer.keeps_best:
            self.trainer.end_with_best()
        self.save()
        self.keeper.write(self)  # uncounted, as the save: it is done or not as it was saved, however long that took

    def _keep_the_best(self, loss: float) -> None:
        if self.plan.patience is not None and self.best.is_beaten(loss, self.trainer.step_number):
            self.trainer.keep_best()

    def _read(self, losses: list[Array]) -> None:
        """The losses since the last reading, which a device hands over here and only here."""
        if losses:
            for loss in to_host(namespace(losses[0]).stack(losses)).tolist():  # one transfer for all
                self.loss_sum += loss
        self.loss_steps += len(losses)
        losses.clear()
        self._refuse_divergence(self.loss_sum + float(self.trainer.norm))

    def _refuse_divergence(self, number: float) -> None:
        saved = checkpoint.is_there(self.directory / "checkpoint")
        remedy = "begin again with a lower --lr" + (" (what was saved before is intact)" if saved else "")
        refuse_divergence(number, step=self.trainer.step_number, remedy=remedy)

    def _report(self, lr: float, *, steps: int, seconds: float) -> dict[str, Any]:
        self.trainer.require_alike()
        step, ends = self.trainer.step_number, self.done
        before = self.budget.kept(step)
        measured = self._measured(self.budget.sample(step))
        if self.plan.minutes is not None:  # what the first report has taken tells more than the steps before it
            self.timing.kept = self.timing.kept or (before if ends else self.budget.kept(step))
        self._refuse_divergence(measured["val_loss"])  # the last step may have spoiled the weights about to be saved
        tokens = self.task.tokens_a_batch(self.settings.batch)
        line = {
            "step": step,
            "train_loss": self.loss_sum / max(1, self.loss_steps),
            **measured,
            "tokens_per_second": round(steps * tokens / max(seconds, 1e-9)),
            "seconds": round(self.seconds, 3),
            "lr": lr,
            "norm": float(self.trainer.norm),
        }
        due = self.plan.reports_due(self.trainer.step_number, self._plan_seconds)
        self.reported = max(due, self.reported + 1)
        self.loss_sum, self.loss_steps = 0.0, 0
        go_on = "begin again" if self.saved is None else f"go on with --resume {quoted(self.directory)}"
        append_line(self.directory, line, go_on=go_on)
        return line

    def _measured(self, most: int) -> dict[str, Any]:
        """The measures of so many held-out examples, how many they were, and of how many."""
        of = self.task.examples_held_out
        measured = self.validate(most)
        self.timing.evaluation += self.clock.count()
        self.timing.read += min(most, of)
        return {**measured, "val_examples": min(most, of), "val_of": of}

    def validate(self, most: int | None = None) -> dict[str, float]:
        """The task's measures on its held-out part, or on a sample of it."""
        measured: dict[str, float] = self.trainer.workers.validate(
            lambda some: measures(self.task, self.trainer, some), self.trainer.vector, most
        )
        return measured

    def evaluate(self) -> dict[str, Any]:
        """The measures of the weights that the training leaves on all that is held out, or of a run by minutes on a
        sample where there is no time for all of it."""
        if self.final is None:
            most = self.budget.affordable(self.trainer.step_number)
            self.clock.count()
            self.final = self._measured(most)
        return self.final

    def save(self) -> None:
        """The checkpoint of this moment."""
        self.description |= {
            "step": self.trainer.step_number, "seconds": self.seconds, "training_seconds": self.training_seconds,
            "reported": self.reported, "loss_sum": self.loss_sum, "loss_steps": self.loss_steps,
            "order": self.batches.state(), "timing": asdict(self.timing),
        }  # fmt: skip
        groups = groups_of(self.trainer, self.task)
        if self.plan.patience is not None:
            self.description["best"] = asdict(self.best)
        checkpoint.save(self.directory / "checkpoint", self.description, groups, step=self.trainer.step_number)
        self.saved = checkpoint.stamp(self.directory / "checkpoint")

    def summarise(self, baselines: dict[str, float], also: dict[str, float] | None = None) -> dict[str, Any]:
        """Writes summary.json; `also` are measures beside those of `evaluate`."""
        measured = {**self.evaluate(), **(also or {}), "baselines": baselines}
        best = {} if self.plan.patience is None else {"best_step": self.best.step}
        summary = summary_of(
            self.description["model"], self.task, self.trainer, self.clock, self.timing, measured=measured, best=best
        )
        with self.held():
            write_summary(self.directory, summary)
            self.keeper.write(self, summary)
        return summary

    @property
    def concluded(self) -> bool:
        """Whether the run is done and its summary written."""
        return self.done and is_summarised(self.directory, step=self.trainer.step_number)
