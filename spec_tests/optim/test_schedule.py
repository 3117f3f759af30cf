"""Laws of the linear warm-up with a cosine after it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.optim.schedule import warmup_cosine

PEAK, FLOOR = 0.5, 0.05


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, float]:
    total = draw(st.integers(2, 1000))
    return {"max_lr": PEAK, "min_lr": FLOOR, "total": total, "warmup": draw(st.integers(0, total - 1))}


@given(s=schedules())
def test_it_begins_at_a_step_of_the_warm_up_peaks_at_its_end_and_ends_at_the_floor(s: dict[str, float]) -> None:
    assert warmup_cosine(s["warmup"], **s) == pytest.approx(PEAK, rel=1e-14)
    assert warmup_cosine(s["total"], **s) == warmup_cosine(s["total"] + 1, **s) == FLOOR
    assert warmup_cosine((s["warmup"] + s["total"]) / 2, **s) == pytest.approx((PEAK + FLOOR) / 2, rel=1e-12)
    if s["warmup"] > 1:
        assert warmup_cosine(1, **s) == pytest.approx(PEAK / s["warmup"], rel=1e-14)


@given(s=schedules(), at=st.floats(0, 1))
def test_it_has_no_jump(s: dict[str, float], at: float) -> None:
    step = at * s["total"]
    steepest = PEAK / max(1e-9, s["warmup"]) + 3.15 / 2 * (PEAK - FLOOR) / (s["total"] - s["warmup"])
    if s["warmup"] == 0:
        steepest = 3.15 / 2 * (PEAK - FLOOR) / s["total"]
    rise = warmup_cosine(step + 1e-6, **s) - warmup_cosine(step, **s)
    assert abs(rise) <= 1e-6 * steepest + 1e-14


@given(s=schedules())
def test_it_rises_to_the_peak_and_never_after(s: dict[str, float]) -> None:
    rates = [warmup_cosine(step, **s) for step in range(1, int(s["total"]) + 1)]
    top = max(0, int(s["warmup"]) - 1)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert FLOOR <= min(rates[top:])
    assert max(rates) <= PEAK


@pytest.mark.parametrize("step", [-1, -1e-9, math.nan])
def test_a_step_that_cannot_be_is_refused(step: float) -> None:
    with pytest.raises(ValueError, match="warmup_cosine: steps count from 1"):
        warmup_cosine(step, max_lr=1.0, warmup=3, total=9, min_lr=0.0)
