"""Laws of the plan of a run."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.plan import Best, Plan
from spec_tests.tiny import settings

SETTINGS = settings(lr=0.5, warmup=0.25, floor=0.1)


@given(steps=st.integers(1, 500), reports=st.integers(1, 600))
def test_a_run_by_steps_reports_evenly_and_at_its_end(steps: int, reports: int) -> None:
    plan = Plan(steps=steps, minutes=None, reports=reports)
    due = [plan.reports_due(step, seconds=0) for step in range(steps + 1)]
    assert due[0] == 0
    assert due[-1] == reports
    assert due == sorted(due)
    gaps = [b - a for a, b in itertools.pairwise(due)]
    assert max(gaps) - min(gaps) <= 1


@given(step=st.integers(0, 100), seconds=st.floats(0, 1e6))
def test_a_run_by_steps_knows_no_clock_and_one_by_minutes_no_steps(step: int, seconds: float) -> None:
    by_steps, by_minutes = Plan(steps=100, minutes=None, reports=1), Plan(steps=None, minutes=2.0, reports=1)
    assert by_steps.progress(step, seconds) == step / 100
    assert by_minutes.progress(step, seconds) == seconds / 120
    assert by_steps.learning_rate(step + 1, seconds, SETTINGS) == by_steps.learning_rate(step + 1, 0, SETTINGS)
    assert by_minutes.learning_rate(step, seconds, SETTINGS) == by_minutes.learning_rate(0, seconds, SETTINGS)


def test_the_learning_rate_warms_up_peaks_and_ends_at_the_floor() -> None:
    plan = Plan(steps=100, minutes=None, reports=1)
    rates = {step: plan.learning_rate(step, 0, SETTINGS) for step in (1, 25, 100)}
    assert rates == pytest.approx({1: 0.5 / 25, 25: 0.5, 100: 0.05})
    clock = Plan(steps=None, minutes=1.0, reports=1)
    assert clock.learning_rate(7, 0, SETTINGS) > 0
    assert clock.learning_rate(7, 15, SETTINGS) == pytest.approx(0.5, rel=1e-4)
    assert clock.learning_rate(7, 60, SETTINGS) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": None, "minutes": None}, "either --steps or --minutes"),
        ({"steps": 5, "minutes": 5.0}, "either --steps or --minutes"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": None, "minutes": 0.0}, "minutes must be a finite number above 0"),
        ({"steps": None, "minutes": math.nan}, "minutes must be a finite number above 0"),
        ({"steps": None, "minutes": math.inf}, "minutes must be a finite number above 0"),
        ({"reports": 0}, "reports must be at least 1"),
    ],
)
def test_an_impossible_plan_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Plan(**{"steps": 5, "minutes": None, "reports": 1, **wrong})


def test_patience_is_at_least_one_report() -> None:
    with pytest.raises(UserError, match="patience must be at least 1, got 0"):
        Plan(steps=5, minutes=None, reports=1, patience=0)


@given(st.lists(st.integers(0, 5), min_size=1))
def test_the_best_is_the_first_of_the_lowest_losses_and_waits_since_then(losses: list[int]) -> None:
    best = Best()
    beaten = [best.is_beaten(float(loss), step) for step, loss in enumerate(losses)]
    first = losses.index(min(losses))
    assert (best.loss, best.step, best.waited) == (min(losses), first, len(losses) - 1 - first)
    assert beaten == [loss < min(losses[:i], default=math.inf) for i, loss in enumerate(losses)]
