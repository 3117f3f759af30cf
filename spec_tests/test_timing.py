"""Laws of the time that a run takes, by a clock that the test moves: what reports may take, and when it ends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm import timing as timing_module
from refllm.plan import Plan
from refllm.run import Run
from refllm.timing import FEWEST, RATIO, REPORTS, SAVED_ANYWAY, SAVES, Timing, affordable, kept_of, of_plan, sample_size
from refllm.workers import Workers
from spec_tests import tiny

MINUTE = 60.0


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


class Costs:
    """A run whose steps, validations and saves take the seconds that they are given, and whose held-out part is as
    large as it is given."""

    def __init__(
        self, run: Run, clock: Clock, *, step: float, example: float, examples: int, save: float = 0.0
    ) -> None:
        self.run, self.clock, self.read = run, clock, list[int]()
        task: Any = run.task
        run.task = SimpleNamespace(
            examples_held_out=examples, tokens_a_batch=task.tokens_a_batch, validate=None, name="text"
        )
        run.budget.examples = examples

        def stepped(batch: Any, *, lr: float) -> Any:
            clock.now += step
            run.trainer.step_number += 1
            return numpy.float32(2.0)

        def validated(most: int | None = None) -> dict[str, float]:
            self.read.append(examples if most is None else most)
            clock.now += example * self.read[-1]
            return {"val_loss": 2.0}

        def saved() -> None:
            clock.now += save

        run.trainer.step = stepped  # type: ignore[method-assign]
        run.validate, run.save = validated, saved  # type: ignore[method-assign]


def run_of(folder: Path, clock: Clock, plan: Plan, *, since: float, batch: int = 16, **costs: Any) -> Costs:
    begun = tiny.begin(folder, "run", batch=batch)
    run = Run.begin(
        folder / "run", task=begun.task, settings=begun.settings, plan=plan, workers=Workers(1), since=since
    )
    return Costs(run, clock, **costs)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing_module, "time", made)
    return made


def lengths() -> Iterator[Any]:
    """All combinations; by default those in which every two values meet."""
    axes: list[list[Any]] = [
        [0.5, 1.0], [1, 10, 100], [0.0, 0.01, 0.4], [3, 640, 3_800, 140_000],
        [(0.01, 3.0), (0.05, 1.5), (0.05, 6.0), (0.4, 3.0)],
    ]  # fmt: skip
    for place in itertools.product(*(range(len(axis)) for axis in axes)):
        minutes, reports, reading, examples, (step, ratio) = (axis[i] for axis, i in zip(axes, place, strict=True))
        name = f"{minutes} min, {reports} reports, reading {reading:.0%}, of {examples}, {step}, {ratio}"
        marks = () if sum(place) % 4 == 0 else pytest.mark.slow
        yield pytest.param(minutes, reports, reading, examples, step, ratio, id=name, marks=marks)


def test_by_default_every_two_lengths_meet() -> None:
    met = {pair for each in lengths() if not each.marks for pair in itertools.combinations(enumerate(each.values), 2)}
    assert met == {pair for each in lengths() for pair in itertools.combinations(enumerate(each.values), 2)}


@pytest.mark.one_in(16)
@pytest.mark.parametrize(("minutes", "reports", "reading", "examples", "step", "ratio"), list(lengths()))
def test_a_run_by_minutes_ends_when_they_do_however_much_is_held_out(
    tmp_path: Path, clock: Clock, minutes: float, reports: int, reading: float, examples: int, step: float, ratio: float
) -> None:
    """Reading, training, reports and the evaluation at the end; the last reads all where it takes a tenth or less."""
    since, whole = clock.now, MINUTE * minutes
    clock.now += reading * whole
    example = step / 16 / ratio
    plan = Plan(steps=None, minutes=minutes, reports=reports)
    made = run_of(tmp_path, clock, plan, since=since, step=step, example=example, examples=examples, save=step / 2)
    made.run.train(lambda: False, lambda loss: None, lambda line: None)
    trained = made.run.training_seconds
    assert len(made.read) >= reports if reports * step < 0.5 * trained else made.read
    assert set(made.read) == {made.read[0]}
    assert example * sum(made.read) <= 1.2 * max(REPORTS * RATIO / ratio * trained, reports * 16 * example)
    measured = made.run.evaluate()
    *_, last = made.read
    assert (measured["val_examples"], measured["val_of"]) == (last, examples)
    assert last == examples or example * examples > 0.07 * whole
    assert clock.now - since == pytest.approx(whole, rel=0.05)
    assert made.run.timing.prepared == pytest.approx(reading * whole)
    assert made.run.clock.elapsed() == pytest.approx(clock.now - since)


@pytest.mark.parametrize("examples", [640, 140_000])
def test_a_run_that_is_made_longer_by_minutes_takes_so_many_more(tmp_path: Path, clock: Clock, examples: int) -> None:
    plan = Plan(steps=None, minutes=1.0, reports=4)
    made = run_of(tmp_path, clock, plan, since=clock.now, step=0.05, example=0.001, examples=examples)
    for minutes in (2.0, 0.5):
        made.run.train(lambda: False, lambda loss: None, lambda line: None)
        made.run.evaluate()
        made.run.extend(steps=None, minutes=minutes)
        start = clock.now
        clock.now += 3
        made.run.train(lambda: False, lambda loss: None, lambda line: None)
        made.run.evaluate()
        assert clock.now - start == pytest.approx(MINUTE * minutes, rel=0.05)


@pytest.mark.parametrize("examples", [640, 140_000])
def test_where_models_are_compared_the_minutes_are_those_of_the_steps_alone(
    tmp_path: Path, clock: Clock, examples: int
) -> None:
    since = clock.now
    clock.now += 30
    plan = Plan(steps=None, minutes=1.0, reports=4, training_alone=True)
    how: dict[str, Any] = {"step": 0.05, "example": 0.001, "examples": examples, "save": 0.5}
    made = run_of(tmp_path, clock, plan, since=since, **how)
    made.run.train(lambda: False, lambda loss: None, lambda line: None)
    assert made.run.trainer.step_number == pytest.approx(1200, abs=1)
    assert made.run.training_seconds == pytest.approx(60, abs=0.06) == made.run.seconds
    assert made.run.evaluate()["val_examples"] == examples


def test_a_text_whose_reading_takes_longer_than_the_minutes_is_trained_on_for_a_tenth_of_them(
    tmp_path: Path, clock: Clock
) -> None:
    since = clock.now
    clock.now += 500
    plan = Plan(steps=None, minutes=1.0, reports=4)
    made = run_of(tmp_path, clock, plan, since=since, step=0.05, example=0.001, examples=100_000)
    made.run.train(lambda: False, lambda loss: None, lambda line: None)
    assert made.run.training_seconds == pytest.approx(6, rel=0.1)
    made.run.evaluate()
    assert clock.now - since < 500 + 6 + 4


def test_a_run_by_steps_reads_no_clock_and_evaluates_all_at_its_end(tmp_path: Path, clock: Clock) -> None:
    plan = Plan(steps=100, minutes=None, reports=10)
    made = run_of(tmp_path, clock, plan, since=clock.now, step=1e3, example=1e3, examples=100_000)
    made.run.train(lambda: False, lambda loss: None, lambda line: None)
    assert made.read == [FEWEST] * 10
    made.run.evaluate()
    assert made.read[-1] == 100_000


@given(
    examples=st.integers(1, 10**6), steps=st.integers(1, 10**6), batch=st.integers(1, 512), reports=st.integers(1, 100),
    fewest=st.integers(1, 100),
)  # fmt: skip
def test_reports_take_no_more_than_their_share_of_the_steps_beyond_the_fewest_examples(
    examples: int, steps: int, batch: int, reports: int, fewest: int
) -> None:
    size = sample_size(examples=examples, steps=steps, batch=batch, reports=reports, fewest=fewest)
    assert 1 <= size <= examples
    share = size * reports / RATIO / (steps * batch)
    assert share <= REPORTS * (1 + 1e-9) or size <= fewest
    assert size in (examples, fewest) or (size + 1) * reports / RATIO > REPORTS * steps * batch * (1 - 1e-9)


@given(
    minutes=st.floats(0.1, 100), prepared=st.floats(0, 0.7), examples=st.integers(1, 10**6),
    an_example=st.floats(1e-6, 1), afterwards=st.floats(0, 100), reports=st.integers(1, 20),
)  # fmt: skip
def test_the_training_begins_when_the_data_is_read_and_ends_before_the_minutes_do(
    minutes: float, prepared: float, examples: int, an_example: float, afterwards: float, reports: int
) -> None:
    plan, whole = Plan(steps=None, minutes=minutes, reports=reports), MINUTE * minutes
    kept = kept_of(plan, examples=examples, sample=0, an_example=an_example)
    assert kept <= 0.15 * whole * (1 + 1e-9)
    how: Any = {"prepared": prepared * whole, "kept": kept, "afterwards": afterwards}
    assert of_plan(plan, prepared * whole, **how) == 0
    assert of_plan(plan, whole, **how) >= whole * (1 - 1e-9)
    assert of_plan(plan, 0.79 * whole, **how) <= whole * (1 + 1e-9)
    left = affordable(
        plan, whole, examples=examples, an_example=an_example, batch=16, afterwards=afterwards
    )  # whatever has gone before
    assert left == min(examples, 16) or left * an_example <= 0.05 * whole * (1 + 1e-9) or left == examples


def test_the_sample_of_a_run_is_decided_once() -> None:
    plan, timing = Plan(steps=None, minutes=1.0, reports=10), Timing()
    first = timing.decide(plan, examples=10**6, batch=16, step=100, progress=0.1)
    assert first == int(REPORTS * RATIO * 1000 * 16 / 10)
    assert timing.decide(plan, examples=10**6, batch=16, step=900, progress=0.2) == first
    assert Timing(**vars(timing)) == timing


@pytest.mark.parametrize("wrong", [{"prepared": -1.0}, {"evaluation": float("nan")}, {"read": -3}, {"sample": -1}])
def test_a_timing_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="timing"):
        Timing(**wrong)


@pytest.mark.parametrize("reports", [10, 100])
@pytest.mark.parametrize("save", [0.02, 0.5, 5.0])
def test_checkpoints_take_no_more_than_their_share_and_the_first_and_the_last_are_always_there(
    tmp_path: Path, clock: Clock, reports: int, save: float
) -> None:
    plan = Plan(steps=400, minutes=None, reports=reports)
    made = run_of(tmp_path, clock, plan, since=clock.now, step=0.1, example=0.0, examples=8, save=save)
    saves: list[int] = []
    original = made.run.save

    def counted() -> None:
        saves.append(made.run.trainer.step_number)
        original()

    made.run.save = counted  # type: ignore[method-assign]
    made.run.train(lambda: False, lambda loss: None, lambda line: None)
    *during, last = saves
    assert during[0] == 400 // reports
    assert last == 400
    assert save * len(during) <= max(save, SAVED_ANYWAY, SAVES * made.run.training_seconds) + 1e-9
    if save * reports < SAVED_ANYWAY:
        assert len(during) == reports
    assert made.run.timing.saves == pytest.approx(save * len(during))


def test_a_run_that_goes_on_knows_what_its_checkpoints_have_taken() -> None:
    timing = Timing(saves=1.5, saved=3)
    assert not timing.may_save(training=30.0)
    assert timing.may_save(training=41.0)
    timing.has_saved(0.5)
    assert (timing.saves, timing.saved) == (2.0, 4)


def by_clock(run: Run, clock: Clock, *, step: float, example: float, save: float) -> Run:
    """The run with its own saves; these, reports and steps take so long by the clock."""
    saved, examples = run.save, run.task.examples_held_out

    def step_taken(batch: Any, *, lr: float) -> Any:
        clock.now += step
        run.trainer.step_number += 1
        return numpy.float32(2.0)

    def validated(most: int | None = None) -> dict[str, float]:
        clock.now += example * (examples if most is None else min(most, examples))
        return {"val_loss": 2.0}

    def save_taken() -> None:
        saved()
        clock.now += save

    run.trainer.step, run.validate, run.save = step_taken, validated, save_taken  # type: ignore[method-assign]
    return run


def minutes_run(folder: Path, clock: Clock, *, example: float = 0.001, save: float = 0.0) -> Run:
    """A minute of it: some 30 steps and 3 reports."""
    folder.mkdir(exist_ok=True)
    begun, plan = tiny.begin(folder, "run"), Plan(steps=None, minutes=1.0, reports=3)
    run = Run.begin(
        folder / "run", task=begun.task, settings=begun.settings, plan=plan, workers=Workers(1), since=clock.now
    )
    return by_clock(run, clock, step=2.0, example=example, save=save)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("afterwards", [0.0, 2.0, 1e9])
@pytest.mark.parametrize("example", [0.0, 0.001, 3.0])
def test_a_run_whose_time_is_over_is_over_for_who_opens_it_again(
    tmp_path: Path, clock: Clock, afterwards: float, example: float
) -> None:
    """Also where the command has kept time for what it does at the end, and where the evaluation there takes longer
    than the time that was left: what it takes is no longer that of the plan."""
    run = minutes_run(tmp_path, clock, example=example)
    run.budget.wanted_afterwards = afterwards
    run.train(lambda: False, lambda loss: None, lambda line: None)
    run.evaluate()
    again = Run.resume(tmp_path / "run", Workers)
    assert run.done
    assert again.done
    again.extend(steps=None, minutes=1.0)
    assert not again.done
    before = clock.now
    again = by_clock(again, clock, step=2.0, example=example, save=0.0)
    again.budget.wanted_afterwards = afterwards
    again.train(lambda: False, lambda loss: None, lambda line: None)
    assert clock.now - before == pytest.approx(MINUTE - min(afterwards, 3.0), abs=10)
    assert Run.resume(tmp_path / "run", Workers).done


@pytest.mark.parametrize("save", [0.0, 1.5, 90.0])
def test_a_stop_and_the_end_of_the_time_that_coincide_leave_what_the_run_says_of_itself(
    tmp_path: Path, clock: Clock, save: float
) -> None:
    """A save that takes until the time is over is not what the run has trained: it is done or not as it was saved."""
    for stop in range(26, 31):
        run = minutes_run(tmp_path / str(stop), clock, save=save)
        steps = iter(range(stop))
        run.train(partial(_is_over, steps), lambda loss: None, lambda line: None)
        assert run.done == Run.resume(tmp_path / str(stop) / "run", Workers).done


def _is_over(steps: Iterator[int]) -> bool:
    return next(steps, None) is None
