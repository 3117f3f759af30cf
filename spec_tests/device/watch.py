"""What a training transfers from one step to the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any

import pytest

from refllm.run import Run
from refllm.train import Trainer
from spec_tests.strict_cupy import Counts, counting

Step = tuple[int, int, int]  # to the device, to the host, waited for the device


@contextmanager
def steps_watched() -> Iterator[list[Step]]:
    """Inside, what happens from the beginning of a step to the beginning of the next, or to a report, is written down:
    the step itself and everything that the loop, the display and the clock do around it."""
    steps: list[Step] = []
    began: list[tuple[int, ...]] = []
    step, read = Trainer.step, Run._read

    with counting() as counts, pytest.MonkeyPatch.context() as patch:

        def conclude() -> None:
            if began:
                steps.append(_difference(counts, began.pop()))

        def watched_step(self: Trainer, tokens: Any, *, lr: float) -> Any:
            conclude()
            began.append(astuple(counts))
            return step(self, tokens, lr=lr)

        def watched_reading(self: Run, losses: list[Any]) -> None:
            conclude()
            read(self, losses)

        patch.setattr(Trainer, "step", watched_step)
        patch.setattr(Run, "_read", watched_reading)
        yield steps
        conclude()


def _difference(now: Counts, before: tuple[int, ...]) -> Step:
    to_device, to_host, waits, *_ = (a - b for a, b in zip(astuple(now), before, strict=True))
    return to_device, to_host, waits


def assert_little_is_transferred(steps: list[Step], *, count: int, to_device: int) -> None:
    """`count` steps, in each of which the tokens (and the draws of dropout) go over and nothing comes back."""
    assert len(steps) == count, f"{len(steps)} steps were watched instead of {count}"
    for number, step in enumerate(steps, 1):
        expected = (to_device, 0, 0)
        assert step == expected, f"step {number}: {step} (to device, to host, waited for) instead of {expected}"
