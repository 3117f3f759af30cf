"""Keeps report.html of a run up to date while it trains, in what little time there is for it.

The page and the texts that the model writes for it take less than a hundredth of the training, and nothing of it can
fail a run: where the disk is full, or the memory, there is no page.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from refllm.backend import is_out_of_memory
from refllm.errors import UserError
from refllm.training_page import REPORT, read_lines, write_report

SAMPLES, PAGES = 0.007, 0.002  # shares of the training that they may take
PAGE = 0.02  # seconds that the first page is thought to take
_SAMPLES = 12  # that are kept: of more, every second one goes
_LETTERS = 2000  # of a sample

Sampler: TypeAlias = Callable[[], Iterable[str]]


class ReportKeeper:
    """The page of one run. Its samples stand in the description of the run, which goes into the checkpoint."""

    def __init__(self, directory: Path, description: dict[str, Any], *, metrics: str) -> None:
        self.directory, self.description, self.metrics = directory, description, metrics
        self.sampler: Sampler | None = None  # writes a text with the weights of the moment, piece by piece
        self.before = float(description["training_seconds"])  # by processes before this one
        self.sampling = self.writing = 0.0  # seconds that samples and pages have taken
        self.pages = 0
        saved = description.get("samples")
        self.samples: list[dict[str, Any]] = (
            [one for one in saved if _is_sample(one)] if isinstance(saved, list) else []
        )

    def sample(self, run: Any) -> None:
        """Lets the model of a Run write, if a step's time is left of what samples may take, and no longer than that."""
        step, training = run.trainer.step_number, run.training_seconds
        left = SAMPLES * (training - self.before) - self.sampling
        if self.sampler is None or step == 0 or left < training / step:
            return
        start, text = time.perf_counter(), ""
        try:
            for piece in self.sampler():
                text += piece
                if time.perf_counter() - start > left:
                    break
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.sampler = None
        self.sampling += time.perf_counter() - start
        self.keep(step, text)

    def keep(self, step: int, text: str) -> None:
        """A text of that step, in place of another one of it."""
        if not text.strip():
            return
        text = text[:_LETTERS].encode("utf-8", "replace").decode("utf-8")
        self.samples = [*(one for one in self.samples if one["step"] != step), {"step": step, "text": text}]
        if len(self.samples) > _SAMPLES:
            self.samples = [*self.samples[:-1:2], self.samples[-1]]
        self.description["samples"] = self.samples

    def write_in_time(self, run: Any) -> None:
        """The page while the training goes on, if there is time for it."""
        expected = self.writing / self.pages if self.pages else PAGE
        if self.writing + expected <= PAGES * (run.training_seconds - self.before):
            self.write(run)

    def write(self, run: Any, summary: dict[str, Any] | None = None) -> None:
        """The page as of now. Where it cannot be written there is none, or the one before."""
        state = f"{'Complete' if run.done else 'So far'}: {run.trainer.step_number:,} steps in {run.seconds:,.0f} s."
        start = time.perf_counter()
        with suppress(OSError, UserError):
            lines = read_lines(self.directory / self.metrics)
            write_report(self.directory, self.description, lines, state=state, samples=self.samples, summary=summary)
        self.writing, self.pages = self.writing + time.perf_counter() - start, self.pages + 1

    def mend(self, run: Any, summary: dict[str, Any] | None) -> None:
        """The page of a complete run, where a stop has left half of it."""
        if (self.directory / f"{REPORT}.partial").exists():
            self.write(run, summary)


def _is_sample(saved: Any) -> bool:
    return isinstance(saved, dict) and type(saved.get("step")) is int and isinstance(saved.get("text"), str)
