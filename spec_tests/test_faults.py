"""Laws of stopping at any moment: a run is lost at none, and what is gone on with is what would have been.

Each test makes a tiny run once to count its events (spec_tests/faults.py), and then again with a fault at each of them.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refllm import checkpoint, timing
from refllm.directory import is_left
from refllm.errors import UserError
from refllm.run import Run
from refllm.tasks.start import begun_from
from refllm.trained import load_model
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.faults import Dead, Fault, events, failing_once, full, interrupted, killed
from spec_tests.tasks import test_classify as classify

Begin = Callable[[Path], Run]
FAULTS = {"killed": killed, "full disk": full, "a disk that fails once": failing_once, "Ctrl-C": interrupted}


def language(folder: Path, patience: int | None) -> Begin:
    """Three steps with a report each; with patience the first report is the best, and its weights are put back."""

    def begin(directory: Path) -> Run:
        run = tiny.begin(folder, directory.name, steps=3, reports=3)
        if patience is None:
            return run
        plan = dataclasses.replace(run.plan, patience=patience)
        return measured(
            Run.begin(directory, task=run.task, settings=run.settings, plan=plan, workers=Workers(run.settings.shards))
        )

    return begin


def measured(run: Run) -> Run:
    """Every report is worse than the one before."""
    if run.plan.patience is not None:
        run.validate = lambda *_: {"val_loss": float(run.trainer.step_number), "val_bpc": 1.0}  # type: ignore[method-assign]
    return run


def low_rank(folder: Path) -> Begin:
    """A part is trained: beside its weights those of the whole model are saved."""
    tiny.train(classify.begin(folder / "first", classify.task(folder), steps=4, seed=7))
    start = begun_from(folder / "first", model="bert", device="cpu")

    def begin(directory: Path) -> Run:
        made = classify.task(folder, start=start, tune="low-rank", rank=1)
        return measured(classify.begin(directory, made, steps=4, patience=2))

    return begin


KINDS: dict[str, Callable[[Path], Begin]] = {
    "by steps": lambda folder: language(folder, None),
    "with patience": lambda folder: language(folder, 1),
    "low-rank": low_rank,
}


def concluded(run: Run) -> Run:
    with run.held():
        tiny.train(run)
        run.summarise({})
    return run


@pytest.fixture(autouse=True)
def _every_report_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the copies take that a test makes at each event: a run has the same events each time."""
    monkeypatch.setattr(timing, "SAVED_ANYWAY", math.inf)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Begin, list[str], Any]:
    """How such a run begins, the events of one that nothing disturbs, and what it leaves."""
    begin = KINDS[request.param](tmp_path)
    with events() as seen:
        concluded(begin(tmp_path / "whole"))
    return begin, list(seen), left(tmp_path / "whole")


def left(directory: Path) -> Any:
    """Weights, moments and metrics of a run that has ended; it holds nothing else."""
    state, read = checkpoint.load(directory / "checkpoint")
    names = {entry["file"] for entry in state["files"].values()} | {"state.json"}
    assert {path.name for path in (directory / "checkpoint").iterdir()} == names
    assert {path.name for path in directory.iterdir()} == {"checkpoint", "metrics.jsonl", "report.html", "summary.json"}
    arrays = {group: {path: x.tobytes() for path, x in read(group).items()} for group in state["files"]}
    return arrays, state["step"], state["order"], tiny.metrics(directory)


def disturbed(begin: Begin, directory: Path, fault: Fault) -> BaseException | None:
    with events(fault):
        try:
            concluded(begin(directory))
        except (Dead, UserError, OSError, KeyboardInterrupt) as error:
            return error
    return None


@pytest.mark.one_in(4)
def test_a_kill_at_every_event_loses_nothing(kind: tuple[Begin, list[str], Any], tmp_path: Path) -> None:
    """What is on the disk before an event is what a process leaves that is killed there."""
    begin, seen, whole = kind
    places: dict[Any, tuple[Path, str]] = {}

    def taken(number: int) -> None:
        copy = tmp_path / f"at {number}"
        if (tmp_path / "run").exists():
            shutil.copytree(tmp_path / "run", copy)
            where = f"killed at event {number}, {seen[number - 1]}"
            if checkpoint.is_there(copy / "checkpoint"):
                places.setdefault(is_whole(copy), (copy, where))
            else:
                assert is_left(copy) or not any(copy.iterdir()), where
                places.setdefault(tuple(sorted(path.name for path in copy.rglob("*"))), (copy, where))

    with events(taken) as again:
        concluded(begin(tmp_path / "run"))
    assert len(again) == len(seen) > 60
    assert len(places) > 8
    for copy, where in places.values():
        with events():
            gone_on_with(begin, copy)
        assert left(copy) == whole, where


def is_whole(directory: Path) -> Any:
    """Reads every array of a checkpoint; which it is, and what the metrics say beside it."""
    state, read = checkpoint.load(directory / "checkpoint")
    for group in state["files"]:
        read(group)
    metrics = directory / "metrics.jsonl"
    return checkpoint.stamp(directory / "checkpoint"), metrics.read_bytes(), (directory / "summary.json").exists()


def gone_on_with(begin: Begin, directory: Path) -> None:
    """To the end, or begun again where nothing had been saved."""
    if checkpoint.is_there(directory / "checkpoint"):
        load_model(directory, "cpu")
        concluded(measured(Run.resume(directory, Workers)))
    else:
        concluded(begin(directory))


@pytest.mark.one_in(24)
@pytest.mark.parametrize("how", FAULTS)
@pytest.mark.parametrize(
    "every", [pytest.param(1, marks=pytest.mark.slow, id="every event"), pytest.param(15, id="every fifteenth event")]
)
def test_an_error_at_an_event_loses_nothing(
    kind: tuple[Begin, list[str], Any], tmp_path: Path, how: str, every: int
) -> None:
    begin, seen, whole = kind
    for at in range(1 + list(FAULTS).index(how) % every, len(seen) + 1, every):
        directory = tmp_path / "run"
        error = disturbed(begin, directory, FAULTS[how](at))
        where = f"{how} at event {at}, {seen[at - 1]}"
        assert error is not None or how == "a disk that fails once" or harmless(seen[at - 1]), where
        if not checkpoint.is_there(directory / "checkpoint"):
            assert how == "killed" or not directory.exists(), where
            assert not directory.exists() or is_left(directory) or not any(directory.iterdir()), where
        with events():
            gone_on_with(begin, directory)
        assert left(directory) == whole, where
        shutil.rmtree(directory)


def harmless(event: str) -> bool:
    """What may fail without a word: it is made good later, or says only whose the lock is."""
    return event.startswith(("unlink", "ftruncate")) or "report.html" in event
