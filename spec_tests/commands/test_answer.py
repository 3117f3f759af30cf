"""Laws of `refllm answer`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refllm.cli import main
from refllm.run import load_model
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


def test_answers_about_contexts_that_were_held_out_are_found(learnt: Path) -> None:
    summary = json.loads((learnt / "summary.json").read_text())
    assert summary["exact_match"] > 90
    assert summary["baselines"]["exact_match"] == 0  # a sentence, and the answer is a word of it
    assert 0 < summary["baselines"]["f1"] < 60


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


def test_an_evaluation_shows_exact_match_and_f1_beside_a_baseline(
    learnt: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = written(tmp_path, ROWS[:20])
    found = json.loads(printed(capfd, "answer", "evaluate", str(learnt), data, "--json"))
    assert found["questions"] == 20
    assert found["scores"]["this model"]["exact_match"] > found["scores"]["likeliest sentence"]["exact_match"] == 0
    assert "exact match" in printed(capfd, "answer", "evaluate", str(learnt), data)


def test_a_pre_trained_bert_lends_its_sizes_and_its_tokenizer(tmp_path: Path, refused: Refused) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n\n\n".join(f"{row['context']} {row['question']} In {row['answer']}." for row in ROWS))
    small = ["--layers", "1", "--heads", "2", "--width", "8", "--context", "40", "--vocabulary", "120"]
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    how = ["--steps", "1", "--reports", "1", "--threads", "1"]
    assert main(["pretrain", "--model", "bert", "--data", str(text), *small, "--batch", "4", *how, "--out", first]) == 0
    fit = ["answer", "fit", written(tmp_path), "--from", first, *how]
    assert main([*fit, "--out", second]) == 0
    a, b = load_model(Path(first), "cpu"), load_model(Path(second), "cpu")
    assert b.config.as_dict() == {**a.config.as_dict(), "outputs": ["span"]}
    assert a.tokenizer == b.tokenizer
    assert "--width is that of the run" in refused(*fit, "--width", "8")
    assert "is a run of bert that has learnt no answers" in refused(
        "answer", "predict", first, "--context", "a", "--question", "b"
    )


def test_mistakes_are_refused_in_one_line(learnt: Path, trained: Path, tmp_path: Path, refused: Refused) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps({**ROWS[1], "answer": "Moon"}) + "\n")
    assert "bad.jsonl:2: the answer 'Moon' does not stand in the context" in refused("answer", "fit", str(bad))
    assert "there is nothing to learn from" in refused("answer", "fit")
    ask = ["answer", "predict", str(learnt), "--question", "Where?"]
    assert "--context: the text is empty" in refused(*ask, "--context", " ")
    assert "and the model reads 40 at once; shorten the context" in refused(*ask, "--context", "Ann lives. " * 30)
    assert "the context has no word" in refused(*ask, "--context", "\u00ad")
    assert "is a run of gpt that has learnt no answers" in refused(
        "answer", "evaluate", str(trained), written(tmp_path)
    )
    assert "threads must be at least 1" in refused("answer", "evaluate", str(learnt), str(bad), "--threads", "0")
    assert "go on with it by refllm answer fit --resume" in refused("train", "--resume", str(learnt))
