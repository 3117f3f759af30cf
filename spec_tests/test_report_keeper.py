"""Laws of the time that report.html may take: a share of the training, samples and pages alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refllm import report_keeper
from refllm.commands.progress import complete
from refllm.report_keeper import PAGES, SAMPLES, ReportKeeper
from refllm.run import Run
from refllm.workers import Workers
from spec_tests import tiny


def a_run(step: int, training: float) -> Any:
    trainer = SimpleNamespace(step_number=step)
    return SimpleNamespace(trainer=trainer, training_seconds=training, seconds=training, done=False)


def keeper(folder: Path, **description: Any) -> ReportKeeper:
    return ReportKeeper(folder, {"training_seconds": 0.0, **description}, metrics="metrics.jsonl")


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("refllm.report_keeper.time.perf_counter", lambda: self.now)

    def takes(self, seconds: float, piece: str) -> str:
        self.now += seconds
        return piece


@pytest.mark.parametrize("a_piece", [0.0003, 0.01, 0.3])
def test_samples_and_pages_take_less_than_a_hundredth_of_the_training(
    a_piece: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(report_keeper, "write_report", lambda *_, **__: clock.takes(0.05, ""))
    mine = keeper(tmp_path)
    mine.sampler = lambda: (clock.takes(a_piece, "x") for _ in itertools.count())
    for report in range(1, 101):
        run = a_run(step=100 * report, training=40.0 * report)  # a step takes 0.4 s, more than a piece
        mine.sample(run)
        mine.write_in_time(run)
        assert mine.sampling <= SAMPLES * run.training_seconds + a_piece
        assert mine.writing <= PAGES * run.training_seconds
    assert mine.sampling + mine.writing <= 0.01 * 4000
    assert mine.samples
    assert mine.pages > 50


def test_nothing_is_written_where_there_is_no_time(tmp_path: Path) -> None:
    mine = keeper(tmp_path)

    def writing() -> Iterator[str]:
        raise AssertionError

    mine.sampler = writing
    mine.sample(a_run(step=10, training=1.0))
    mine.write_in_time(a_run(step=10, training=1.0))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_goes_on_has_no_time_from_those_before_it(tmp_path: Path) -> None:
    mine = keeper(tmp_path, training_seconds=1e6)
    mine.sampler = lambda: iter(["text"])
    mine.sample(a_run(step=1_000_000, training=1e6 + 1))
    assert mine.samples == []


def test_a_memory_that_is_full_ends_the_samples_and_not_the_run(tmp_path: Path) -> None:
    mine = keeper(tmp_path)

    def writing() -> Iterator[str]:
        yield "a"
        raise MemoryError

    mine.sampler = writing
    mine.sample(a_run(step=1000, training=1000.0))
    assert mine.sampler is None


def test_samples_stay_few_and_the_first_and_the_last_are_among_them(tmp_path: Path) -> None:
    mine = keeper(tmp_path)
    for step in range(1, 200):
        mine.keep(step, f"text {step}" + "x" * 5000)
        assert len(mine.samples) <= 12
        assert len(mine.samples[-1]["text"]) <= 2000
    steps = [sample["step"] for sample in mine.samples]
    assert steps[0] == 1
    assert steps[-1] == 199
    assert steps == sorted(steps)
    mine.keep(199, "another")
    assert [sample["text"] for sample in mine.samples if sample["step"] == 199] == ["another"]


@pytest.mark.parametrize("saved", [None, 3, ["x"], [{"step": "1", "text": "x"}], [{"step": 1, "text": None}]])
def test_samples_that_are_none_are_left_out(saved: Any, tmp_path: Path) -> None:
    assert keeper(tmp_path, samples=saved).samples == []


def test_writing_samples_does_not_change_what_is_learnt(tmp_path: Path) -> None:
    """Not a bit, with weights that the sampler reads between the steps."""
    without = tiny.bits(tiny.train(tiny.begin(tmp_path, "without")))
    run = tiny.begin(tmp_path, "with")
    run.keeper.sample = lambda _: run.keeper.keep(  # type: ignore[method-assign, assignment]
        run.trainer.step_number, str(run.validate(1))
    )
    assert tiny.bits(tiny.train(run)) == without
    assert run.keeper.samples


@pytest.mark.parametrize("left", [False, True])
def test_half_a_page_that_a_stop_has_left_is_made_whole_when_the_run_is_opened_again(
    tmp_path: Path, left: bool
) -> None:
    run = tiny.train(tiny.begin(tmp_path, "run"))
    run.summarise({})
    folder = tmp_path / "run"
    page = (folder / "report.html").read_bytes()
    before = page.replace(b"Complete", b"So far")
    (folder / "report.html").write_bytes(before)
    if left:
        (folder / "report.html.partial").write_bytes(page[:100])
    again = Run.resume(folder, Workers)
    assert "there is nothing left to do" in complete(again, "train")
    assert not (folder / "report.html.partial").exists()
    assert (b"Complete" in (folder / "report.html").read_bytes()) is left
