"""Words that several commands use for what they say."""

from __future__ import annotations

from refllm.plan import Plan


def counted(number: float, noun: str) -> str:
    """A number and its noun, whose plural ends in s: "1 worker", "2,000 steps", "0.5 minutes"."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun}{'' if number == 1 else 's'}"


def length_of(plan: Plan) -> str:
    """How long a training takes, or how much longer."""
    length = counted(plan.steps, "step") if plan.steps is not None else counted(float(plan.minutes or 0), "minute")
    return f"{length} more after {counted(plan.after_steps, 'step')}" if plan.after_steps else length
