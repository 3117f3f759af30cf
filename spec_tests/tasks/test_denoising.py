"""Laws of the encoder-decoder's pre-training as a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.cli import main
from refllm.errors import UserError
from refllm.models import encoder_decoder
from refllm.ops.softmax import log_softmax
from refllm.parameters import map_leaves
from refllm.run import Run
from refllm.tasks import load
from refllm.tasks.denoising import TextInfilling
from refllm.tokenizers import CharacterTokenizer
from refllm.tokenizers.marked import MarkedTokenizer
from refllm.workers import Workers
from spec_tests import tiny

SMALL = [
    "--encoder-layers", "1", "--decoder-layers", "1", "--heads", "2", "--width", "8", "--context", "16", "--tokenizer",
    "character", "--batch", "4", "--threads", "1",
]  # fmt: skip


def task(folder: Path) -> TextInfilling:
    tokenizer = MarkedTokenizer(CharacterTokenizer.train(tiny.TEXT))
    config = encoder_decoder.Config(
        vocabulary=tokenizer.size, context=16, encoder_layers=1, decoder_layers=1, heads=2, head_width=4, width=8,
        hidden=8,
    )  # fmt: skip
    return TextInfilling(config=config, tokenizer=tokenizer, data=[str(tiny.data(folder))])


def test_the_validation_is_the_loss_of_each_window_alone(tmp_path: Path) -> None:
    made = task(tmp_path)
    p: Any = encoder_decoder.initial(made.config, numpy.random.default_rng(0))
    p = map_leaves(lambda x: x + 0.3 * numpy.random.default_rng(x.size).standard_normal(x.shape), p)
    with Workers(2) as workers:
        measured = made.validate(p, device="cpu", workers=workers)
    nll, tokens = 0.0, 0
    for batch in made.held_out:
        for source, attention_mask, ids in zip(batch["source"], batch["attention_mask"], batch["ids"], strict=True):
            before = numpy.append(made.tokenizer.special.cls, ids[:-1])
            logits, _ = encoder_decoder.forward(
                p,
                source=source[attention_mask][None],
                attention_mask=None,
                ids=before[None],
                config=made.config,
                dropout_mask=None,
            )
            nll -= log_softmax(logits)[0][0][numpy.arange(len(ids)), ids].sum()
            tokens += len(ids)
    assert measured == {"val_loss": pytest.approx(nll / tokens)}


def test_a_pre_training_is_resumed_bit_for_bit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    how = ["train", "--model", "encoder_decoder", "--data", str(tiny.data(tmp_path)), "--reports", "2", *SMALL]
    assert main([*how, "--steps", "6", "--out", str(tmp_path / "whole")]) == 0
    assert "refllm translate fit SOURCE TARGET --from" in capfd.readouterr().out
    begun = Run.resume(tmp_path / "whole", Workers)
    assert isinstance(begun.task, TextInfilling)
    runs = []
    for name, stop in (("one", None), ("two", 2)):
        run = Run.begin(
            tmp_path / name, task=task(tmp_path), settings=begun.settings, plan=begun.plan, workers=Workers(1)
        )
        tiny.train(run, stop_after=stop)
        runs.append(tiny.train(Run.resume(tmp_path / name, Workers)) if stop else run)
    assert tiny.bits(runs[0]) == tiny.bits(runs[1])
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["model"] == "encoder_decoder"
    assert summary["val_examples"] == summary["val_of"] == 320
    assert {line["val_examples"] for line in tiny.metrics(tmp_path / "whole")} == {64}


def test_another_text_is_refused(tmp_path: Path) -> None:
    description = task(tmp_path).describe()
    (tmp_path / "text.txt").write_text(tiny.TEXT + "More.\n")
    with pytest.raises(UserError, match="not the text that the run began with"):
        load(description)
