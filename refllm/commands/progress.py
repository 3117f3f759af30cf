"""What a training shows while it runs, and how it is stopped."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from refllm.backend import Array
from refllm.commands.streams import output_is_lost
from refllm.invocation import command, quoted
from refllm.reported import stored_summary
from refllm.run import Run
from refllm.workers import ENDING

MOMENT = 0.5  # seconds in which a second Ctrl-C is the first, sent again


class Display:
    """The progress bar on a terminal, and a line for every report wherever the output goes."""

    SHOWN_EVERY = 20  # steps; on a device the loss is read for the reports only, since reading waits for the queue

    def __init__(self, prepared: Run, reports: TextIO | None = None) -> None:
        from tqdm import tqdm

        self.prepared, self.reports = prepared, reports
        self.tokens = prepared.task.tokens_a_batch(prepared.settings.batch)
        plan = prepared.plan
        total = None if plan.steps is None else plan.after_steps + plan.steps
        self.bar = tqdm(
            total=total, initial=prepared.trainer.step_number, unit="step", dynamic_ncols=True, disable=None,
            smoothing=0.05,
        )  # fmt: skip

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def on_step(self, loss: Array) -> None:
        self.bar.update()
        prepared, step = self.prepared, self.prepared.trainer.step_number
        if self.bar.disable or step % self.SHOWN_EVERY or prepared.settings.device != "cpu":
            return
        left = ""
        if prepared.plan.minutes is not None:
            end = prepared.plan.after_seconds + 60 * prepared.plan.minutes
            left = f", {max(0.0, end - prepared.seconds):.0f} s left"
        rate = (self.bar.format_dict["rate"] or 0) * self.tokens
        self.bar.set_postfix_str(f"loss {float(loss):.3f}, {rate:,.0f} tokens/s{left}", refresh=False)

    def on_report(self, line: dict[str, Any]) -> None:
        self.bar.clear()
        print(
            f"step {line['step']:>6,}   loss {line['train_loss']:.3f}   {self.prepared.task.told(line)}   "
            f"{line['tokens_per_second']:>7,} tokens/s   {line['seconds']:>4.0f} s",
            file=self.reports,
            flush=True,
        )


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Ctrl-C, a polite kill, or the end of the terminal asks the loop to stop after the step in hand; a second Ctrl-C
    stops at once.

    `timeout` and schedulers send their signal twice, to the process and to its group: a second Ctrl-C within a moment
    is the first, and of the other signals one is enough. What is ignored (nohup) stays so.
    """
    caught: list[int] = []
    first = math.inf

    def ask(number: int, _: object) -> None:
        nonlocal first
        now = time.monotonic()
        first = min(first, now)
        caught.append(number)
        if number == signal.SIGINT and now - first > MOMENT:
            raise KeyboardInterrupt

    numbers = [n for n in ENDING if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def silent_divergence() -> Iterator[None]:
    """NumPy's warnings of a training that diverges are not shown: it is refused in words of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def carried_out(prepared: Run, *, go_on: str) -> bool:
    """Trains with the display until the plan is fulfilled; False, and how to `go_on`, if the user has stopped it."""
    with Display(prepared) as display, interrupts() as interrupted, silent_divergence():
        prepared.train(lambda: bool(interrupted) or output_is_lost(), display.on_step, display.on_report)
    if not prepared.done:
        print(
            f"Stopped at step {prepared.trainer.step_number:,} and saved. To go on:\n"
            f"  {go_on} --resume {quoted(prepared.directory)}",
            file=sys.stderr if output_is_lost() else None,
        )
    return prepared.done


def make_longer(prepared: Run, options: argparse.Namespace, since: float) -> None:
    """As --resume and the flags beside it say; without them the run goes on as it was planned. The minutes that are
    added count from `since`, when the command began."""
    if options.steps is not None or options.minutes is not None:
        prepared.extend(steps=options.steps, minutes=options.minutes)
        prepared.clock.count_from(since)


def complete(prepared: Run, *words: str) -> str:
    """That there is nothing left to do, and what one may."""
    prepared.keeper.mend(prepared, stored_summary(prepared.directory))
    longer = command(*words, "--resume", prepared.directory, "--minutes", "5")
    return (
        f"The run is complete at step {prepared.trainer.step_number:,}: there is nothing left to do. To train it "
        f"longer, by so many minutes or --steps:\n  {longer}"
    )
