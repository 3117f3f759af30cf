"""Whatever trains does so on several ranks, and cut moments or parameters change no bit of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spec_tests import tiny
from spec_tests.commands.test_answer import TINY as TINY_ANSWER
from spec_tests.commands.test_classify import SMALL as SMALL_CLASSIFY
from spec_tests.commands.test_classify import table
from spec_tests.commands.test_following import CUT, LAYERS, arrays, by_mpi, carried_out
from spec_tests.pairs import TINY, written
from spec_tests.tasks.test_classify import ROWS
from spec_tests.tasks.test_denoising import SMALL as SMALL_DENOISING
from spec_tests.tasks.test_masked import SMALL as SMALL_BERT
from spec_tests.tasks.test_masked import written as text
from spec_tests.tasks.test_span import written as questions

MODELS = ("gpt", "llama", "switch", "nnlm", "recurrent_lm", "hybrid")
SIZES = {name: ["--width", "16", "--batch", "5", "--context", "16", "--dropout", "0.1"] for name in MODELS}


def training(model: str) -> Callable[[Path], list[str]]:
    def words(folder: Path) -> list[str]:
        return ["train", "--model", model, "--data", str(tiny.data(folder)), "--tokenizer", "character", *SIZES[model]]

    return words


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    **{model: training(model) for model in MODELS},
    "pretrain bert": lambda folder: ["pretrain", "--model", "bert", "--data", text(folder), *SMALL_BERT],
    "pretrain encoder_decoder": lambda folder: [
        "pretrain", "--model", "encoder_decoder", "--data", str(tiny.data(folder)), *SMALL_DENOISING,
    ],
    "classify": lambda folder: ["classify", "fit", table(folder / "data.csv", ROWS), *SMALL_CLASSIFY],
    "answer": lambda folder: ["answer", "fit", questions(folder), *TINY_ANSWER],
    "translate": lambda folder: ["translate", "fit", *written(folder / "pairs"), *TINY],
    "summarise": lambda folder: ["summarise", "fit", *written(folder / "pairs"), *TINY],
}  # fmt: skip


def trained(words: list[str], out: Path, *flags: str) -> Path:
    how = ["--steps", "3", "--reports", "1", "--clip", "0.05", "--out", str(out)]
    done = carried_out([sys.executable, "-m", "refllm", *words, *how, "--ranks", "2", *flags])
    assert done.returncode == 0, done.stderr
    return out


def require_same(one: Path, other: Path) -> None:
    left, right = arrays(one), arrays(other)
    assert {name: x.tobytes() for name, x in left.items()} == {name: x.tobytes() for name, x in right.items()}


@by_mpi
@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_trains_does_so_on_ranks_whatever_is_cut(tmp_path: Path, command: str) -> None:
    words = COMMANDS[command](tmp_path)
    whole = trained(words, tmp_path / "whole")
    require_same(whole, trained(words, tmp_path / "cut", *CUT))
    if command != "nnlm":  # which has no layers
        require_same(whole, trained(words, tmp_path / "layers", *LAYERS))


@by_mpi
@pytest.mark.slow
def test_a_part_of_a_model_is_tuned_on_ranks(tmp_path: Path) -> None:
    begun = trained(COMMANDS["pretrain bert"](tmp_path), tmp_path / "begun")
    words = [
        "classify",
        "fit",
        table(tmp_path / "data.csv", ROWS),
        "--from",
        str(begun),
        "--tune",
        "low-rank",
        "--rank",
        "2",
    ]
    require_same(trained(words, tmp_path / "whole"), trained(words, tmp_path / "cut", *CUT))
    refused([*words, "--out", str(tmp_path / "layers")])


@by_mpi
@pytest.mark.slow
def test_a_model_without_layers_keeps_its_parameters_whole(tmp_path: Path) -> None:
    refused([*training("nnlm")(tmp_path), "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def refused(words: list[str]) -> None:
    done = carried_out([sys.executable, "-m", "refllm", *words, "--ranks", "2", *LAYERS])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--shard parameters gathers a layer at a time, and what is trained here has none" in done.stderr
