"""Laws of BERT's pre-training as a task: what is measured, resuming, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.cli import main
from refllm.errors import UserError
from refllm.models import bert
from refllm.parameters import map_leaves
from refllm.run import Run
from refllm.tasks import load
from refllm.tasks.masked import MaskedPretraining
from refllm.tokenizers.wordpiece import WordPieceTokenizer
from refllm.workers import Workers
from spec_tests import tiny

# Documents about one number each, sentences that belong together: what a pair can be told from.
TEXT = "\n\n".join(
    f"Chapter {n}\n=========\n\n" + " ".join(f"The number {n} times {m} makes {n * m}." for m in range(1, 13))
    for n in range(1, 41)
)
SMALL = ["--layers", "1", "--heads", "2", "--width", "8", "--hidden", "8", "--context", "32", "--vocabulary", "80"]


def written(folder: Path) -> str:
    path = folder / "text.txt"
    path.write_text(TEXT)
    return str(path)


def task(folder: Path) -> MaskedPretraining:
    tokenizer = WordPieceTokenizer.train(TEXT, vocabulary=80, lower=True)
    config = bert.Config(vocabulary=tokenizer.size, context=32, layers=1, heads=2, width=8, hidden=8)
    return MaskedPretraining(config=config, tokenizer=tokenizer, data=[written(folder)], pairing="next")


def test_the_shares_that_are_right_are_those_of_the_logits(tmp_path: Path) -> None:
    """Counted place by place; and the loss is the objective's over all pairs."""
    made = task(tmp_path)
    p: Any = bert.initial(made.config, numpy.random.default_rng(0))
    p = map_leaves(lambda x: x + 0.3 * numpy.random.default_rng(x.size).standard_normal(x.shape), p)
    with Workers(2) as workers:
        measured = made.validate(p, device="cpu", workers=workers)
    right, places, right_pairs, pairs = 0, 0, 0, 0
    for batch in made.held_out:
        h, _ = bert.encode(
            p,
            ids=batch["ids"],
            segments=batch["segments"],
            attention_mask=batch["attention_mask"],
            config=made.config,
            dropout_mask=None,
        )
        logits, _ = bert.masked_logits(h, p, config=made.config)
        for b, (where, wanted) in enumerate(zip(batch["positions"], batch["targets"], strict=True)):
            for t, word in zip(where, wanted, strict=True):
                places += word >= 0
                right += word >= 0 and logits[b, t].argmax() == word
        answers, _ = bert.pair_logits(h, p)
        right_pairs += int((answers.argmax(axis=-1) == batch["pair"]).sum())
        pairs += len(answers)
    assert measured["masked_accuracy"] == pytest.approx(right / places)
    assert measured["pair_accuracy"] == pytest.approx(right_pairs / pairs)
    assert 0 < places < sum(batch["ids"].size for batch in made.held_out) / 4
    guess = made.baselines()
    assert 0 < guess["masked_accuracy"] < 1
    assert 0.5 <= guess["pair_accuracy"] < 0.7


@pytest.mark.every
def test_a_pre_training_is_resumed_bit_for_bit_and_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = written(tmp_path)
    how = ["train", "--model", "bert", "--data", data, "--batch", "8", "--reports", "2", "--threads", "2", *SMALL]
    assert main([*how, "--steps", "6", "--out", str(tmp_path / "whole")]) == 0
    assert "masked words right" in capfd.readouterr().out
    begun = Run.resume(tmp_path / "whole", Workers)
    assert isinstance(begun.task, MaskedPretraining)
    made = task(tmp_path)
    runs = []
    for name, stop in (("one", None), ("two", 2)):
        run = Run.begin(tmp_path / name, task=made, settings=begun.settings, plan=begun.plan, workers=Workers(2))
        tiny.train(run, stop_after=stop)
        runs.append(tiny.train(Run.resume(tmp_path / name, Workers)) if stop else run)
    assert tiny.bits(runs[0]) == tiny.bits(runs[1])
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary.keys() >= {"masked_accuracy", "pair_accuracy", "val_loss", "baselines"}


def test_another_text_is_refused(tmp_path: Path) -> None:
    made = task(tmp_path)
    description = made.describe()
    (tmp_path / "text.txt").write_text(TEXT + " More.")
    with pytest.raises(UserError, match="not the text that the run began with"):
        load(description)


def test_every_file_of_a_folder_is_a_text_of_its_own_and_the_tokenizer_knows_no_border(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for n in range(40):
        sentences = "".join(f"The number {n} times {m} makes {n * m}.\n" for m in range(18))
        (tmp_path / "texts" / f"{n}.txt").write_text(sentences)
    how = ["--data", str(tmp_path / "texts"), "--steps", "1", "--threads", "1", "--out", str(tmp_path / "run")]
    kind = [*SMALL[:-2], "--tokenizer", "character"]
    assert main(["pretrain", "--model", "bert", *how, *kind]) == 0
    run = Run.resume(tmp_path / "run", Workers)
    assert isinstance(run.task, MaskedPretraining)
    assert 35 <= len(run.task.documents) <= 36
    assert "\0" not in run.task.tokenizer.inner.vocabulary
