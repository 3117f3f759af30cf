"""Laws of `refllm translate`, and of what it shares with `refllm summarise`."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from refllm.cli import main
from refllm.commands.rewriting import TOO_SHORT
from refllm.metrics import has_sacrebleu
from refllm.models import encoder_decoder
from refllm.parameters import count
from refllm.presets import PRESETS
from refllm.run import Run
from refllm.trained import load_model
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.commands.conftest import Refused, leave_the_allocator_alone
from spec_tests.pairs import PAIRS, TINY, WORDS, written


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt the language of spec_tests/pairs.py."""
    folder = tmp_path_factory.mktemp("translate")
    with pytest.MonkeyPatch.context() as patch:
        leave_the_allocator_alone(patch)
        how = [
            "--epochs", "32", "--reports", "2", "--lr", "1e-2", "--label-smoothing", "0", "--out", str(folder / "run"),
        ]  # fmt: skip
        assert main(["translate", "fit", *written(folder / "data"), *how, *TINY, "--width", "32"]) == 0
    return folder / "run"


def printed(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    capfd.readouterr()
    assert main(arguments) == 0
    return capfd.readouterr().out


@pytest.mark.slow
def test_what_is_learnt_holds_for_pairs_that_were_held_out(learnt: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capfd, "translate", "evaluate", str(learnt), "--json", "--beams", "3"))
    assert list(found["scores"]) == ["greedy", "3 beams", "copy of the source", "word by word"]
    assert found["scores"]["greedy"]["exact"] > 80
    assert found["scores"]["word by word"]["exact"] == 100  # in this language it is enough
    assert found["scores"]["copy of the source"]["exact"] == 0
    summary = json.loads((learnt / "summary.json").read_text())
    assert summary["exact"] == found["scores"]["greedy"]["exact"]
    assert summary["baselines"]["copy_exact"] == 0
    assert summary["val_loss"] < 0.2


@pytest.mark.parametrize("validation", ["0.1", "0.6"])  # of more pairs than were once measured
def test_the_last_table_of_fit_is_that_of_evaluate(
    tmp_path: Path, validation: str, capfd: pytest.CaptureFixture[str]
) -> None:
    how = ["--steps", "30", "--reports", "1", "--validation", validation, "--out", "r"]
    shown = printed(capfd, "translate", "fit", *written(tmp_path / "data"), *how, *TINY)
    held_out = len(PAIRS) - int(re.search(r": ([\d,]+) pairs to learn from", shown)[1].replace(",", ""))  # type: ignore[index]
    assert f"On the {held_out:,} texts held out" in shown
    measured = printed(capfd, "translate", "evaluate", "r", "--beams", "1")
    rows = [line for line in shown.splitlines() if line.startswith(("greedy ", "copy of the source "))]
    assert rows == [line for line in measured.splitlines() if line.startswith(("greedy ", "copy of the source "))]
    assert len(rows) == 2


@pytest.mark.parametrize("length", ["--steps", "--minutes"])
def test_where_writing_all_takes_too_long_a_part_is_measured_and_it_is_said(
    tmp_path: Path, length: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refllm.commands.pairs.TRIED", 3)
    monkeypatch.setattr("refllm.commands.pairs.WRITING", 0.0)
    monkeypatch.setattr("refllm.commands.pairs.LEAST_WRITING", 0.0)
    how = [length, "3" if length == "--steps" else "0.0001", "--reports", "1", "--validation", "0.5", "--out", "r"]
    shown = printed(capfd, "translate", "fit", *written(tmp_path / "data"), *how, *TINY)
    assert re.search(r"On 3 of the \d+ texts held out, evenly spread", shown)


@pytest.mark.slow
def test_translations_are_printed_a_line_each_or_as_json(
    learnt: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [pair for pair in PAIRS if pair[0].startswith(("one car", "dog one"))]
    texts, wanted = [list(side) for side in zip(*known, strict=True)]
    lines = "".join(f"{one}\n" for one in wanted)
    assert printed(capfd, "translate", "predict", str(learnt), *texts) == lines
    assert printed(capfd, "translate", "predict", str(learnt), *texts, "--beams", "1") == lines
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    assert printed(capfd, "translate", "predict", str(learnt), "--file", str(tmp_path / "texts.txt")) == lines
    (tmp_path / "texts.csv").write_text("english\n" + "\n".join(texts) + "\n")
    table = ["--file", str(tmp_path / "texts.csv"), "--source", "english", "--json"]
    found = [json.loads(line) for line in printed(capfd, "translate", "predict", str(learnt), *table).splitlines()]
    assert found == [{"text": a, "translation": b} for a, b in zip(texts, wanted, strict=True)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(texts).encode())))
    assert printed(capfd, "translate", "predict", str(learnt)) == lines


def test_json_is_ascii(learnt: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = written(tmp_path / "data", [("rouge é", "rot ü")])
    for how in (["predict", str(learnt), "é"], ["evaluate", str(learnt), *files, "--examples", "1"]):
        assert printed(capfd, "translate", *how, "--json").isascii(), how


def test_a_translation_of_several_lines_is_printed_on_one(
    learnt: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    several = "eins\nzwei\r\ndrei\u2028vier"
    monkeypatch.setattr("refllm.commands.rewriting.written", lambda _, texts, **__: [several] * len(texts))
    predict = ["translate", "predict", str(learnt), "one\ntwo", "red"]
    assert printed(capfd, *predict) == 2 * "eins zwei drei vier\n"
    for line in printed(capfd, *predict, "--json").splitlines():
        assert json.loads(line)["translation"] == several
    shown = printed(capfd, "translate", "evaluate", str(learnt), "--examples", "1").splitlines()
    assert f"{'4 beams':<20}eins zwei drei vier" in shown


@pytest.mark.optional
def test_a_bleu_that_is_0_even_for_the_wanted_texts_is_told(
    learnt: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The language has texts of three words alone; two of them in one are the first with four."""
    if not has_sacrebleu():
        pytest.skip("sacrebleu is not installed")
    assert TOO_SHORT in printed(capfd, "translate", "evaluate", str(learnt))
    longer = [*PAIRS[:4], (f"{PAIRS[4][0]} {PAIRS[5][0]}", f"{PAIRS[4][1]} {PAIRS[5][1]}")]
    files = written(tmp_path / "longer", longer)
    assert TOO_SHORT not in printed(capfd, "translate", "evaluate", str(learnt), *files)


def test_an_evaluation_shows_examples_that_nobody_chose(learnt: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = printed(capfd, "translate", "evaluate", str(learnt), "--examples", "2")
    assert out.count("\nwanted ") == out.count("word by word  ") - 1 == 2
    assert ("BLEU" in out.splitlines()[2]) == has_sacrebleu()
    assert has_sacrebleu() or "BLEU and chrF need sacrebleu" in out


@pytest.mark.every
def test_pairs_that_were_learnt_from_are_told(learnt: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = written(tmp_path / "same")
    out = printed(capfd, "translate", "evaluate", str(learnt), *files)
    assert f"{len(PAIRS)} texts by" in out
    assert f" of {len(PAIRS)})\n" in out.partition("(sources that stand in the training pairs too: ")[2]


def test_without_the_training_pairs_only_the_dictionary_is_missing(
    learnt: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, refused: Refused
) -> None:
    files = written(tmp_path / "same", PAIRS[:4])
    kept = {path: path.read_text() for path in (learnt.parent / "data").iterdir()}
    for path in kept:
        path.unlink()
    try:
        found = json.loads(printed(capfd, "translate", "evaluate", str(learnt), *files, "--json"))
        assert list(found["scores"]) == ["greedy", "4 beams", "copy of the source"]
        assert "does not exist" in refused("translate", "evaluate", str(learnt))
    finally:
        for path, text in kept.items():
            path.write_text(text)


def test_a_fit_that_is_interrupted_goes_on_by_its_own_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], refused: Refused
) -> None:
    files = written(tmp_path / "data")
    out = str(tmp_path / "run")
    assert main(["translate", "fit", *files, "--steps", "2", "--reports", "1", "--out", out, *TINY]) == 0
    assert "nothing left to do" in printed(capfd, "translate", "fit", "--resume", out)
    assert "is a run of translate" in refused("summarise", "fit", "--resume", out)
    assert "go on with it by refllm translate fit --resume" in refused("train", "--resume", out)
    assert "leave out --lr" in refused("translate", "fit", "--resume", out, "--lr", "3")
    assert "will not be overwritten" in refused("translate", "fit", *files, "--out", out, *TINY)


def test_every_flag_of_the_model_reaches_the_run_and_only_dropout_changes_one_that_is_begun_from(
    tmp_path: Path, refused: Refused
) -> None:
    files = written(tmp_path / "data")
    how = [*files, "--steps", "1", "--reports", "1"]
    flags = ["--norm", "post", "--positions", "relative", "--hidden", "24", "--no-tied", "--gated", "--no-biases"]
    flags += ["--activation", "silu", "--label-smoothing", "0.25", "--head-width", "6"]
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert main(["translate", "fit", *how, "--out", first, *TINY, *flags]) == 0
    run = load_model(Path(first), "cpu")
    wanted = {
        "norm": "post", "positions": "relative", "hidden": 24, "tied": False, "gated": True, "biases": False,
        "activation": "silu", "head_width": 6, "context": 24, "dropout": 0.0,
    }  # fmt: skip
    assert wanted.items() <= run.config.as_dict().items()
    assert run.description["smoothing"] == 0.25
    also = ["--from", first, "--threads", "1"]
    assert main(["translate", "fit", *how, "--out", second, *also, "--dropout", "0.5"]) == 0
    assert load_model(Path(second), "cpu").config.as_dict() == {**run.config.as_dict(), "dropout": 0.5}
    assert "--width is that of the run" in refused("translate", "fit", *how, *also, "--width", "8")
    assert "--vocabulary is that of the run" in refused("translate", "fit", *how, *also, "--vocabulary", "300")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder-decoder that has hardly learnt to mend texts."""
    folder = tmp_path_factory.mktemp("pretrained")
    (folder / "text.md").write_text("\n\n".join(f"{a} is {b}. {b} is {a}." for a, b in PAIRS))
    with pytest.MonkeyPatch.context() as patch:
        leave_the_allocator_alone(patch)
        how = ["--data", str(folder / "text.md"), "--steps", "2", "--reports", "1", "--out", str(folder / "run"), *TINY]
        assert main(["pretrain", "--model", "encoder_decoder", *how]) == 0
    return str(folder / "run")


# Of width 16 and hidden width 64: the last layer of the decoder with its norm; a pair of thin matrices for each matrix
# of the three attentions (the embedding has one too), where Wkv of the one to the source has 32 columns.
LAYER = 3 * 2 * 16 + 2 * 4 * (16 * 16 + 16) + (16 * 64 + 64) + (64 * 16 + 16) + 2 * 16
ADAPTERS = 2 * (2 * ((16 + 48) + (16 + 16)) + (16 + 16) + (16 + 32) + (16 + 16))


@pytest.mark.one_in(6)
@pytest.mark.parametrize(
    ("tune", "flags", "factor", "trained"),
    [
        ("all", [], 0.5, None), ("upper", ["--upper", "1"], 1, LAYER),
        ("low-rank", ["--rank", "2", "--alpha", "4"], 2, ADAPTERS),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["translate", "summarise"])
def test_a_pre_trained_encoder_decoder_is_tuned_and_gone_on_with(
    command: str, tune: str, flags: list[str], factor: float, trained: int | None, pretrained: str, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = str(tmp_path / "run")
    how = ["--from", pretrained, "--tune", tune, *flags, "--steps", "3", "--reports", "1", "--threads", "1"]
    shown = printed(capfd, command, "fit", *written(tmp_path / "data"), *how, "--out", out)
    run = Run.resume(Path(out), Workers)
    whole = count(encoder_decoder.shapes(run.task.config))
    trained = trained or whole
    if tune == "low-rank":
        trained += 2 * (run.task.config.vocabulary + 16)  # the embedding's
    assert f"encoder_decoder from {pretrained}, {whole:,} parameters: 1 + 1 layers, width 16, context 24, " in shown
    assert f"\ntraining   {trained:,} parameters ({100 * trained / whole:.3g} % of the model's), at most 3 st" in shown
    assert run.description["tuning"]["tune"] == tune
    assert run.settings.lr == PRESETS[command]["lr"] * factor
    assert "nothing left to do" in printed(capfd, command, "fit", "--resume", out)
    assert len(printed(capfd, command, "predict", out, "one two", "red", "--threads", "1").splitlines()) == 2


def test_a_part_that_cannot_be_trained_is_refused(
    tmp_path: Path, learnt: Path, trained: Path, refused: Refused
) -> None:
    fit = ["translate", "fit", *written(tmp_path / "data"), "--out", "new"]
    begun = [*fit, "--from", str(learnt)]
    for arguments, says in (
        ([*fit, "--tune", "upper"], "--tune upper needs a trained model; give its run by --from, or tune all"),
        ([*fit, "--rank", "2"], "--rank belongs to --tune low-rank; leave it out, or give that"),
        ([*begun, "--upper", "1", "--tune", "low-rank"], "--upper belongs to --tune upper; leave it out, or give that"),
        ([*begun, "--tune", "upper", "--upper", "2"], "the upper layers must be between 0 and the model's 1, got 2"),
        ([*begun, "--tune", "low-rank", "--rank", "99"], "rank must be at least 1, and below"),
        ([*begun, "--tune", "low-rank", "--alpha", "0"], "alpha must be a positive number, got 0.0"),
        ([*fit, "--from", str(trained)], "is a run of gpt, and this one begins from one of encoder_decoder"),
        ([*fit, "--label-smoothing", "1"], "smoothing of the labels must be at least 0 and below 1, got 1.0"),
        ([*fit, "--label-smoothing", "nan"], "smoothing of the labels must be at least 0 and below 1, got nan"),
        (["translate", "fit", "--resume", str(learnt), "--tune", "all"], "leave out --tune"),
        (["translate", "fit", "--resume", str(learnt), "--label-smoothing", "0"], "leave out --label-smoothing"),
    ):
        assert says in refused(*arguments), arguments


def test_few_pairs_get_a_small_vocabulary(tmp_path: Path) -> None:
    how = ["--steps", "1", "--reports", "1", "--out", str(tmp_path / "run")]
    sizes = [word for word in TINY if word not in ("--vocabulary", "280")]
    assert main(["translate", "fit", *written(tmp_path / "data"), *how, *sizes]) == 0
    text = sum(len(a) + len(b) for a, b in PAIRS)
    assert 261 < load_model(tmp_path / "run", "cpu").tokenizer.size < 261 + text / 50


def test_bad_pairs_are_refused_with_file_and_line(tmp_path: Path, learnt: Path, refused: Refused) -> None:
    source, target = written(tmp_path / "data")
    shorter, empty = tmp_path / "shorter.de", tmp_path / "empty.de"
    shorter.write_text("eins\n")
    empty.write_text("".join("\n" if n == 6 else f"{pair[1]}\n" for n, pair in enumerate(PAIRS)))
    (tmp_path / "latin.de").write_bytes("grün\n".encode("latin-1"))
    (tmp_path / "t.csv").write_text("source,goal\na,b\n")
    table, rows = str(tmp_path / "t.csv"), str(tmp_path / "t.jsonl")
    Path(rows).write_text('{"source": "a", "target": "b"}\n{"source": "a", "target": " "}\n')
    fit = ["fit", "--out", str(tmp_path / "new")]
    for how in (["translate", *fit], ["summarise", *fit], ["translate", "evaluate", str(learnt)]):
        told = refused(*how, source, str(shorter))
        assert f"{source}:2: the other file ends before this line: {source} has {len(PAIRS)} lines and " in told
        assert f"{empty}:7: the line is empty" in refused(*how, source, str(empty))
        assert "latin.de:1 is not UTF-8" in refused(*how, source, str(tmp_path / "latin.de"))
        assert "t.csv:1: the column 'target' is not among source, goal" in refused(*how, table)
        assert "t.jsonl:2: the target is empty; fill it in or take the line out" in refused(*how, rows)
        assert f"{source}: give two parallel files alone" in refused(*how, source)
    assert "there is nothing to learn from" in refused("translate", "fit")
    assert "fits the context of 2 tokens" in refused("translate", "fit", source, target, *TINY, "--context", "2")
    assert "epochs must be a finite number above 0" in refused(
        "translate", "fit", source, target, *TINY, "--epochs", "0"
    )


def test_bad_texts_are_refused_with_file_and_line(
    learnt: Path, trained: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = ["translate", "predict"]
    (tmp_path / "texts.txt").write_text("one\n\ntwo\n")
    (tmp_path / "long.txt").write_text("one\n" + "two " * 40 + "\n")
    assert "texts.txt:2: the text is empty" in refused(*predict, str(learnt), "--file", str(tmp_path / "texts.txt"))
    told = refused(*predict, str(learnt), "--file", str(tmp_path / "long.txt"))
    assert "long.txt:2: the text has" in told
    assert "the model reads 24 at once; shorten it" in told
    assert "argument:2: the text is empty" in refused(*predict, str(learnt), "one", " ")
    assert "argument:1: not UTF-8 text; give it in UTF-8" in refused(*predict, str(learnt), "caf\udce9")
    (tmp_path / "latin.txt").write_bytes("one\ngrün\n".encode("latin-1"))
    assert "latin.txt:2 is not UTF-8" in refused(*predict, str(learnt), "--file", str(tmp_path / "latin.txt"))
    assert "not both" in refused(*predict, str(learnt), "one", "--file", str(tmp_path / "long.txt"))
    assert "beams must be at least 1" in refused(*predict, str(learnt), "one", "--beams", "0")
    assert "is a run of gpt that has learnt no pairs" in refused(*predict, str(trained), "one")
    assert "must not be negative" in refused("translate", "evaluate", str(learnt), "--examples", "-1")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n\xff\n")))
    assert "standard input:2 is not UTF-8" in refused(*predict, str(learnt))


def test_a_language_model_is_not_made_of_a_translation(learnt: Path, refused: Refused) -> None:
    for command in (["generate", str(learnt)], ["score", str(learnt), "--text", "one two"], ["chat", str(learnt)]):
        assert "does not predict the next token" in refused(*command)


def test_the_baseline_knows_every_word(learnt: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = written(tmp_path / "words", list(WORDS.items()))
    found = json.loads(printed(capfd, "translate", "evaluate", str(learnt), *files, "--json", "--examples", "6"))
    assert [one["word by word"] for one in found["examples"]] == list(WORDS.values())
    assert tiny.contents(learnt).keys() >= {"summary.json", "metrics.jsonl"}
