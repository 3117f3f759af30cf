"""Laws of a run: it goes on bit for bit, and it never overwrites or loses what is there."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.data.corpus import read_text, split
from refllm.errors import UserError
from refllm.models import gpt
from refllm.objectives.causal import causal_loss
from refllm.parameters import named_leaves
from refllm.run import Run
from refllm.trained import load_model
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.faults import events, full
from spec_tests.tiny import begin, bits, contents, metrics, train

STEPS = 12


def resume(directory: Path) -> Run:
    return Run.resume(directory, Workers)


@pytest.mark.one_in(24)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("stops", [[1], [4], [7], [11], [2, 3, 9]], ids=str)
def test_a_run_that_is_stopped_and_resumed_is_the_run_that_was_not(
    tmp_path: Path, stops: list[int], shards: int, dropout: float
) -> None:
    whole = train(begin(tmp_path, "whole", steps=STEPS, shards=shards, dropout=dropout))
    run = train(begin(tmp_path, "parts", steps=STEPS, shards=shards, dropout=dropout), stop_after=stops[0])
    for stop in [*stops[1:], None]:
        assert not run.done
        run = train(resume(tmp_path / "parts"), stop_after=stop)
    assert run.done
    assert bits(run) == bits(whole)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert run.batches.state() == whole.batches.state()


def test_what_was_reported_after_the_checkpoint_is_dropped_and_made_again(tmp_path: Path) -> None:
    """The process died after the line of step 8 and before its checkpoint; half of a further line is there too."""
    whole = train(begin(tmp_path, "whole", steps=STEPS))
    train(begin(tmp_path, "died", steps=STEPS), stop_after=7)
    path = tmp_path / "died" / "metrics.jsonl"
    kept = path.read_text()
    path.write_bytes(kept.encode() + b'{"step": 8, "train_loss": 99.0}\n{"step": 1\xff')
    run = resume(tmp_path / "died")
    assert path.read_text() == kept
    assert bits(train(run)) == bits(whole)
    assert metrics(tmp_path / "died") == metrics(tmp_path / "whole")


def test_the_end_of_the_files_survives_a_kill_between_any_two_steps(tmp_path: Path) -> None:
    """The checkpoint of the last report is what a killed run goes on from."""

    class Killed(BaseException):
        pass

    whole = train(begin(tmp_path, "whole", steps=STEPS))
    run = begin(tmp_path, "killed", steps=STEPS)
    seen: list[Any] = []

    def kill(loss: Any) -> None:
        seen.append(loss)
        if len(seen) == 7:
            raise Killed

    with pytest.raises(Killed), run.trainer.workers:
        run.train(lambda: False, kill, lambda line: None)
    again = resume(tmp_path / "killed")
    assert again.trainer.step_number == 4
    assert bits(train(again)) == bits(whole)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_gives_the_same_run(tmp_path: Path, seed: int) -> None:
    one, again = (train(begin(tmp_path, name, seed=seed, dropout=0.2)) for name in ("one", "again"))
    other = train(begin(tmp_path, "other", seed=seed + 1, dropout=0.2))
    assert bits(one) == bits(again) != bits(other)
    assert metrics(tmp_path / "one") == metrics(tmp_path / "again") != metrics(tmp_path / "other")


def test_every_report_is_a_line_and_the_last_one_is_at_the_end(tmp_path: Path) -> None:
    lines: list[Any] = []
    train(begin(tmp_path, "run", steps=STEPS, reports=3), on_report=lines.append)
    assert [line["step"] for line in lines] == [4, 8, 12]
    assert [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()] == lines
    assert set(lines[0]) >= {"step", "train_loss", "val_loss", "val_bpc", "tokens_per_second", "seconds"}
    assert all(math.isfinite(value) for line in lines for value in line.values())


def test_a_reports_training_loss_is_the_mean_of_the_steps_since_the_one_before(tmp_path: Path) -> None:
    losses: list[float] = []
    lines: list[Any] = []
    run = begin(tmp_path, "run", steps=STEPS, reports=3)
    with run.trainer.workers:
        run.train(lambda: False, lambda loss: losses.append(float(loss)), lines.append)
    for line, start in zip(lines, (0, 4, 8), strict=True):
        assert line["train_loss"] == pytest.approx(sum(losses[start : start + 4]) / 4, rel=1e-12)


def test_the_validation_scores_every_character_of_the_held_out_text_once(tmp_path: Path) -> None:
    """Against one window at a time, by the objective: bits per character count all characters of the part."""
    run = begin(tmp_path, "run", dtype="float64")
    with run.trainer.workers:
        measured = run.validate()
    task: Any = run.task
    parts = split(read_text(task.data))
    ids = task.tokenizer.encode(parts.train[-1:] + parts.validation)
    windows = task.windows.pieces(None)
    seen = [int((targets >= 0).sum()) for _, targets in windows]
    assert sum(seen) == len(parts.validation) == task.validation_tokens
    p = run.trainer.parameters.tree
    nll = sum(
        causal_loss(p, model=gpt, ids=i[None], targets=t[None], ignore=-1, config=task.config, dropout_mask=None)[0]
        for piece in windows
        for i, t in zip(*piece, strict=True)
    )
    assert measured["val_loss"] == pytest.approx(nll / (len(ids) - 1), rel=1e-12)
    assert measured["val_bpc"] == pytest.approx(nll / math.log(2) / len(parts.validation), rel=1e-12)


def test_the_summary_tells_the_run(tmp_path: Path) -> None:
    run = train(begin(tmp_path, "run", steps=STEPS, shards=2))
    with run.trainer.workers:
        returned = run.summarise({"uniform": 4.0})
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary == returned
    keys = {"steps", "seconds", "parameters", "val_bpc", "baselines", "tokens_per_second", "threads", "seed", "version"}
    assert set(summary) >= keys
    assert (summary["steps"], summary["threads"], summary["seed"]) == (STEPS, 2, 1)
    assert summary["val_bpc"] == metrics(tmp_path / "run")[-1]["val_bpc"]
    assert summary["parameters"] == sum(x.size for x in run.trainer.groups()["weights"].values())


def test_data_whose_path_is_not_utf_8_is_learnt_from_and_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"d\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has UTF-8 names alone")
    whole = train(begin(folder, "whole"))
    train(begin(folder, "parts"), stop_after=4)
    assert bits(train(resume(folder / "parts"))) == bits(whole)
    whole.summarise({})
    assert json.loads((folder / "whole" / "summary.json").read_bytes())["data"] == str(folder / "text.txt")


def test_a_saved_model_is_the_trained_one(tmp_path: Path) -> None:
    run = train(begin(tmp_path, "run"))
    found = load_model(tmp_path / "run", "cpu")
    assert (found.model, found.config, found.tokenizer) == (run.task.model, run.task.config, run.task.tokenizer)
    assert tiny.largest_difference(found.parameters, run.trainer.parameters.tree) == 0


@pytest.mark.parametrize("there", ["file in it", "a run", "a file"])
def test_a_directory_that_holds_anything_is_refused_and_left_alone(tmp_path: Path, there: str) -> None:
    out = tmp_path / "out"
    if there == "a run":
        train(begin(tmp_path, "out"))
    elif there == "a file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="will not be overwritten; choose another --out") as refusal:
        begin(tmp_path, "out")
    assert ("--resume" in str(refusal.value)) == (there == "a run")
    assert ("is a file and" in str(refusal.value)) == (there == "a file")
    assert contents(tmp_path) == before | {"text.txt": tiny.TEXT.encode()}


def test_a_place_where_no_directory_can_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file/x/y cannot be written: .*/file is not a folder; make it one or"):
        begin(tmp_path, "file/x/y")
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # who runs the tests may be permitted all
    with pytest.raises(UserError, match=r"x/y cannot be written: .* does not permit it; change that or choose"):
        begin(tmp_path, "x/y")
    assert sorted(contents(tmp_path)) == ["file", "text.txt"]


def test_an_empty_directory_is_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert train(begin(tmp_path, "out")).done


def test_nothing_is_written_before_the_training_begins(tmp_path: Path) -> None:
    begin(tmp_path, "run")
    assert list(contents(tmp_path)) == ["text.txt"]


def edit_state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def write(directory: Path) -> None:
        path = directory / "run" / "checkpoint" / "state.json"
        state = json.loads(path.read_bytes())
        change(state)
        path.write_bytes(tiny.resealed(state))

    return write


def edit_text(change: Callable[[str], str]) -> Callable[[Path], Any]:
    return lambda directory: (directory / "text.txt").write_text(change(tiny.TEXT))


UNFIT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "the training text has changed": (
        edit_text(lambda text: text.replace("2", "3", 1)),
        "not the text that the run began",
    ),
    "the held-out text has changed": (edit_text(lambda text: text[:-4] + "5.\n"), "not the text that the run began"),
    "a character was added": (edit_text(lambda text: "é" + text), "not the text that the run began"),
    "the text is shorter": (edit_text(lambda text: text[: len(text) // 2]), "not the text that the run began"),
    "the text is gone": (lambda directory: (directory / "text.txt").unlink(), "does not exist"),
    "the tokenizer is another": (
        edit_state(lambda s: s.update(tokenizer={"kind": "character", "vocabulary": "ab"})),
        "vocabulary of 18, its tokenizer one of 2",
    ),
    "the model is wider": (edit_state(lambda s: s["config"].update(width=10)), "should be"),
    "the model is deeper": (edit_state(lambda s: s["config"].update(layers=3)), "only the model has layers.2"),
    "a field of the model is missing": (edit_state(lambda s: s["config"].pop("width")), "state.json is damaged"),
    "a field of the model is unknown": (edit_state(lambda s: s["config"].update(rope=1)), "state.json is damaged"),
    "a field of the run is missing": (edit_state(lambda s: s.pop("seconds")), "state.json is damaged"),
    "the order is missing": (edit_state(lambda s: s.pop("order")), "state.json is damaged"),
    "the order is damaged": (edit_state(lambda s: s["order"].update(next=-1)), "data order is damaged"),
    "the step is missing": (edit_state(lambda s: s.pop("step")), "state.json is damaged"),
    "the plan is a list": (edit_state(lambda s: s.update(plan=[])), "state.json is damaged"),
    "the dtype is unknown": (edit_state(lambda s: s["settings"].update(dtype="float5")), "state.json is damaged"),
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("damage", "says"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_is_refused_in_one_line_and_nothing_changes(
    tmp_path: Path, damage: Callable[[Path], Any], says: str
) -> None:
    train(begin(tmp_path, "run"), stop_after=5)
    damage(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=says) as refused:
        resume(tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert contents(tmp_path) == before


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(begin(tmp_path, "whole", steps=STEPS))
    run = begin(tmp_path, "run", steps=STEPS)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left on device; the one before"):
        train(run, on_report=lambda line: patch.setattr("os.fsync", full) if line["step"] == 8 else None)
    again = resume(tmp_path / "run")
    assert again.trainer.step_number == 4
    assert bits(train(again)) == bits(whole)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize(("at", "spoiled"), [(6, "weights"), (8, "weights"), (8, "norm of the gradient")])
def test_a_training_that_diverges_says_so_and_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, spoiled: str
) -> None:
    """Weights that are no numbers show in the validation or the next loss, a gradient that is none in its norm."""
    run = begin(tmp_path, "run", steps=STEPS)
    spoil(run, monkeypatch, at=at, spoiled=spoiled)
    with pytest.raises(UserError, match=r"diverged; begin again with a lower --lr \(what was saved before is intact"):
        train(run)
    again = resume(tmp_path / "run")
    assert again.trainer.step_number == 4
    assert numpy.isfinite(again.trainer.parameters.vector).all()


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("there", [None, "runs", "runs/run"])
def test_a_training_that_fails_before_anything_is_saved_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str | None
) -> None:
    """The directories that it made go, those of others stay, and nothing is said to be intact."""
    if there is not None:
        (tmp_path / there).mkdir(parents=True)
    run = begin(tmp_path, "runs/run", steps=STEPS)
    before = sorted(tmp_path.rglob("*"))
    spoil(run, monkeypatch, at=2, spoiled="weights")
    with pytest.raises(UserError, match=r"diverged; begin again with a lower --lr$"):
        train(run)
    assert sorted(tmp_path.rglob("*")) == before


def spoil(run: Run, monkeypatch: pytest.MonkeyPatch, *, at: int, spoiled: str) -> None:
    """Makes a weight, or the norm of the gradient, no number after that step."""
    step = run.trainer.step

    def spoilt(tokens: Any, *, lr: float) -> Any:
        loss = step(tokens, lr=lr)
        if run.trainer.step_number == at:
            if spoiled == "weights":
                run.trainer.parameters.vector[0] = numpy.nan
            else:
                run.trainer.norm = numpy.array(numpy.nan)
        return loss

    monkeypatch.setattr(run.trainer, "step", spoilt)


LOSSES = {2: 3.0, 4: 2.0, 6: 2.5, 8: 2.0, 10: 1.0, 12: 4.0}  # by step; with a patience of 2 the run ends at step 8


def with_patience(folder: Path, name: str, patience: int | None) -> Run:
    run = begin(folder, name, steps=STEPS, reports=6, shards=2, dropout=0.2)
    plan = dataclasses.replace(run.plan, patience=patience)
    run = Run.begin(folder / name, task=run.task, settings=run.settings, plan=plan, workers=Workers(2))
    return measured_by_table(run)


def measured_by_table(run: Run) -> Run:
    """Validations that go as LOSSES say."""

    def measured(most: int | None = None) -> dict[str, float]:
        return {"val_loss": LOSSES[run.trainer.step_number], "val_bpc": 1.0}

    run.validate = measured  # type: ignore[method-assign]
    return run


def weights(run: Run) -> dict[str, bytes]:
    return {name: x.tobytes() for name, x in run.trainer.groups()["weights"].items()}


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("patience", "ends", "best"), [(1, 6, 4), (2, 8, 4), (3, 12, 10), (9, 12, 10)])
def test_a_run_with_patience_ends_when_it_is_over_and_leaves_the_best_reports_weights(
    tmp_path: Path, patience: int, ends: int, best: int
) -> None:
    """Equal to the best is no better. Without patience the same run goes on, and leaves its last weights."""
    seen: dict[int, Any] = {}
    whole = with_patience(tmp_path, "whole", None)
    train(whole, on_report=lambda line: seen.update({line["step"]: weights(whole)}))
    assert weights(whole) == seen[STEPS]
    run = train(with_patience(tmp_path, "run", patience))
    assert run.done
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(2, ends + 1, 2))
    assert weights(run) == seen[best]
    loaded = load_model(tmp_path / "run", "cpu").parameters
    assert {name: x.tobytes() for name, x in named_leaves(loaded)} == seen[best]
    with run.trainer.workers:
        assert run.summarise({})["best_step"] == best
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / "run" / "checkpoint").glob("*.safetensors")) == [
        "moment1", "moment2", "weights",
    ]  # fmt: skip


@pytest.mark.one_in(4)
@pytest.mark.parametrize("stops", [[3], [5], [7], [3, 5, 6]], ids=str)
def test_a_run_with_patience_is_resumed_bit_for_bit(tmp_path: Path, stops: list[int]) -> None:
    whole = train(with_patience(tmp_path, "whole", 2))
    run = train(with_patience(tmp_path, "parts", 2), stop_after=stops[0])
    for stop in [*stops[1:], None]:
        assert not run.done
        run = train(measured_by_table(resume(tmp_path / "parts")), stop_after=stop)
    assert bits(run) == bits(whole)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert run.best == whole.best
    again = train(resume(tmp_path / "parts"))
    assert again.done
    assert bits(again) == bits(whole)


def test_a_kill_before_the_best_weights_are_put_back_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    whole = train(with_patience(tmp_path, "whole", 2))
    run = with_patience(tmp_path, "killed", 2)
    monkeypatch.setattr(run.trainer, "load", kill)
    with pytest.raises(Killed):
        train(run)
    again = resume(tmp_path / "killed")
    assert again.done
    assert weights(again) != weights(whole)
    assert weights(train(again)) == weights(whole)


def extended(run: Run, steps: int) -> Run:
    run.extend(steps=steps, minutes=None)
    return run


def test_a_run_that_is_made_longer_is_one_run_whenever_it_is_stopped(tmp_path: Path) -> None:
    """The steps are counted on, and the rate of what is added is that of a run of its length."""
    train(begin(tmp_path, "once", steps=STEPS))
    once = train(extended(resume(tmp_path / "once"), 8))
    assert once.trainer.step_number == STEPS + 8
    lines = metrics(tmp_path / "once")
    assert [line["step"] for line in lines] == [4, 8, 12, 15, 18, 20]  # three reports in each part
    assert lines[2]["lr"] == lines[5]["lr"] == pytest.approx(0.1 * once.settings.lr)
    assert lines[3]["lr"] > 5 * lines[2]["lr"]
    train(begin(tmp_path, "parts", steps=STEPS))
    train(extended(resume(tmp_path / "parts"), 8), stop_after=16)
    parts = resume(tmp_path / "parts")
    assert not parts.done
    assert bits(train(parts)) == bits(once)
    assert metrics(tmp_path / "parts") == lines
    assert train(extended(resume(tmp_path / "parts"), 1)).trainer.step_number == STEPS + 9


def test_a_run_of_steps_is_made_longer_by_minutes_and_back(tmp_path: Path) -> None:
    train(begin(tmp_path, "run", steps=STEPS))
    run = resume(tmp_path / "run")
    run.extend(steps=None, minutes=0.0005)
    train(run)
    assert run.done
    assert run.trainer.step_number > STEPS
    before = run.trainer.step_number
    assert train(extended(resume(tmp_path / "run"), 3)).trainer.step_number == before + 3


def test_a_summary_of_before_counts_for_nothing_once_the_run_is_longer(tmp_path: Path) -> None:
    run = train(begin(tmp_path, "run", steps=STEPS))
    run.summarise({})
    assert resume(tmp_path / "run").concluded
    train(extended(resume(tmp_path / "run"), 8), stop_after=15)
    assert not resume(tmp_path / "run").concluded
    again = train(resume(tmp_path / "run"))
    assert not again.concluded
    again.summarise({})
    assert again.concluded
    (tmp_path / "run" / "summary.json").write_text('{"steps": ' + "[" * 100_000)
    assert not again.concluded


def test_a_run_that_is_not_done_cannot_be_made_longer(tmp_path: Path) -> None:
    train(begin(tmp_path, "run", steps=STEPS), stop_after=5)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="not complete: it stands at step 5; go on with --resume"):
        extended(resume(tmp_path / "run"), 8)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("better", [False, True])
def test_what_is_added_to_a_run_with_patience_is_left_only_if_it_is_better(tmp_path: Path, better: bool) -> None:
    done = weights(train(with_patience(tmp_path, "run", 2)))  # stands at step 8, with the weights of step 4
    run = extended(measured_by_table(resume(tmp_path / "run")), 6)
    run.validate = lambda most=None: {"val_loss": 1.0 if better else 9.0, "val_bpc": 1.0}  # type: ignore[method-assign]
    train(run)
    assert run.done
    assert (weights(run) == done) is not better
    assert run.best.step == (9 if better else 4)
    assert {name: x.tobytes() for name, x in named_leaves(load_model(tmp_path / "run", "cpu").parameters)} == weights(
        run
    )


@pytest.mark.parametrize(("report", "then"), [(1, "then begin again$"), (2, "then go on with --resume ")])
def test_metrics_that_cannot_be_written_say_what_is_left(tmp_path: Path, report: int, then: str) -> None:
    """Before the first save that is nothing."""
    directory = tmp_path / "run"
    run = begin(tmp_path, "run", steps=STEPS)
    with events(lambda number: None) as seen:
        train(run)
    at = [number for number, event in enumerate(seen, 1) if event == "open metrics.jsonl"][report - 1]
    shutil.rmtree(directory)
    with events(full(at)), pytest.raises(UserError, match=rf"metrics.jsonl: No space left.*; free some space, {then}"):
        train(begin(tmp_path, "run", steps=STEPS))
    assert directory.exists() is (report == 2)
