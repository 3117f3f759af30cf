"""Published models in the place of runs of translate, summarise and answer; what does not fit is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.cli import main
from refllm.data.questions import asked
from refllm.models import bert
from refllm.trained import load_model
from spec_tests.commands.conftest import Refused
from spec_tests.commands.test_published import PIECES, SIZES, encoder, language, rewriter, write

__all__ = ["encoder", "language", "rewriter"]  # fixtures
CONTEXT, QUESTION = "good very bad a b c d e.", "not bad a"


@pytest.fixture
def pointer(tmp_path: Path) -> Path:
    config = bert.Config(**{**SIZES, "vocabulary": len(PIECES)}, outputs=("span",))
    return write(tmp_path / "pointer", "bert", config, {"vocab.txt": "\n".join(PIECES) + "\n"})


def out_of(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    capfd.readouterr()
    assert main(list(arguments)) == 0
    return capfd.readouterr().out


@pytest.mark.parametrize(("command", "name", "beams"), [("translate", "translation", 3), ("summarise", "summary", 1)])
def test_a_published_encoder_decoder_writes_what_generate_writes(
    rewriter: Path, command: str, name: str, beams: int, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer: Any = load_model(rewriter, "cpu").tokenizer
    texts = ["the a b", "b"]
    found = out_of(capfd, command, "predict", str(rewriter), *texts, "--beams", str(beams), "--json").splitlines()
    for text, line in zip(texts, found, strict=True):
        tokens = str(2 * len(tokenizer.marked(text)) + 20)
        wanted = out_of(
            capfd, "generate", str(rewriter), "--prompt", text, "--tokens", tokens, "--beams", str(beams), "--greedy"
        )
        assert json.loads(line) == {"text": text, name: wanted.removesuffix("\n")}


def test_a_published_encoder_decoder_is_measured_on_pairs_that_are_given(
    rewriter: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], refused: Refused
) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("source,target\nthe a b,a\nb the,b\n" + "x" * 40 + ",y\n")
    found = json.loads(out_of(capfd, "translate", "evaluate", str(rewriter), str(pairs), "--beams", "2", "--json"))
    assert found["texts"] == 2
    assert {"greedy", "2 beams", "copy of the source"} == set(found["scores"])
    assert "without its pairs; give pairs" in refused("translate", "evaluate", str(rewriter))


def test_a_published_model_points_at_the_best_span(pointer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = load_model(pointer, "cpu")
    read = asked(CONTEXT, QUESTION, tokenizer=run.tokenizer)
    h, _ = bert.encode(
        run.parameters, ids=read.ids[None], segments=read.segments[None], attention_mask=None, config=run.config,
        dropout_mask=None,
    )  # fmt: skip
    start, end = numpy.moveaxis(bert.span_logits(h, run.parameters)[0][0], -1, 0)
    inside = range(read.begin, read.begin + len(read.characters))
    first, last = max(((i, j) for i in inside for j in inside if i <= j), key=lambda at: start[at[0]] + end[at[1]])
    wanted = CONTEXT[read.characters[first - read.begin][0] : read.characters[last - read.begin][1]]
    arguments = ["answer", "predict", str(pointer), "--context", CONTEXT, "--question", QUESTION, "--json"]
    assert json.loads(out_of(capfd, *arguments)) == {"question": QUESTION, "answer": wanted}


def test_what_a_published_model_cannot_do_is_one_line(
    language: Path, encoder: Path, rewriter: Path, refused: Refused
) -> None:
    asking = ["--context", "good", "--question", "bad"]
    for directory in (language, encoder):
        assert "or a published encoder-decoder" in refused("translate", "predict", str(directory), "a")
    for directory in (language, encoder, rewriter):
        assert "a published model of" in refused("answer", "predict", str(directory), *asking)
    for directory in (encoder, rewriter):
        assert refused("classify", "predict", str(directory), "a", "--labels", "good", "bad").count("\n") <= 1
    line = refused("answer", "fit", "questions.csv", "--from", str(rewriter))
    assert "is a published model of encoder_decoder, and this one begins from one of bert" in line


def test_a_tokenizer_without_the_special_tokens_that_are_needed_is_named(pointer: Path, refused: Refused) -> None:
    (pointer / "vocab.txt").write_text("\n".join(["x" if piece == "[MASK]" else piece for piece in PIECES]) + "\n")
    line = refused("answer", "predict", str(pointer), "--context", "good", "--question", "bad")
    assert "the tokenizer has no [MASK]" in line


def test_attention_of_a_published_encoder_decoder_is_shown(
    rewriter: Path, capfd: pytest.CaptureFixture[str], refused: Refused
) -> None:
    for more in ([], ["--target", "b a"]):
        found = json.loads(out_of(capfd, "explain", str(rewriter), "the a", "--json", *more))
        names = {one["name"] for one in found["attention"]}
        assert names == {"encoder.1", "encoder.2", "decoder.1", "cross.1"}
    assert "shorten it" in refused("explain", str(rewriter), "xyz" * 33)


def test_two_labels_of_one_name_are_refused(tmp_path: Path, refused: Refused) -> None:
    config = bert.Config(**{**SIZES, "vocabulary": len(PIECES)}, outputs=("classes",), labels=3)
    named = {"0": "good", "1": "bad", "2": "good"}
    write(tmp_path / "labels", "bert", config, {"vocab.txt": "\n".join(PIECES) + "\n"}, id2label=named)
    assert "id2label gives 2 labels the name 'good'" in refused("classify", "predict", str(tmp_path / "labels"), "a")
