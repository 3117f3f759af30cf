"""Laws of `refllm score`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from refllm.cli import main
from refllm.models import gpt
from refllm.objectives.causal import sentence_log_probability
from refllm.trained import load_model
from spec_tests import tiny
from spec_tests.commands.conftest import Refused

SHORT, LONG = "2 times 3 is 6.", "2 times 3 is 6.\n3 times 4 is 12.\n4 times 5 is 20.\n"


def scored(run: Path, text: str, capfd: pytest.CaptureFixture[str]) -> Any:
    capfd.readouterr()
    assert main(["score", str(run), "--text", text, "--each", "--json"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    return json.loads(out)


def test_the_score_is_the_chain_rule_in_every_form(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = load_model(trained, "cpu")
    p, config, tokenizer = found.parameters, found.config, found.tokenizer
    ids = tokenizer.encode(SHORT)[None]
    logits, _ = gpt.forward(p, ids=ids[:, :-1], config=config, dropout_mask=None, cache=None)
    log_p = float(sentence_log_probability(logits, ids=ids[:, 1:], ignore=None)[0])
    n = len(SHORT) - 1
    result = scored(trained, SHORT, capfd)
    assert result["tokens"] == n
    assert result["log_probability"] == pytest.approx(log_p, rel=1e-6)
    assert result["perplexity"] == pytest.approx(math.exp(-log_p / n), rel=1e-6)
    assert result["bits_per_character"] == pytest.approx(-log_p / n / math.log(2), rel=1e-6)
    assert "".join(one["token"] for one in result["each"]) == SHORT[1:]
    assert math.fsum(one["log_probability"] for one in result["each"]) == pytest.approx(log_p, rel=1e-6)


def test_a_text_longer_than_the_context_has_every_token_but_the_first_scored_once(
    trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = scored(trained, LONG, capfd)
    assert "".join(one["token"] for one in result["each"]) == LONG[1:]
    short = scored(trained, LONG[:17], capfd)  # the first window has the same context
    assert [one["log_probability"] for one in short["each"]] == pytest.approx(
        [one["log_probability"] for one in result["each"][:16]], rel=1e-5
    )


def test_plain_output_has_a_line_a_token_and_the_total(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["score", str(trained), "--text", "2 times", "--each"]) == 0
    *each, total = capfd.readouterr().out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in each] == [repr(c) for c in " times"]
    assert total.startswith("log P = -")
    assert "over 6 tokens after the first; perplexity" in total


def test_a_file_scores_as_its_text(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text(LONG)
    capfd.readouterr()
    assert main(["score", str(trained), "--file", "text.txt", "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    whole = scored(trained, LONG, capfd)
    assert result == {k: v for k, v in whole.items() if k != "each"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (["--text", ""], "the text must have at least two tokens"),
        (["--text", "2"], "the text must have at least two tokens"),
        (["--text", "2 é"], "character 'é' (U+00E9) at position 2 is not in the vocabulary"),
        (["--file", "missing.txt"], "missing.txt does not exist; check the path"),
    ],
)
def test_what_cannot_be_scored_is_refused(run: Path, refused: Refused, source: list[str], says: str) -> None:
    assert says in refused("score", str(run), *source)


def test_a_text_that_its_tokens_do_not_give_back_has_no_bits_per_character(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "ngram", "--tokenizer", "word", "--vocabulary", "12"]
    assert main(["train", "--data", str(tiny.data(tmp_path)), "--out", "words", *words]) == 0
    result = scored(Path("words"), "2 times zorb plix", capfd)
    assert "bits_per_character" not in result
    assert result["unknown"] == pytest.approx(2 / 3)  # of the tokens after the first
    assert result["bits_per_token"] == pytest.approx(math.log2(result["perplexity"]))
    assert main(["score", "words", "--text", "2 times zorb plix"]) == 0
    assert "bits per token, 66.7 % of them unknown words" in capfd.readouterr().out
    assert "bits_per_character" in scored(Path("words"), "times is", capfd)  # words that it knows, a space between


@pytest.fixture(scope="module")
def of_bytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("bytes")
    how = ["--model", "ngram", "--vocabulary", "256", "--out", str(folder / "run")]
    assert main(["train", "--data", str(tiny.data(folder)), *how]) == 0
    return folder / "run"


@pytest.mark.parametrize(("text", "characters"), [("龘", 1), ("龘a", 2), ("a龘", 1), ("é", 1), ("🙂🙂", 2), ("ab", 1)])
def test_a_character_of_several_tokens_counts_where_it_is_completed(
    of_bytes: Path, text: str, characters: int, capfd: pytest.CaptureFixture[str]
) -> None:
    result = scored(of_bytes, text, capfd)
    assert result["tokens"] == len(text.encode()) - 1
    bits = -result["log_probability"] / math.log(2)
    assert result["bits_per_character"] == pytest.approx(bits / characters)


def test_the_pieces_of_a_character_are_told_apart(of_bytes: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert [one["token"] for one in scored(of_bytes, "a龘\n", capfd)["each"]] == ["<E9>", "<BE>", "<98>", "\n"]
    assert main(["score", str(of_bytes), "--text", "a龘\n", "--each"]) == 0
    lines = capfd.readouterr().out.splitlines()[:-1]
    assert [line.split(maxsplit=1)[1] for line in lines] == ["'<E9>'", "'<BE>'", "'<98>'", "'\\n'"]
