"""Laws of the flags that say what is trained."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.cli import main
from refllm.commands.choices import ARCHITECTURE, SWITCHES, shared_heads
from refllm.models import by_name
from refllm.presets import DEFAULT_MODEL, MODELS, PRESETS
from refllm.trained import load_model
from spec_tests import tiny
from spec_tests.commands.conftest import Refused

SMALL = {"layers": "2", "heads": "2", "width": "8", "hidden": "8", "context": "16", "kv_heads": "1", "order": "3"}
WITHOUT_STEPS_OR_TEXT = ("ngram", "bert", "encoder_decoder", "translate")


def small(model: str) -> list[str]:
    """Flags that make a model tiny, of those that it has."""
    choices = by_name(PRESETS[MODELS[model]]["model"]).CHOICES
    flags = [
        word for name, value in SMALL.items() if name in choices for word in (f"--{name.replace('_', '-')}", value)
    ]
    return [*flags, "--tokenizer", "character", "--batch", "4", "--threads", "2"]


@pytest.mark.one_in(12)
@pytest.mark.parametrize("model", [name for name in MODELS if name not in WITHOUT_STEPS_OR_TEXT])
def test_every_model_is_trained_resumed_generated_from_and_scored(
    tmp_path: Path, model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = str(tiny.data(tmp_path))
    assert main(["train", "--model", model, "--data", data, "--steps", "6", "--out", "r", *small(model)]) == 0
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["model"] == PRESETS[MODELS[model]]["model"]
    assert summary["val_bpc"] < 6
    assert main(["train", "--resume", "r"]) == 0
    capfd.readouterr()
    assert main(["generate", "r", "--prompt", "3 times", "--tokens", "40", "--greedy"]) == 0
    assert len(capfd.readouterr().out) == len("3 times") + 40 + 1
    assert main(["score", "r", "--text", "3 times 4 is 12.", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["tokens"] == 15


def test_the_n_gram_model_is_counted_generated_from_and_scored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = str(tiny.data(tmp_path))
    assert main(["train", "--model", "ngram", "--data", data, "--out", "r", "--tokenizer", "character"]) == 0
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert 0 < summary["val_bpc"] < 2
    capfd.readouterr()
    assert main(["generate", "r", "--prompt", "3 times", "--tokens", "40", "--greedy"]) == 0
    assert capfd.readouterr().out.startswith("3 times")
    assert main(["score", "r", "--text", "3 times 4 is 12.", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["perplexity"] < 5


@pytest.mark.parametrize(("flags", "scaled"), [([], True), (["--no-scaled-embedding"], False)])
def test_a_gpt_with_sinusoidal_positions_scales_its_embedding_unless_told_not_to(
    tmp_path: Path, flags: list[str], scaled: bool
) -> None:
    kind = ["--model", "gpt", "--positions", "sinusoidal", *flags, *small("gpt")]
    assert main(["train", "--data", str(tiny.data(tmp_path)), "--steps", "1", "--out", "r", *kind]) == 0
    assert load_model(tmp_path / "r", "cpu").config.scaled_embedding is scaled


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_the_help_names_the_model_that_is_trained_without_a_flag(
    tmp_path: Path, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """`pretrain` has none, and says so."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capfd.readouterr().out.split())
    (default,) = re.findall(r"--model NAME .*?\((default \w+|there is no default)\)", said)
    if command == "pretrain":
        assert default == "there is no default"
        return
    assert main(["train", "--data", str(tiny.data(tmp_path)), "--steps", "1", "--out", "r", *small(DEFAULT_MODEL)]) == 0
    state = json.loads((tmp_path / "r" / "checkpoint" / "state.json").read_text())
    assert default == f"default {state['model']}"


@given(heads=st.integers(1, 64), of=st.integers(1, 8))
def test_heads_that_are_given_alone_are_shared_by_groups_as_those_of_the_preset(heads: int, of: int) -> None:
    shared = shared_heads(heads, of=of)
    assert heads % shared == 0
    assert shared == 1 or heads // shared >= of
    assert heads % of or shared == heads // of


@pytest.mark.parametrize("heads", ["1", "3", "6"])
def test_the_default_model_takes_any_number_of_heads(tmp_path: Path, heads: str) -> None:
    how = ["--heads", heads, "--width", "12", "--layers", "1", "--context", "16", "--batch", "4", "--threads", "1"]
    assert main(["train", "--data", str(tiny.data(tmp_path)), "--steps", "1", "--out", "r", *how]) == 0
    assert load_model(tmp_path / "r", "cpu").config.heads == int(heads)


def test_every_choice_of_every_model_has_a_flag_and_every_flag_a_model() -> None:
    choices = {choice for name in MODELS for choice in by_name(PRESETS[MODELS[name]]["model"]).CHOICES}
    assert choices == {*ARCHITECTURE, *SWITCHES}
    for name in MODELS:
        model = by_name(PRESETS[MODELS[name]]["model"])
        assert set(model.CHOICES) <= {field.name for field in dataclasses.fields(model.Config)}


def test_a_flag_that_the_model_has_no_use_for_is_refused(refused: Refused) -> None:
    said = refused("train", "--experts", "4", "--out", "r")
    assert f"--experts is nothing that {DEFAULT_MODEL} has; leave it out" in said
    assert "--layers is nothing that ngram has" in refused("train", "--model", "ngram", "--layers", "4", "--out", "r")
    for flags in ("--lr 1", "--batch 4", "--clip 1"):
        said = refused("train", "--model", "ngram", *flags.split(), "--out", "r")
        assert f"{flags.split()[0]} is nothing that ngram has; leave it out (it has order)" in said
    for flags in ("--steps 6", "--minutes 1", "--reports 2", "--dtype float64"):
        said = refused("train", "--preset", "ngram", *flags.split(), "--out", "r")
        assert f"{flags.split()[0]} is for models that are trained by steps" in said
    for flags in ("--tokenizer character", "--preset character"):
        said = refused("train", *flags.split(), "--vocabulary", "300", "--out", "r")
        assert "--vocabulary is nothing that characters have" in said
    said = refused("train", "--model", "llama", "--preset", "character", "--out", "r")
    assert "the preset character is one of gpt, not of llama" in said


def test_a_model_that_reads_both_ways_neither_generates_nor_scores(tmp_path: Path, refused: Refused) -> None:
    text = " ".join(f"The number {n} comes after {n - 1}. It is followed by {n + 1}." for n in range(1, 200))
    (tmp_path / "text.txt").write_text(text.replace(". The", ".\n\nThe"))
    flags = ["--layers", "1", "--heads", "2", "--width", "8", "--context", "16", "--vocabulary", "60", "--batch", "4"]
    how = ["train", "--model", "bert", "--data", str(tmp_path / "text.txt"), "--steps", "1", "--out", "r", *flags]
    assert main(how) == 0
    for command in (["generate", "r"], ["score", "r", "--text", "The number"]):
        assert "is of the kind bert, which does not predict the next token" in (said := refused(*command))
        assert "hybrid, ngram)" in said
