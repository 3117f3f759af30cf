"""Laws of `refllm compress`."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.cli import main
from refllm.commands import cost
from refllm.commands.compress import student_config
from refllm.commands.cost import table
from refllm.errors import UserError
from refllm.finetune.pruning import sparsity_of
from refllm.models import bert, gpt
from refllm.parameters import map_leaves, named_leaves
from refllm.plan import Plan
from refllm.run import Run
from refllm.tasks import load
from refllm.tasks.classify import Classify, read_data
from refllm.tasks.language import Language
from refllm.tokenizers.wordpiece import WordPieceTokenizer
from refllm.train import Trainer
from refllm.trained import Trained, load_model
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.commands.conftest import Refused

TEACH = ["--steps", "4", "--layers", "1", "--width", "4"]
WAYS: dict[str, list[str]] = {
    "quantise": [], "prune": ["--sparsity", "0.5"], "prune and train": ["--sparsity", "0.5", "--steps", "3"],
    "distil": TEACH,
}  # fmt: skip
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which numbers are sorted into small and large ones, with a low-rank change of another one."""
    folder = tmp_path_factory.mktemp("classifier")
    data = folder / "data.tsv"
    lines = [f"number {n} of {m}\t{'small' if n < 6 else 'large'}\n" for n in range(12) for m in range(6)]
    data.write_text("text\tlabel\n" + "".join(lines))
    tokenizer = WordPieceTokenizer.train("".join(lines), vocabulary=60, lower=True)
    config = bert.Config(
        vocabulary=tokenizer.size, context=16, layers=2, heads=2, width=8, hidden=8, outputs=("classes",)
    )
    how: dict[str, Any] = {"text": "text", "label": "label", "validation": 0.25}
    read = read_data([str(data)], **how)
    task = Classify(
        config=config, tokenizer=tokenizer, read=read, data=[str(data)], **how, balanced=True, start=None,
        tuning={"tune": "all"},
    )  # fmt: skip
    run = Run.begin(
        folder / "run", task=task, settings=tiny.settings(), plan=Plan(steps=20, minutes=None, reports=2),
        workers=Workers(1),
    )  # fmt: skip
    return tiny.train(run).directory


def compressed(way: str, run: Path, out: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    capfd.readouterr()
    arguments = [way.split(maxsplit=1)[0], str(run), "--out", str(out), "--threads", "1", "--json", *WAYS[way]]
    assert main(["compress", *arguments]) == 0
    return json.loads(capfd.readouterr().out)


def measured(trained: Trained) -> dict[str, float]:
    with Workers(1) as workers:
        return load(trained.description).validate(trained.parameters, device="cpu", workers=workers)


@every_way
def test_what_is_said_of_a_language_model_is_so(
    way: str, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The files' bytes, and the task's own measures of the model that is loaded again."""
    found = compressed(way, trained, tmp_path / "out", capfd)
    for row, directory in (("before", trained), ("after", tmp_path / "out")):
        files = list((directory / "checkpoint").glob("weights-*"))
        assert [path.stat().st_size for path in files] == [found[row]["bytes"]]
        quality = measured(load_model(directory, "cpu"))
        assert {name: found[row][name] for name in quality} == pytest.approx(quality, rel=1e-6)
        assert found[row]["tokens per second"] > 0
    assert found["after"]["bytes"] < found["before"]["bytes"]
    assert json.loads((tmp_path / "out" / "compress.json").read_text()) == found


@every_way
def test_a_classifier_is_compressed_too(
    way: str, classifier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = compressed(way, classifier, tmp_path / "out", capfd)
    assert found["before"].keys() == found["after"].keys() >= {"accuracy", "texts per second"}
    assert load_model(tmp_path / "out", "cpu").description["labels"] == ["large", "small"]
    if way == "quantise":
        assert found["after"]["val_loss"] == pytest.approx(found["before"]["val_loss"], rel=0.02)


@every_way
def test_the_run_itself_is_left_as_it_was(
    way: str, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = tiny.contents(trained)
    compressed(way, trained, tmp_path / "out", capfd)
    assert tiny.contents(trained) == before


def test_quantised_weights_are_whole_steps_of_their_channel(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    compressed("quantise", trained, tmp_path / "out", capfd)
    before, after = (dict(named_leaves(load_model(d, "cpu").parameters)) for d in (trained, tmp_path / "out"))
    for path, leaf in before.items():
        if leaf.ndim == 1:
            assert numpy.array_equal(after[path], leaf)
        else:
            axis = -1 if path in ("token", "position") else -2
            step = abs(leaf).max(axis=axis, keepdims=True) / 127
            assert (abs(after[path] - leaf) <= 0.501 * step).all()
            assert not numpy.array_equal(after[path], leaf)


@pytest.mark.parametrize("way", ["prune", "prune and train"])
def test_half_of_the_weights_are_zero_also_after_training(
    way: str, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    compressed(way, trained, tmp_path / "out", capfd)
    before, after = (load_model(d, "cpu").parameters for d in (trained, tmp_path / "out"))
    assert sparsity_of(after) == pytest.approx(0.5, abs=0.01)
    kept = map_leaves(lambda a, b: bool((a[b != 0] == b[b != 0]).all()), before, after)
    assert all(leaf for _, leaf in named_leaves(kept)) == (way == "prune")


def test_a_student_is_as_large_as_was_asked_for_and_says_who_taught_it(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    compressed("distil", trained, tmp_path / "out", capfd)
    student = load_model(tmp_path / "out", "cpu")
    assert (student.config.layers, student.config.width) == (1, 4)
    assert student.description["compressed"]["teacher"] == str(trained)
    assert main(["generate", str(tmp_path / "out"), "--tokens", "3"]) == 0


def test_a_student_listens_to_its_teacher(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, share in (("alone", "0"), ("taught", "1")):
        arguments = ["compress", "distil", str(trained), "--out", str(tmp_path / name), "--threads", "1"]
        assert main([*arguments, *TEACH, "--share", share]) == 0
    alone, taught = (load_model(tmp_path / name, "cpu").parameters for name in ("alone", "taught"))
    assert tiny.largest_difference(alone, taught) > 1e-3


def test_a_student_of_a_run_that_was_made_longer_begins_at_its_own_first_step(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It learns for as many steps as all parts of the run together, or as many as are asked for."""
    shutil.copytree(trained, tmp_path / "run")
    assert main(["train", "--resume", "run", "--steps", "3"]) == 0
    before = load_model(tmp_path / "run", "cpu").description["plan"]
    assert before["after_steps"] > 0
    for name, how in (("as long", TEACH[2:]), ("four", TEACH)):
        assert main(["compress", "distil", "run", "--out", name, "--threads", "1", *how]) == 0
    plans = [load_model(tmp_path / name, "cpu").description["plan"] for name in ("as long", "four")]
    assert [plan["steps"] for plan in plans] == [before["after_steps"] + 3, 4]
    assert [plan["after_steps"] for plan in plans] == [0, 0]


def test_a_student_of_a_model_without_layers_is_narrower(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sizes = ["--width", "4", "--hidden", "8", "--order", "3", "--tokenizer", "character", "--steps", "2"]
    data = ["--data", str(tiny.data(tmp_path)), "--threads", "1"]
    assert main(["train", "--model", "nnlm", "--out", "run", *sizes, *data]) == 0
    how = ["--hidden", "4", "--steps", "2", "--threads", "1"]
    assert main(["compress", "distil", "run", "--out", "out", *how]) == 0
    assert "width 4, hidden 4\n" in capfd.readouterr().err
    assert load_model(Path("out"), "cpu").config.hidden == 4


@pytest.mark.parametrize("subject", ["trained", "classifier"])
@pytest.mark.parametrize(("lr", "steps"), [("1e10", "30"), ("1e30", "1")])
def test_a_training_after_pruning_that_diverges_is_refused_and_leaves_nothing(
    subject: str, lr: str, steps: str, request: pytest.FixtureRequest, tmp_path: Path, refused: Refused
) -> None:
    """Also where the last step does it, which no loss shows."""
    run, out = str(request.getfixturevalue(subject)), tmp_path / "a" / "out"
    how = ["--steps", steps, "--lr", lr, "--threads", "1", "--out", str(out)]
    assert "the training diverged; prune again with a lower --lr" in refused("compress", "prune", run, *how)
    assert not out.parent.exists()


@pytest.mark.parametrize("way", ["prune and train", "distil"])
def test_what_is_interrupted_says_so_and_leaves_nothing(
    way: str, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student's first report is saved by then."""
    step = Trainer.step

    def interrupted(trainer: Trainer, *arguments: Any, **named: Any) -> Any:
        if trainer.step_number == 2:
            signal.raise_signal(signal.SIGINT)
        return step(trainer, *arguments, **named)

    monkeypatch.setattr(Trainer, "step", interrupted)
    out = tmp_path / "out"
    arguments = [way.split(maxsplit=1)[0], str(trained), "--out", str(out), "--threads", "1", *WAYS[way]]
    for there in (False, True):
        if there:
            out.mkdir()
        capfd.readouterr()
        assert main(["compress", *arguments]) == 130
        said = capfd.readouterr()
        assert said.out == ""
        assert said.err.endswith("refllm: interrupted\n")
        assert ("Stopped at step 3. A student cannot be gone on with: nothing is kept.\n" in said.err) == (
            way == "distil"
        )
        assert out.exists() == there
        assert tiny.contents(tmp_path) == {}


def test_texts_without_labels_are_learnt_under_those_that_the_teacher_predicts(
    classifier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Once each, and none that the run has already, to learn from or to judge by."""
    new, known = ["number 3 of 77", "number 9 of 77", "number 4 of 70"], ["number 3 of 4", " NUMBER 0 of 0"]
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"text": text}) + "\n" for text in (*new, *known, new[0])))
    assert main(["classify", "predict", str(classifier), *new, "--json"]) == 0
    predicted = Counter(json.loads(line)["label"] for line in capfd.readouterr().out.splitlines())
    arguments = ["compress", "distil", str(classifier), "--out", str(tmp_path / "out"), "--threads", "1"]
    assert main([*arguments, *TEACH, "--unlabelled", str(more)]) == 0
    assert "; 3 texts without labels" in capfd.readouterr().err
    before, after = (load_model(run, "cpu").description for run in (classifier, tmp_path / "out"))
    assert after["compressed"]["unlabelled"] == len(new)
    assert Counter(after["label_counts"]) == Counter(before["label_counts"]) + predicted


def test_the_same_seed_makes_the_same_student(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        compressed("distil", trained, tmp_path / name, capfd)
    a, b = (load_model(tmp_path / name, "cpu").parameters for name in ("a", "b"))
    assert tiny.largest_difference(a, b) == 0


def test_the_sizes_of_a_student() -> None:
    """Half the layers unless something is said; the hidden width follows the width."""
    teacher = gpt.Config(vocabulary=5, context=4, layers=4, heads=2, width=8, hidden=32)
    nothing = dict.fromkeys(("layers", "heads", "width", "hidden"))
    assert student_config(teacher, nothing).layers == 2
    small = student_config(teacher, {**nothing, "width": 4})
    assert (small.layers, small.width, small.hidden) == (4, 4, 16)
    assert student_config(teacher, {**nothing, "width": 4, "hidden": 8}).hidden == 8
    with pytest.raises(UserError, match="no layers to halve; give --width or --hidden"):
        student_config(student_config(teacher, {**nothing, "layers": 1}), nothing)
    with pytest.raises(UserError, match="heads must divide the width"):
        student_config(teacher, {**nothing, "width": 5})


def test_the_table_shows_what_is_left() -> None:
    rows = {"before": {"bytes": 2000.0, "val_bpc": 1.5}, "after": {"bytes": 500.0, "val_bpc": 1.6}}
    assert [line.split() for line in table(rows).splitlines()] == [
        ["before", "after"], ["bytes", "2,000", "500", "25.0", "%"], ["val_bpc", "1.5000", "1.6000", "106.7", "%"],
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["quantise", "prune --sparsity 0.6"])
def test_no_speed_is_told_of_a_model_that_computes_as_much_as_before(
    way: str, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    how, *flags = way.split()
    assert main(["compress", how, str(trained), "--out", str(tmp_path / "out"), "--threads", "1", *flags]) == 0
    out = capfd.readouterr().out
    assert "smaller, not faster" in out
    assert "second" not in out


@pytest.mark.optional
def test_the_picture_is_drawn_where_matplotlib_is(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    compressed("quantise", trained, tmp_path / "out", capfd)
    assert (tmp_path / "out" / "compress.png").read_bytes().startswith(b"\x89PNG")


def test_user_mistakes_are_one_line(trained: Path, classifier: Path, tmp_path: Path, refused: Refused) -> None:
    run, out = str(trained), str(tmp_path / "out")
    more = tmp_path / "more.csv"
    more.write_text('text\none\n""\n')
    distil = ["--out", out, "--width", "4", "--unlabelled", str(more)]
    assert "the run is none" in refused("compress", "distil", run, *distil)
    assert "needs a teacher" in refused("compress", "distil", str(classifier), *distil, "--share", "0")
    assert "more.csv:3: the text is empty" in refused("compress", "distil", str(classifier), *distil)
    assert "sparsity must be at least 0 and below 1" in refused(
        "compress", "prune", run, "--out", out, "--sparsity", "1"
    )
    assert "no layers to halve" in refused("compress", "distil", run, "--out", out)
    assert "temperature must be" in refused(
        "compress", "distil", run, "--out", out, "--width", "4", "--temperature", "0"
    )
    assert "threads must be at least 1" in refused("compress", "quantise", run, "--out", out, "--threads", "0")
    assert "steps must not be negative" in refused("compress", "prune", run, "--out", out, "--steps", "-1")
    for flag, value in (("--lr", "0.1"), ("--batch", "2")):
        said = refused("compress", "prune", run, "--out", out, flag, value)
        assert f"{flag} is of the training after pruning; give its --steps too" in said
    assert "the model of the run has" in refused("compress", "distil", run, "--out", out, "--width", "1000")
    assert "the model of the run has" in refused("compress", "distil", run, "--out", out, "--heads", "1")
    assert "does not exist" in refused("compress", "quantise", str(tmp_path / "none"), "--out", out)


@pytest.mark.parametrize("way", ["quantise", "prune", "distil"])
def test_a_run_that_counts_is_refused_in_words_of_its_own(way: str, tmp_path: Path, refused: Refused) -> None:
    data = ["--data", str(tiny.data(tmp_path))]
    assert main(["train", "--model", "ngram", "--tokenizer", "character", *data, "--out", "ngram"]) == 0
    assert "an n-gram, which counts" in refused("compress", way, "ngram", "--out", str(tmp_path / "out"))


def test_nothing_is_overwritten_and_no_compressed_run_is_gone_on_with(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], refused: Refused
) -> None:
    compressed("quantise", trained, tmp_path / "out", capfd)
    out = str(tmp_path / "out")
    assert "is not empty and will not be overwritten" in refused("compress", "quantise", str(trained), "--out", out)
    assert "was made by refllm compress" in refused("train", "--resume", out)


@pytest.mark.parametrize(("short", "rounds_on_all"), [(1e9, 6), (0.0, 2)])
def test_all_that_is_held_out_is_measured_once_where_that_takes_long(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, short: float,
    rounds_on_all: int,
) -> None:  # fmt: skip
    """Of each model; the rounds of the speed read all too where that is short."""
    read, few = count_readings(monkeypatch, 1e9, short)
    total = load(load_model(trained, "cpu").description).examples_held_out
    found = compressed("quantise", trained, tmp_path / "out", capfd)
    assert read.count(total) == rounds_on_all
    assert len(read) == (7 if rounds_on_all == 6 else 9)
    assert set(read) <= {few, total}
    assert "val_of" not in found["before"]


def test_a_sample_is_measured_of_both_where_all_would_take_too_long_and_that_is_said(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, few = count_readings(monkeypatch, 0.0, 0.0)
    found = compressed("quantise", trained, tmp_path / "out", capfd)
    assert set(read) == {few}
    total = load(load_model(trained, "cpu").description).examples_held_out
    for row in (found["before"], found["after"]):
        assert (row["val_examples"], row["val_of"]) == (few, total)
    capfd.readouterr()
    assert main(["compress", "quantise", str(trained), "--out", str(tmp_path / "shown"), "--threads", "1"]) == 0
    shown = capfd.readouterr().out
    assert f"Measured on {few} of the {total} examples held out, evenly spread." in shown
    assert "val_examples" not in shown


def count_readings(monkeypatch: pytest.MonkeyPatch, longest: float, short: float) -> tuple[list[int | None], int]:
    """How many examples each validation reads; and how many the shortest one does."""
    few, read = 4, list[int | None]()
    validate = Language.validate

    def counted(self: Any, *args: Any, most: int | None = None, **how: Any) -> Any:
        read.append(most)
        return validate(self, *args, most=most, **how)

    for name, value in {"LONGEST": longest, "SHORT": short, "TRIED": few}.items():
        monkeypatch.setattr(cost, name, value)
    monkeypatch.setattr(Language, "validate", counted)
    return read, few
