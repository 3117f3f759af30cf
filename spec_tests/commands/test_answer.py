"""Laws of `refllm answer`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refllm.cli import main
from refllm.models import bert
from refllm.parameters import count
from refllm.presets import FIT_SETTINGS, rates
from refllm.run import Run
from refllm.trained import load_model
from refllm.workers import Workers
from spec_tests.commands.conftest import Refused, leave_the_allocator_alone
from spec_tests.tasks.test_span import ROWS, written

TINY = [
    "--layers", "1", "--heads", "2", "--width", "16", "--context", "40", "--batch", "16", "--vocabulary", "120",
    "--dropout", "0", "--threads", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt where people live."""
    folder = tmp_path_factory.mktemp("answer")
    with pytest.MonkeyPatch.context() as patch:
        leave_the_allocator_alone(patch)
        how = ["--epochs", "60", "--reports", "2", "--lr", "1e-2", "--out", str(folder / "run")]
        assert main(["answer", "fit", written(folder), *how, *TINY]) == 0
    return folder / "run"


def printed(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    capfd.readouterr()
    assert main(arguments) == 0
    return capfd.readouterr().out


@pytest.mark.every
def test_answers_about_contexts_that_were_held_out_are_found(learnt: Path) -> None:
    summary = json.loads((learnt / "summary.json").read_text())
    assert summary["exact_match"] > 90
    assert summary["baselines"]["exact_match"] == 0  # a sentence, and the answer is a word of it
    assert 0 < summary["baselines"]["f1"] < 60


def test_the_last_table_of_fit_is_that_of_evaluate_on_what_was_held_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    how = ["--steps", "20", "--reports", "2", "--validation", "0.3", "--out", "r"]
    shown = printed(capfd, "answer", "fit", written(tmp_path), *how, *TINY)
    task = Run.resume(tmp_path / "r", Workers).task
    held_out = tmp_path / "held_out.jsonl"
    rows = [
        {"context": one.context, "question": one.question, "answer": one.answer, "start": one.start}
        for one, _, _ in task.held_out  # type: ignore[attr-defined]
    ]
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    measured = printed(capfd, "answer", "evaluate", "r", str(held_out))
    tables = [
        [line for line in text.splitlines() if line.startswith(("this model", "likeliest sentence"))]
        for text in (shown, measured)
    ]
    assert len(tables[0]) == 2
    assert tables[0] == tables[1]


def test_a_question_is_answered_by_words_of_the_context(
    learnt: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    context, question = "Dora lives in Oslo. Bob does not.", "Where does Dora live?"
    asked = ["answer", "predict", str(learnt), "--question", question]
    assert printed(capfd, *asked, "--context", context) == "Oslo\n"
    (tmp_path / "text.txt").write_text(context)
    out = printed(capfd, *asked, "--question", "Where does Dora live", "--file", str(tmp_path / "text.txt"), "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[0] == {"question": question, "answer": "Oslo"}
    assert lines[1]["answer"] in context
    assert printed(capfd, *asked, "--question", "Où ?", "--context", context, "--json").isascii()


def test_an_answer_that_goes_over_a_line_break_is_printed_on_one_line(
    learnt: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refllm.commands.answering.answers", lambda *_, **__: ["New\nYork"])
    asked = ["answer", "predict", str(learnt), "--question", "Where?", "--context", "Ann lives in New\nYork."]
    assert printed(capfd, *asked) == "New York\n"
    assert json.loads(printed(capfd, *asked, "--json"))["answer"] == "New\nYork"


def test_an_evaluation_shows_exact_match_and_f1_beside_a_baseline(
    learnt: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = written(tmp_path, ROWS[:20])
    found = json.loads(printed(capfd, "answer", "evaluate", str(learnt), data, "--json"))
    assert found["questions"] == 20
    assert found["scores"]["this model"]["exact_match"] > found["scores"]["likeliest sentence"]["exact_match"] == 0
    assert "exact match" in printed(capfd, "answer", "evaluate", str(learnt), data)


def test_a_pre_trained_bert_lends_its_sizes_and_its_tokenizer_and_is_tuned(
    tmp_path: Path, refused: Refused, capfd: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n\n\n".join(f"{row['context']} {row['question']} In {row['answer']}." for row in ROWS))
    small = ["--layers", "1", "--heads", "2", "--width", "8", "--context", "40", "--vocabulary", "120"]
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    how = ["--steps", "1", "--reports", "1", "--threads", "1"]
    assert main(["pretrain", "--model", "bert", "--data", str(text), *small, "--batch", "4", *how, "--out", first]) == 0
    fit = ["answer", "fit", written(tmp_path), "--from", first, *how]
    assert main([*fit, "--out", second]) == 0
    tuned = str(tmp_path / "tuned")
    out = printed(capfd, *fit, "--tune", "low-rank", "--rank", "1", "--out", tuned)
    run = Run.resume(Path(tuned), Workers)
    trained = (8 + 24) + (8 + 8) + (run.task.config.vocabulary + 8) + 2 * 8 + 2  # of Wqkv, Wo, token; a new head
    whole = count(bert.shapes(run.task.config))
    assert f"training   {trained} parameters ({100 * trained / whole:.3g} % of the model's), at most 1 step," in out
    assert run.settings.lr == rates(FIT_SETTINGS["lr"])["low-rank"] == 2e-3
    assert printed(capfd, "answer", "predict", tuned, "--context", "Ann lives.", "--question", "Who lives?").strip()
    assert "the upper layers must be between 0 and" in refused(*fit, "--tune", "upper", "--upper", "2")
    assert "--alpha belongs to --tune low-rank" in refused(*fit, "--tune", "upper", "--alpha", "2")
    assert "leave out --rank" in refused("answer", "fit", "--resume", tuned, "--rank", "1")
    a, b = load_model(Path(first), "cpu"), load_model(Path(second), "cpu")
    assert b.config.as_dict() == {**a.config.as_dict(), "outputs": ["span"]}
    assert a.tokenizer == b.tokenizer
    assert "--width is that of the run" in refused(*fit, "--width", "8")
    assert "is a run of bert that has learnt no answers" in refused(
        "answer", "predict", first, "--context", "a", "--question", "b"
    )


UNFIT: dict[str, tuple[dict[str, str] | bytes, str]] = {
    "no answer": ({"answer": ""}, "q.jsonl:2: the answer is empty; fill it in or take the line out"),
    "no question": ({"question": " "}, "q.jsonl:2: the question is empty; fill it in"),
    "no context": ({"context": ""}, "q.jsonl:2: the context is empty; fill it in"),
    "elsewhere": ({"start": "3"}, "q.jsonl:2: the answer 'Graz' does not stand in the context at character 3"),
    "no column": (b'{"context": "a", "question": "b"}\n', "q.jsonl:2: there is no 'answer'; every line needs it"),
    "encoding": (b"caf\xe9\n", "q.jsonl:2 is not UTF-8 text: byte "),
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("second", "says"), UNFIT.values(), ids=UNFIT)
def test_bad_questions_are_refused_with_file_and_line(
    learnt: Path, tmp_path: Path, refused: Refused, second: dict[str, str] | bytes, says: str
) -> None:
    line = second if isinstance(second, bytes) else json.dumps({**ROWS[1], **second}).encode()
    (tmp_path / "q.jsonl").write_bytes(json.dumps(ROWS[0]).encode() + b"\n" + line)
    for how in (["fit", "--out", "new"], ["evaluate", str(learnt)]):
        assert says in refused("answer", *how, "q.jsonl")


def test_questions_longer_than_the_model_are_refused_with_file_and_line(
    learnt: Path, tmp_path: Path, refused: Refused
) -> None:
    rows = [ROWS[0], {**ROWS[0], "context": f"{ROWS[0]['context']} " * 20}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "q.jsonl:2: context and question have" in refused("answer", "evaluate", str(learnt), "q.jsonl")
    (tmp_path / "long.txt").write_text("Ann lives. " * 30)
    told = refused("answer", "predict", str(learnt), "--file", "long.txt", "--question", "Who?")
    assert "long.txt:1: context and question have" in told


def test_mistakes_are_refused_in_one_line(learnt: Path, trained: Path, tmp_path: Path, refused: Refused) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps({**ROWS[1], "answer": "Moon"}) + "\n")
    assert "bad.jsonl:2: the answer 'Moon' does not stand in the context" in refused("answer", "fit", str(bad))
    assert "--tune upper needs a trained model" in refused("answer", "fit", str(bad), "--tune", "upper")
    assert "there is nothing to learn from" in refused("answer", "fit")
    ask = ["answer", "predict", str(learnt), "--question", "Where?"]
    assert "--context: the text is empty" in refused(*ask, "--context", " ")
    assert "and the model reads 40 at once; shorten the context" in refused(*ask, "--context", "Ann lives. " * 30)
    assert "--context: not UTF-8 text; give it in UTF-8" in refused(*ask, "--context", "caf\udce9")
    assert "--question: not UTF-8 text" in refused(*ask, "--question", "\udce9", "--context", "a")
    assert "the context has no word" in refused(*ask, "--context", "\u00ad")
    assert "is a run of gpt that has learnt no answers" in refused(
        "answer", "evaluate", str(trained), written(tmp_path)
    )
    assert "threads must be at least 1" in refused("answer", "evaluate", str(learnt), str(bad), "--threads", "0")
    assert "go on with it by refllm answer fit --resume" in refused("train", "--resume", str(learnt))
