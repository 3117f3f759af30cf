"""Laws of `refllm pretrain`."""

from __future__ import annotations

from pathlib import Path

import pytest

from refllm.cli import main
from spec_tests import tiny
from spec_tests.commands.conftest import Refused
from spec_tests.pairs import written
from spec_tests.tasks.test_denoising import SMALL
from spec_tests.tasks.test_masked import SMALL as SMALL_BERT
from spec_tests.tasks.test_masked import written as text


def test_it_is_train_with_that_model_and_translate_begins_from_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = str(tiny.data(tmp_path))
    how = ["--model", "encoder_decoder", "--data", data, "--steps", "3", "--reports", "1", *SMALL]
    assert main(["pretrain", *how, "--out", "one"]) == 0
    assert main(["train", *how, "--out", "two"]) == 0
    arrays = [
        {name: data for name, data in tiny.contents(Path(run)).items() if name.endswith(".safetensors")}
        for run in ("one", "two")
    ]
    assert arrays[0] == arrays[1] != {}
    capfd.readouterr()
    assert main(["pretrain", "--resume", "one"]) == 0
    assert "nothing left to do" in capfd.readouterr().out
    source, target = written(tmp_path / "pairs", [(f"{n} times", f"{n} is 3.") for n in range(40)])
    fit = ["translate", "fit", source, target, "--from", "one", "--steps", "1", "--reports", "1", "--threads", "1"]
    assert main([*fit, "--validation", "0.2", "--out", "three"]) == 0


@pytest.mark.one_in(4)
@pytest.mark.parametrize("tokenizer", ["byte_pair", "character", "word"])
def test_a_bert_of_any_tokenizer_can_be_made_and_tuned(tmp_path: Path, tokenizer: str) -> None:
    """Its special tokens stand behind those of a tokenizer that has none."""
    how = [
        "--model",
        "bert",
        "--data",
        text(tmp_path),
        "--steps",
        "1",
        "--reports",
        "1",
        "--threads",
        "1",
        *SMALL_BERT[:-2],
    ]
    size = ["--tokenizer", tokenizer, *([] if tokenizer == "character" else ["--vocabulary", "270"])]
    assert main(["pretrain", *how, *size, "--out", "base"]) == 0
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("text,label\n" + "".join(f"{n} times,{'ab'[n % 2]}\n" for n in range(40)))
    fit = ["classify", "fit", str(labelled), "--from", "base", "--steps", "1", "--reports", "1", "--threads", "1"]
    assert main([*fit, "--out", "fine"]) == 0
    assert main(["classify", "predict", "fine", "3 times"]) == 0


@pytest.mark.parametrize("model", [[], ["--model", "gpt"]])
def test_another_model_is_refused(model: list[str], refused: Refused) -> None:
    assert "--model bert or --model encoder_decoder" in refused("pretrain", *model)
