"""Laws of `refllm classify`: fit, predict, evaluate, and what each refuses."""

from __future__ import annotations

import io
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from refllm.cells import cells
from refllm.cli import main
from refllm.commands.label_report import WIDTH, baseline_labels, confusion_table, label_table, print_comparison
from refllm.commands.labelling import _line
from refllm.data.examples import Example
from refllm.models import bert
from refllm.parameters import count
from refllm.presets import FIT_SETTINGS, rates
from refllm.run import Run
from refllm.tasks import baselines
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.commands.conftest import Refused, leave_the_allocator_alone
from spec_tests.tasks.test_classify import ROWS

SMALL = ["--layers", "1", "--heads", "2", "--width", "8", "--context", "16", "--vocabulary", "200", "--threads", "1"]
TEXTS = ["pear plum and fig", "slate flint and chalk", "rome oslo and lima"]

Captured = pytest.CaptureFixture[str]


def table(path: Path, rows: list[tuple[str, str]], *, header: str = "text,label") -> str:
    path.write_text(f"{header}\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return str(path)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that tells fruit from stones from cities, made once; beside it the data."""
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        leave_the_allocator_alone(patch)
        how = ["--steps", "200", "--lr", "0.02", "--reports", "4", "--validation", "0.2", "--out", str(folder / "run")]
        assert main(["classify", "fit", table(folder / "data.csv", ROWS), *how, *SMALL]) == 0
    return folder


def predicted(capfd: Captured, *arguments: str) -> list[Any]:
    capfd.readouterr()
    assert main(["classify", "predict", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_the_summary_has_the_scores_and_the_baselines(fitted: Path) -> None:
    summary = json.loads((fitted / "run" / "summary.json").read_text())
    assert summary["accuracy"] > summary["baselines"]["majority"]
    assert summary.keys() >= {"accuracy", "macro_f1", "val_loss", "best_step", "steps", "parameters", "seed"}
    assert summary["baselines"].keys() == {"majority"} | ({"naive_bayes"} if baselines.has_naive_bayes() else set())


def test_predictions_are_json_lines_with_probabilities_of_every_label(fitted: Path, capfd: Captured) -> None:
    found = predicted(capfd, str(fitted / "run"), *TEXTS)
    assert [one["text"] for one in found] == TEXTS
    assert [one["label"] for one in found] == ["fruit", "stone", "city"]
    for one in found:
        assert list(one["probabilities"]) == ["city", "fruit", "stone"]
        assert math.fsum(one["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert one["probabilities"][one["label"]] == max(one["probabilities"].values())


def test_texts_come_from_arguments_files_tables_and_the_standard_input(
    fitted: Path, tmp_path: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each text as by itself: what stands beside it in a batch changes nothing but the last bits."""
    run = str(fitted / "run")
    wanted = predicted(capfd, run, *TEXTS)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in TEXTS))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(TEXTS).encode())))
    assert predicted(capfd, run) == wanted
    assert predicted(capfd, run, "--file", "texts.txt") == wanted
    assert predicted(capfd, run, "--file", "texts.jsonl", "--text", "body") == wanted
    for text, one in zip(TEXTS, wanted, strict=True):
        (alone,) = predicted(capfd, run, text)
        assert alone["probabilities"] == pytest.approx(one["probabilities"], rel=1e-4)


def test_the_standard_input_is_read_as_a_file_is(
    fitted: Path, tmp_path: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = "\ufeffpear\rslate\r\nrome\x0bplum\x0cfig\u2028oslo\x1clima\x85bonn\n".encode()
    (tmp_path / "texts.txt").write_bytes(raw)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    found = predicted(capfd, str(fitted / "run"))
    assert [one["text"] for one in found] == ["pear", "slate", "rome\x0bplum\x0cfig\u2028oslo\x1clima\x85bonn"]
    assert predicted(capfd, str(fitted / "run"), "--file", "texts.txt") == found


def test_json_lines_hold_every_text_whatever_the_standard_output_can_show(
    fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, out = ["é 😀", "a\u2028b\x85c"], io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        assert main(["classify", "predict", str(fitted / "run"), *texts, "--json"]) == 0
    out.seek(0)
    assert [json.loads(line)["text"] for line in out.read().splitlines()] == texts


def test_plain_predictions_are_aligned_lines(fitted: Path, capfd: Captured) -> None:
    capfd.readouterr()
    assert main(["classify", "predict", str(fitted / "run"), "rome\noslo", "pear " * 100, "--cut"]) == 0
    out, err = capfd.readouterr()
    first, second = out.splitlines()
    assert first.startswith("city   0.")
    assert first.endswith("  rome oslo")
    assert second.index("pear") == first.index("rome")
    assert second.endswith("…")
    assert "texts longer than the context of 16 tokens, read up to there: 1 of 2, the first in arg" in err


def test_an_ensemble_answers_with_the_mean_of_the_probabilities(fitted: Path, tmp_path: Path, capfd: Captured) -> None:
    run, other = str(fitted / "run"), str(tmp_path / "other")
    assert main(["classify", "fit", str(fitted / "data.csv"), "--out", other, "--steps", "3", *SMALL]) == 0
    alone = [predicted(capfd, one, *TEXTS) for one in (run, run, other)]
    together = predicted(capfd, run, *TEXTS, "--with", run, "--with", other)
    for members, one in zip(zip(*alone, strict=True), together, strict=True):
        for label, probability in one["probabilities"].items():
            mean = sum(member["probabilities"][label] for member in members) / 3
            assert probability == pytest.approx(mean, rel=1e-6)


def test_an_evaluation_of_an_ensemble_shows_its_members_beside_it(
    fitted: Path, tmp_path: Path, capfd: Captured
) -> None:
    run, other, data = str(fitted / "run"), str(tmp_path / "other"), str(fitted / "data.csv")
    assert main(["classify", "fit", data, "--out", other, "--steps", "1", *SMALL]) == 0
    capfd.readouterr()
    alone = []
    for one in (run, other):
        assert main(["classify", "evaluate", one, data, "--json"]) == 0
        alone.append(json.loads(capfd.readouterr().out))
        assert alone[-1]["members"] == []
    assert alone[0]["accuracy"] > alone[1]["accuracy"]
    how = ["classify", "evaluate", run, data, "--with", other]
    assert main([*how, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["members"] == [
        {"run": name, "accuracy": one["accuracy"], "macro_f1": one["macro_f1"]}
        for name, one in zip((run, other), alone, strict=True)
    ]
    assert main(how) == 0
    shown = capfd.readouterr().out
    for name, one in (("the ensemble", found), (run, alone[0]), (other, alone[1])):
        (line,) = (line for line in shown.splitlines() if line.startswith(f"    {name} "))
        assert line.split()[-3:] == [f"{100 * one['accuracy']:.1f}", "%", f"{one['macro_f1']:.3f}"]


def test_an_evaluation_counts_what_is_predicted(fitted: Path, tmp_path: Path, capfd: Captured) -> None:
    rows = [(TEXTS[0], "fruit"), (TEXTS[1], "fruit"), (TEXTS[1], "stone"), (TEXTS[2], "city")]
    data = table(tmp_path / "test.csv", rows, header="body,kind")
    how = ["classify", "evaluate", str(fitted / "run"), data, "--text", "body", "--label", "kind"]
    capfd.readouterr()
    assert main([*how, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["examples"] == 4
    assert found["accuracy"] == found["micro"]["f1"] == 3 / 4
    assert found["confusion"] == {"labels": ["city", "fruit", "stone"], "counts": [[1, 0, 0], [0, 1, 1], [0, 0, 1]]}
    assert found["labels"]["fruit"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "count": 2}
    assert found["macro_f1"] == found["macro"]["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert found["baselines"]["majority"] == 1 / 4  # stones, of which the training part has most
    assert found["baselines_macro_f1"]["majority"] == pytest.approx((0 + 0 + 2 / 5) / 3)
    assert main(how) == 0
    shown = capfd.readouterr().out
    assert "    2 fruit   .  1  1\n" in shown
    lines = [line for line in shown.splitlines() if "pip install" not in line]  # which names a Python by its path
    assert max(map(len, lines)) <= WIDTH


def test_an_evaluation_goes_on_without_the_training_texts(fitted: Path, tmp_path: Path, capfd: Captured) -> None:
    (tmp_path / "moved").mkdir()
    shutil.copytree(fitted / "run", tmp_path / "moved" / "run")
    data = table(tmp_path / "data.csv", ROWS)
    state = tmp_path / "moved" / "run" / "checkpoint" / "state.json"
    moved = json.loads(state.read_text().replace(str(fitted / "data.csv"), str(tmp_path / "gone.csv")))
    state.write_bytes(tiny.resealed(moved))
    capfd.readouterr()
    assert main(["classify", "evaluate", str(tmp_path / "moved" / "run"), data]) == 0
    shown = capfd.readouterr().out
    assert "(no Naive Bayes: the texts that the run learnt from are no longer where they were)" in shown
    assert "most frequent label" in shown


def test_without_scikit_learn_the_majority_is_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refllm.commands.label_report.has_naive_bayes", lambda: False)
    guesses, note = baseline_labels({"a": 2, "b": 3}, [Example("x", "a", "f:1")], ["x", "y"])
    assert guesses == {"majority": ["b", "b"]}
    assert "-m pip install 'scikit-learn>=1.4' 'sacrebleu>=2.4'" in note


@pytest.mark.optional
def test_naive_bayes_is_that_of_counted_words() -> None:
    """Against Bayes' rule by hand, one text; the words of the text are frequent enough for any pseudo-count."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    texts, labels = ["red rose red"] * 8 + ["blue sky , blue"] * 8, ["a"] * 8 + ["b"] * 8
    assert baselines.naive_bayes(texts, labels, ["Red sky", "blue rose", "RED rose", "sky ,"]) == ["a", "b", "a", "b"]
    assert baselines.naive_bayes(["\u200b"] * 4, list("abab"), ["x"]) is None


def test_the_last_table_of_fit_is_that_of_evaluate_on_what_was_held_out(tmp_path: Path, capfd: Captured) -> None:
    data = table(tmp_path / "data.csv", ROWS)
    assert main(["classify", "fit", data, "--steps", "20", "--validation", "0.4", "--out", "r", *SMALL]) == 0
    shown = capfd.readouterr().out
    task: Any = Run.resume(tmp_path / "r", Workers).task
    held_out = table(tmp_path / "held_out.csv", [(one.text, str(one.label)) for one in task.read.validation])
    assert main(["classify", "evaluate", "r", held_out]) == 0
    measured = capfd.readouterr().out
    tables = [
        [line for line in text.splitlines() if line.startswith(("    this model", "    most frequent label"))]
        for text in (shown, measured)
    ]
    assert len(tables[0]) == 2
    assert tables[0] == tables[1]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("tune", [["all"], ["upper", "--upper", "1"], ["low-rank", "--rank", "2", "--alpha", "4"]])
def test_a_pre_trained_bert_is_tuned(tmp_path: Path, capfd: Captured, tune: list[str]) -> None:
    text = "\n\n".join(f"# {a}\n\nThe {a} is here. The {b} is there." for a, b in ROWS)
    (tmp_path / "text.md").write_text(text)
    pretrained = ["--model", "bert", "--data", "text.md", "--steps", "2", "--reports", "1", "--out", "bert", *SMALL]
    assert main(["train", *pretrained]) == 0
    data = table(tmp_path / "data.csv", ROWS)
    capfd.readouterr()
    how = [data, "--from", "bert", "--steps", "4", "--threads", "1", "--tune", *tune, "--class-weights"]
    assert main(["classify", "fit", *how, "--out", "run"]) == 0
    shown = capfd.readouterr().out
    assert len(predicted(capfd, "run", *TEXTS)) == 3
    run = Run.resume(tmp_path / "run", Workers)
    task: Any = run.task
    assert (
        f"model      bert from {tmp_path / 'bert'}, {count(bert.shapes(task.config)):,} parameters: 1 layer," in shown
    )
    assert (
        f"training   {task.tuning.count:,} parameters ({100 * task.tuning.share:.3g} % of the model's), at m" in shown
    )
    assert run.settings.lr == rates(FIT_SETTINGS["lr"])[tune[0]]
    assert run.done


def test_the_labels_are_smoothed_in_training_alone(fitted: Path, capfd: Captured) -> None:
    """By so much that the loss of the training, which has it, is far above that of what is held out."""
    how = ["classify", "fit", str(fitted / "data.csv"), "--steps", "150", "--lr", "0.02", "--reports", "1", *SMALL]
    capfd.readouterr()
    assert main([*how, "--label-smoothing", "0.5", "--out", "smoothed"]) == 0
    assert " without smoothing, " in capfd.readouterr().out
    run = Run.resume(Path("smoothed"), Workers)
    assert run.description["smoothing"] == 0.5
    least = -(2 / 3 * math.log(2 / 3) + 2 / 6 * math.log(1 / 6))  # of the targets: 1/2 + 1/6, 1/6, 1/6
    (line,) = tiny.metrics(Path("smoothed"))
    assert line["train_loss"] > least > line["val_loss"]
    (one,) = predicted(capfd, "smoothed", TEXTS[0])
    assert one["probabilities"]["fruit"] < 0.8


def test_a_stopped_fit_goes_on_by_resume_and_says_when_it_is_complete(
    fitted: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ["classify", "fit", str(fitted / "data.csv"), "--steps", "6", "--reports", "3", *SMALL]
    assert main([*how, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("refllm.commands.progress.interrupts", lambda: _Interrupted(3))
        assert main([*how, "--out", "stopped"]) == 130
    assert "refllm classify fit --resume stopped" in capfd.readouterr().out
    assert main(["classify", "fit", "--resume", "stopped"]) == 0
    one, other = (Run.resume(Path(name), Workers) for name in ("whole", "stopped"))
    assert tiny.bits(one) == tiny.bits(other)
    assert main(["classify", "fit", "--resume", "stopped"]) == 0
    assert "The run is complete at step 6" in capfd.readouterr().out


class _Interrupted(list[int]):
    """Ctrl-C after so many steps: what `interrupts` gives, asked once before each step."""

    def __init__(self, steps: int) -> None:
        super().__init__([1])
        self.steps = steps

    def __enter__(self) -> _Interrupted:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __bool__(self) -> bool:
        self.steps -= 1
        return self.steps < 0


def test_a_language_model_labels_by_the_probability_of_the_sentence(trained: Path, capfd: Captured) -> None:
    """The labels are those characters that the tiny model knows."""
    how = ["--labels", "6", "12", "--prompt", "{text} is {label}.\n"]
    (one,) = predicted(capfd, str(trained), "2 times 3", *how)
    assert list(one["probabilities"]) == ["6", "12"]
    assert math.fsum(one["probabilities"].values()) == pytest.approx(1)
    assert predicted(capfd, str(trained), "2 times 3", "--labels", " 6", "12 ", *how[3:]) == [one]  # as in a table
    capfd.readouterr()
    log_p = []
    for label in ("6", "12"):
        assert main(["score", str(trained), "--text", f"2 times 3 is {label}.\n", "--json"]) == 0
        log_p.append(json.loads(capfd.readouterr().out)["log_probability"])
    ratio = one["probabilities"]["6"] / one["probabilities"]["12"]
    assert math.log(ratio) == pytest.approx(log_p[0] - log_p[1], abs=1e-3)  # a context of 16 holds all of them


def test_a_language_model_is_shown_examples_and_evaluated(trained: Path, tmp_path: Path, capfd: Captured) -> None:
    few = table(tmp_path / "few.csv", [("1 times 1", "1"), ("1 times 2", "2")])
    how = ["--examples", few, "--prompt", "{text} is {label}.\n"]
    capfd.readouterr()
    assert main(["classify", "evaluate", str(trained), few, *how, "--json"]) == 0
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert found["examples"] == 2
    assert found["confusion"]["labels"] == ["1", "2"]
    assert found["baselines"] == {}
    assert "prompts are longer than the context of 16 tokens: they lose up to" in err
    assert "a language model has no training labels" in err


def write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


GOOD = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
UNFIT: dict[str, tuple[str | bytes, list[str], str]] = {
    "no label": (GOOD + "x,\n", [], "data.csv:114: there is no label; fill in the column 'label' or take"),
    "an empty text": (GOOD + " ,fruit\n", [], "data.csv:114: the text is empty; fill it in or take the line out"),
    "one class": ("text,label\nx,a\ny,a\n", [], "data.csv:2: from here on all 2 examples have the one label 'a'"),
    "no column": ("a,b\nx,y\n", [], "data.csv:1: the column 'text' is not among a, b; correct the header"),
    "encoding": (GOOD.encode() + b"caf\xe9,a\n", [], "data.csv:114 is not UTF-8 text: byte "),
    "few": ("text,label\nx,a\ny,b\n", [], "2 examples are too few to hold out 0.1 of them; give more"),
    "patience": (GOOD, ["--patience", "0"], "patience must be at least 1, got 0"),
    "epochs": (GOOD, ["--epochs", "0"], "epochs must be a finite number above 0, got 0.0"),
    "validation": (GOOD, ["--validation", "1"], "the validation part must be a fraction between 0 and 1"),
    "context": (GOOD, ["--context", "2"], "a context of 2 has no room for a text between [CLS] and [SEP]"),
    "smoothing": (GOOD, ["--label-smoothing", "1"], "smoothing of the labels must be at least 0 and below 1, got 1.0"),
    "no smoothing": (GOOD, ["--label-smoothing", "-0.1"], "must be at least 0 and below 1, got -0.1"),
    "rank": (GOOD, ["--rank", "2"], "--rank belongs to --tune low-rank; leave it out, or give that"),
    "upper": (GOOD, ["--upper", "2", "--tune", "all"], "--upper belongs to --tune upper"),
    "tune": (GOOD, ["--tune", "upper"], "--tune upper needs a trained model; give its run by --from, or tune all"),
    "from": (GOOD, ["--from", "none"], "no checkpoint in none/checkpoint"),
    "sizes": (GOOD, ["--from", "none", "--width", "8"], "--width is that of the run none; leave it out"),
}


@pytest.mark.parametrize(("content", "flags", "says"), UNFIT.values(), ids=UNFIT)
def test_a_fit_that_cannot_be_is_refused(
    tmp_path: Path, refused: Refused, content: str | bytes, flags: list[str], says: str
) -> None:
    write(tmp_path / "data.csv", content)
    assert says in refused("classify", "fit", "data.csv", "--out", "run", *flags)


def test_more_refusals_of_fit(tmp_path: Path, refused: Refused, trained: Path, fitted: Path) -> None:
    write(tmp_path / "data.csv", GOOD)
    assert "there is nothing to learn from; give a table" in refused("classify", "fit")
    assert "is a run of gpt, and this one begins from one of bert" in refused(
        "classify", "fit", "data.csv", "--from", str(trained)
    )
    for extra, name in ((["--patience", "5"], "--patience"), (["data.csv"], "DATA"), (["--from", "x"], "--from")):
        said = refused("classify", "fit", "--resume", str(fitted / "run"), *extra)
        assert f"--resume goes on with the settings of the run; leave out {name}" in said
    assert "is a run of language; go on with it by the command that began it" in refused(
        "classify", "fit", "--resume", str(trained)
    )
    assert "is a run of classify; go on with it by refllm classify fit --resume" in refused(
        "train", "--resume", str(fitted / "run")
    )
    (tmp_path / "there").mkdir()
    write(tmp_path / "there" / "mine", "mine")
    assert "there is not empty and will not be overwritten" in refused(
        "classify", "fit", "data.csv", "--out", "there", *SMALL
    )


def test_refusals_of_predict_and_evaluate(
    tmp_path: Path, refused: Refused, trained: Path, fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, gpt = str(fitted / "run"), str(trained)
    write(tmp_path / "lines.txt", "x\n\ny\n")
    write(tmp_path / "data.csv", "text,label\npear,fruit\nx,animal\n")
    write(tmp_path / "one.csv", "text,label\nx,animal\n")
    write(tmp_path / "long.csv", f"text\npear\n{'pear ' * 40}\n")
    write(tmp_path / "bad.csv", b"text,label\npear,fruit\ncaf\xe9,fruit\n")
    write(tmp_path / "no.csv", "text,label\npear,fruit\nx,\n")
    for arguments, says in (
        (["predict", gpt, "x"], "is a run of gpt, no classifier; give one of refllm classify fit, or --labels"),
        (["predict", gpt, "x", "--labels", "a"], "labels must be at least two different ones; got a"),
        (["predict", gpt, "x", "--labels", "a", "a"], "labels must be at least two different ones; got a a"),
        (["predict", gpt, "x", "--labels", "a", " a "], "labels must be at least two different ones; got a a"),
        (["predict", gpt, "x", "--labels", "", "a"], "--labels: the text is empty; fill it in or leave it out"),
        (["predict", gpt, "x", "--labels", "a", " "], "--labels: the text is empty; fill it in or leave it out"),
        (["predict", gpt, "x", "--labels", "a", "\udce9"], "--labels: not UTF-8 text; give it in UTF-8"),
        (["predict", gpt, "x", "--examples", "one.csv"], "labels must be at least two different ones; got animal"),
        (["predict", gpt, "2", "--labels", "1", "2", "--prompt", "x"], "a prompt needs {text} and then {label}"),
        (
            ["predict", gpt, "x", "--labels", "a", "b", "--examples", "one.csv"],
            "one.csv:2: the label 'animal' is not am",
        ),
        (["predict", gpt, "x", "--labels", "a", "b", "--with", run], "--with is for classifiers; leave it out"),
        (["predict", run, "x", "--labels", "a", "b"], "--labels is for a language model"),
        (["predict", run, "x", "--with", gpt], "is no classifier for the labels city, fruit, stone; leave it out"),
        (["predict", run, "x", "--file", "lines.txt"], "give texts or --file, not both"),
        (["predict", run, "--file", "lines.txt"], "lines.txt:2: the text is empty; fill it in or leave it out"),
        (["predict", run, "x", " "], "argument:2: the text is empty"),
        (["predict", run, "x", "caf\udce9"], "argument:2: not UTF-8 text; give it in UTF-8"),
        (
            ["predict", run, "x", "pear " * 20],
            "argument:2: the text has 22 tokens with its marks, and the model reads 16",
        ),
        (["predict", run, "--file", "long.csv"], "long.csv:3: the text has 42 tokens with its marks, and the model"),
        (["predict", run, "--file", "bad.csv"], "bad.csv:3 is not UTF-8 text: byte "),
        (["evaluate", run, "bad.csv"], "bad.csv:3 is not UTF-8 text: byte "),
        (["evaluate", run, "no.csv"], "no.csv:3: there is no label; fill in the column 'label' or take the line out"),
        (["predict", run, "x", "--threads", "0"], "threads must be at least 1, got 0"),
        (["predict", "none", "x"], "no checkpoint in none/checkpoint"),
        (["predict", "data.csv", "x"], "no checkpoint in data.csv/checkpoint"),
        (["evaluate", run, "data.csv"], "data.csv:3: the label 'animal' was never seen in training, which had city,"),
        (["evaluate", run, "data.csv", "--label", "kind"], "data.csv:1: the column 'kind' is not among text, label"),
    ):
        assert says in refused("classify", *arguments), arguments
    for raw, says in (
        (b"", "there is no text; give some after RUN, by --file or"),
        (b"x\ncaf\xe9\n", "standard input:2 is not UTF-8 text: byte 5"),
        (b"x\ry\r\n\0\n", "standard input:3 is binary: byte 5 is zero; give text"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        assert says in refused("classify", "predict", run)


def test_a_confusion_matrix_too_wide_for_a_terminal_becomes_its_mistakes() -> None:
    labels = [f"label {i}" for i in range(30)]
    confusion = [
        [(i == j) * 1000 + (i == 3 and j == 7) * 12 + (i == 8 and j == 9) for j in range(30)] for i in range(30)
    ]
    shown = confusion_table(labels, confusion)
    assert [line.split(maxsplit=1) for line in shown[3:]] == [
        ["12", "label 3 was called label 7"], ["1", "label 8 was called label 9"],
    ]  # fmt: skip


@pytest.mark.parametrize("n", [2, 30])
def test_a_label_with_a_line_break_is_escaped_in_tables(n: int) -> None:
    labels, confusion = [f"a\n{i}\u2028" for i in range(n)], [[1] * n for _ in range(n)]
    for table_of in (label_table, confusion_table):
        lines = table_of(labels, confusion)
        assert all(len(line.splitlines()) <= 1 for line in lines)
        assert any(r"a\n1\u2028" in line for line in lines)


def test_a_label_with_a_line_break_is_escaped_in_predictions(tmp_path: Path, capfd: Captured) -> None:
    (tmp_path / "data.csv").write_text("text,label\n" + "".join(f'{text},"{label}\nx"\n' for text, label in ROWS))
    assert main(["classify", "fit", "data.csv", "--steps", "1", "--out", "run", *SMALL]) == 0
    capfd.readouterr()
    assert main(["classify", "predict", "run", *TEXTS]) == 0
    assert [r"\nx " in line for line in capfd.readouterr().out.splitlines()] == [True] * len(TEXTS)


@pytest.mark.parametrize("action", [[], ["fit"], ["predict"], ["evaluate"]])
def test_every_help_shows_an_example(action: list[str], capfd: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["classify", *action, "--help"])
    assert ended.value.code == 0
    assert "example: refllm classify" in capfd.readouterr().out


def test_tables_of_wide_labels_have_straight_columns(capfd: Captured) -> None:
    labels = ["水果", "stone", "城市и\u0301", "🙂"]
    confusion = [[3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 12, 1], [1, 0, 0, 2]]
    for lines in (label_table(labels, confusion)[1:], confusion_table(labels, confusion)[3:]):
        assert len({cells(line) for line in lines}) == 1
    print_comparison(0.5, 0.5, ["a", "b"], {}, ["a", "b"], members=[("运行/一", ["a", "b"]), ("runs/2", ["a", "a"])])
    assert len({cells(line) for line in capfd.readouterr().out.splitlines()}) == 1


def test_a_text_of_wide_characters_is_cut_to_the_room_that_it_has() -> None:
    assert _line("梨" * 60, 21) == "梨" * 10 + "…"
