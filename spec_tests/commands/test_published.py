"""A published model in the place of a run: every command that takes one computes what its weights say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.cli import main
from refllm.errors import UserError
from refllm.generation.beam import beam_search
from refllm.generation.generate import generate
from refllm.generation.writer import SequenceWriter
from refllm.models import bert, encoder_decoder, gpt, llama
from refllm.ops.cross_entropy import cross_entropy
from refllm.parameters import named_leaves
from refllm.pretrained.architectures import ARCHITECTURES
from refllm.pretrained.export import config_of, tensors_of_leaves, write_folder
from refllm.pretrained.folder import open_folder
from refllm.pretrained.tensor_file import tensors_of
from refllm.trained import load_model
from spec_tests import tiny
from spec_tests.commands.conftest import Refused
from spec_tests.pretrained.folders import change_config, random_leaves, rewrite, written_tensors
from spec_tests.tokenizers.test_published import byte_level

SIZES: dict[str, Any] = {"vocabulary": 264, "context": 32, "layers": 2, "heads": 2, "width": 8, "hidden": 12}
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "very", "##ly", "not", *"abcdefghij", "."]
Made = Callable[..., Path]


def write(directory: Path, kind: str, config: Any, files: dict[str, str], **more: Any) -> Path:
    architecture = ARCHITECTURES[kind]
    tensors = tensors_of_leaves(architecture, config, random_leaves(architecture, config))
    values = {**architecture.written(config), **more}
    write_folder(directory, config_of(values, tensors), tensors, {name: text.encode() for name, text in files.items()})
    return directory


@pytest.fixture
def language(tmp_path: Path) -> Path:
    files = {"tokenizer.json": json.dumps(byte_level()), "tokenizer_config.json": "{}"}
    return write(tmp_path / "published", "llama", llama.Config(**SIZES, kv_heads=1, eps=1e-6), files)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    config = bert.Config(**{**SIZES, "vocabulary": len(PIECES)}, outputs=())
    return write(tmp_path / "encoder", "bert", config, {"vocab.txt": "\n".join(PIECES) + "\n"})


def greedy(directory: Path, prompt: str, tokens: int) -> list[int]:
    trained = load_model(directory, "cpu")
    ids = trained.tokenizer.encode(prompt)[None]
    steps = generate(
        trained.parameters, model=trained.model, ids=ids, padding=None, config=trained.config, new_tokens=tokens,
        temperature=1.0, top_k=None, top_p=None, uniforms=None, cache=False,
    )  # fmt: skip
    return [int(chosen[0]) for chosen, _ in steps]


def test_generate_writes_what_the_weights_say(language: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = greedy(language, "the a", 12)
    capfd.readouterr()
    assert main(["generate", str(language), "--prompt", "the a", "--tokens", "12", "--greedy"]) == 0
    tokenizer = load_model(language, "cpu").tokenizer
    text = "the a" + tokenizer.decode(wanted)
    assert capfd.readouterr().out.rstrip("\n").startswith(text.rstrip("\ufffd"))


def test_generate_stops_at_the_end_token(language: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = greedy(language, "the a", 12)
    end = wanted[3]
    change_config(language, eos_token_id=[end, 999])
    capfd.readouterr()
    assert main(["generate", str(language), "--prompt", "the a", "--tokens", "12", "--greedy"]) == 0
    tokenizer = load_model(language, "cpu").tokenizer
    before = tokenizer.decode(wanted[: wanted.index(end)]).rstrip("\ufffd")
    assert capfd.readouterr().out == "the a" + before + "\n"


def test_score_is_the_loss_of_the_weights(language: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = "the aaa the b"
    trained = load_model(language, "cpu")
    ids = trained.tokenizer.encode(text)
    logits, _ = trained.model.forward(
        trained.parameters, ids=ids[None, :-1], config=trained.config, dropout_mask=None, cache=None
    )
    nll, _ = cross_entropy(logits, targets=ids[None, 1:], ignore=None, reduction="sum")
    capfd.readouterr()
    assert main(["score", str(language), "--text", text, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["log_probability"] == pytest.approx(-float(nll), rel=1e-5)
    assert found["tokens"] == len(ids) - 1


def test_chat_answers_a_line(
    language: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the a\n")))
    assert main(["chat", str(language), "--greedy", "--tokens", "5"]) == 0
    assert capfd.readouterr().out.endswith("\n")


def vectors(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> Any:
    capfd.readouterr()
    assert main(["embed", *arguments]) == 0
    return numpy.array([json.loads(line)["vector"] for line in capfd.readouterr().out.splitlines()])


@pytest.mark.parametrize("pool", ["mean", "cls", "pooled"])
def test_embed_pools_the_states_of_the_encoder(encoder: Path, pool: str, capfd: pytest.CaptureFixture[str]) -> None:
    trained = load_model(encoder, "cpu")
    ids = numpy.array([[2, 5, 8, 20, 3]])  # [CLS] good ##ly . [SEP]
    h, _ = bert.encode(
        trained.parameters, ids=ids, segments=0 * ids, attention_mask=None, config=trained.config, dropout_mask=None
    )
    wanted = {"mean": h[0].mean(axis=0), "cls": h[0, 0], "pooled": bert.pooled(h, trained.parameters)[0][0]}[pool]
    (found,) = vectors([str(encoder), "Goodly.", "--pool", pool, "--no-normalise"], capfd)
    numpy.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)
    (unit,) = vectors([str(encoder), "Goodly.", "--pool", pool], capfd)
    numpy.testing.assert_allclose(unit, wanted / numpy.linalg.norm(wanted), rtol=2e-5, atol=1e-6)


def test_embed_does_not_let_one_text_change_another(encoder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = vectors([str(encoder), "good"], capfd)
    several = vectors([str(encoder), "very bad a b c d e", "good"], capfd)
    assert numpy.array_equal(one[0], several[1])


def test_embed_reads_a_language_model_too_and_refuses_what_it_lacks(
    language: Path, capfd: pytest.CaptureFixture[str], refused: Refused, tmp_path: Path
) -> None:
    assert vectors([str(language), "the a"], capfd).shape == (1, 8)
    assert "no pooler" in refused("embed", str(language), "the a", "--pool", "pooled")
    assert "32" in refused("embed", str(language), "b" * 40)
    assert main(["embed", str(language), "the", "--out", str(tmp_path / "v.npy")]) == 0
    assert numpy.load(tmp_path / "v.npy").shape == (1, 8)


def test_inspect_tells_the_model_and_what_is_not_supported(language: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["inspect", str(language)]) == 0
    told = capfd.readouterr().out
    assert "llama (LlamaForCausalLM)" in told
    assert "not supported" not in told
    assert main(["inspect", str(language), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (
        found["parameters"]
        == sum(found["parts"].values())
        == sum(x.size for x in open_folder(language).leaves().values())
    )
    change_config(language, hidden_act="mish")
    (language / "tokenizer.json").write_text("{}")
    assert main(["inspect", str(language)]) == 1
    told = capfd.readouterr().out
    assert "mish" in told
    assert "tokenizer's files" in told
    assert "tensors" in told


def test_inspect_tells_of_a_run(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["inspect", str(trained)]) == 0
    assert "a run of refllm" in capfd.readouterr().out


def test_inspect_of_what_is_neither_is_one_line(refused: Refused, tmp_path: Path) -> None:
    assert "no checkpoint" in refused("inspect", str(tmp_path))


def test_a_published_model_is_exported_bit_for_bit(language: Path, tmp_path: Path) -> None:
    assert main(["export", str(language), "--to", "hf", "--out", str(tmp_path / "out")]) == 0
    for path in language.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


def test_export_overwrites_nothing(language: Path, refused: Refused) -> None:
    assert "not empty" in refused("export", str(language), "--out", str(language))


@pytest.mark.every
def test_a_training_goes_on_from_a_published_model_and_back(
    language: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = str(tiny.data(tmp_path))
    arguments = ["--data", data, "--steps", "2", "--reports", "1", "--batch", "2", "--context", "8", "--threads", "1"]
    out = tmp_path / "run"
    assert main(["train", "--from", str(language), *arguments, "--lr", "1e-9", "--out", str(out)]) == 0
    ours, theirs = load_model(out, "cpu"), load_model(language, "cpu")
    assert ours.config == theirs.config
    assert ours.tokenizer.to_json()["files"] == theirs.tokenizer.to_json()["files"]
    for (path, x), (_, y) in zip(named_leaves(ours.parameters), named_leaves(theirs.parameters), strict=True):
        numpy.testing.assert_allclose(x, y, atol=1e-7, err_msg=path)
    assert main(["train", "--resume", str(out), "--steps", "1"]) == 0
    assert main(["export", str(out), "--out", str(tmp_path / "back")]) == 0
    back = load_model(tmp_path / "back", "cpu")
    assert back.config == replace(theirs.config)
    for (path, x), (_, y) in zip(
        named_leaves(load_model(out, "cpu").parameters), named_leaves(back.parameters), strict=True
    ):
        assert numpy.array_equal(x, y), path
    assert (tmp_path / "back" / "tokenizer.json").read_bytes() == (language / "tokenizer.json").read_bytes()


def test_flags_that_the_model_decides_are_refused(language: Path, refused: Refused) -> None:
    assert "--width" in refused("train", "--from", str(language), "--width", "16")
    assert "--tokenizer" in refused("train", "--from", str(language), "--tokenizer", "word")
    assert "--context" in refused("train", "--from", str(language), "--context", "33")


def test_labels_are_learnt_from_a_published_encoder_and_exported(
    encoder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = ["text,label", *(f"very {word} {letter},{word}" for letter in "abcdefgh" for word in ("good", "bad"))]
    (tmp_path / "data.csv").write_text("\n".join(rows) + "\n")
    arguments = ["--steps", "3", "--batch", "4", "--threads", "1", "--reports", "1", "--out", str(tmp_path / "run")]
    assert main(["classify", "fit", str(tmp_path / "data.csv"), "--from", str(encoder), *arguments]) == 0
    assert main(["classify", "predict", str(tmp_path / "run"), "very good a", "--json"]) == 0
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "hf")]) == 0
    values = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert values["architectures"] == ["BertForSequenceClassification"]
    assert values["id2label"] == {"0": "bad", "1": "good"}
    answers = []
    for directory in ("run", "hf"):
        capfd.readouterr()
        assert main(["classify", "predict", str(tmp_path / directory), "very good a", "bad b", "--json"]) == 0
        answers.append([json.loads(line) for line in capfd.readouterr().out.splitlines()])
    assert answers[0] == answers[1]
    run, back = load_model(tmp_path / "run", "cpu"), load_model(tmp_path / "hf", "cpu")
    for (path, x), (_, y) in zip(named_leaves(run.parameters), named_leaves(back.parameters), strict=True):
        assert numpy.array_equal(x, y), path


def test_what_needs_the_data_of_a_run_refuses_a_published_model(
    language: Path, refused: Refused, tmp_path: Path
) -> None:
    assert "not a run" in refused("compress", "quantise", str(language), "--out", str(tmp_path / "small"))
    assert "no checkpoint" in refused("train", "--resume", str(language))


def test_a_run_without_a_published_form_is_refused(trained: Path, refused: Refused, tmp_path: Path) -> None:
    config = gpt.Config(**{**SIZES, "vocabulary": 11}, norm="post")
    with pytest.raises(ValueError, match="no published form"):
        ARCHITECTURES["gpt2"].written(config)
    assert "--out" in refused("export", str(trained), "--out", str(trained))


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_weights_in_fewer_bits_write_and_score(language: Path, weights: str, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["score", str(language), "--text", "the aaa the b", "--json"]) == 0
    exact = json.loads(capfd.readouterr().out)["log_probability"]
    assert main(["score", str(language), "--text", "the aaa the b", "--json", "--weights", weights]) == 0
    assert json.loads(capfd.readouterr().out)["log_probability"] == pytest.approx(exact, rel=0.05)
    assert main(["generate", str(language), "--prompt", "the", "--tokens", "3", "--weights", weights]) == 0


def test_the_weights_of_a_run_are_not_kept_in_fewer_bits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--weights int8 is for published models"):
        load_model(tmp_path, "cpu", "int8")


@pytest.fixture
def rewriter(tmp_path: Path) -> Path:
    sizes = {**SIZES, "encoder_layers": 2, "decoder_layers": 1, "head_width": 3, "vocabulary": 264}
    del sizes["layers"]
    config = encoder_decoder.Config(
        **sizes, norm="pre", rms=True, positions="relative", biases=False, buckets=4, farthest=6, eps=1e-6,
        scaled_output=True,
    )  # fmt: skip
    files = {"tokenizer.json": json.dumps(byte_level()), "tokenizer_config.json": "{}"}
    return write(tmp_path / "rewriter", "t5", config, files, decoder_start_token_id=0, eos_token_id=1)


@pytest.mark.parametrize("beams", [1, 3])
def test_an_encoder_decoder_answers_a_prompt(rewriter: Path, beams: int, capfd: pytest.CaptureFixture[str]) -> None:
    trained = load_model(rewriter, "cpu")
    tokenizer: Any = trained.tokenizer
    source = tokenizer.marked("the a b")
    writer = SequenceWriter(
        trained.parameters, model=encoder_decoder, config=trained.config, source=source[None], attention_mask=None,
        room=9,
    )  # fmt: skip
    how: dict[str, Any] = {"ids": numpy.array([[0]]), "new_tokens": 9, "end": 1, "beams": beams}
    ((best, *_),) = beam_search(writer, **how, length_penalty=1.0, stop="estimate")
    capfd.readouterr()
    flags = ["--greedy"] if beams == 1 else ["--beams", "3"]
    assert main(["generate", str(rewriter), "--prompt", "the a b", "--tokens", "9", *flags]) == 0
    shown = tokenizer.decode([t for t in best.tokens if t not in {1, *tokenizer.special_tokens}]).strip()
    assert capfd.readouterr().out == f"{shown}\n"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "an encoder-decoder answers a text; give one by --prompt"),
        (["--prompt", " "], "--prompt: the text is empty"),
        (["--prompt", "a", "--beams", "0"], "beams must be at least 1, got 0"),
        (["--prompt", "a", "--length-penalty", "1"], "--length-penalty is for a search"),
        (["--prompt", "xyz" * 33], "the text has 99 tokens; the model reads 1 to 32 at once"),
    ],
)
def test_an_encoder_decoder_says_what_it_needs(rewriter: Path, flags: list[str], line: str, refused: Refused) -> None:
    assert line in refused("generate", str(rewriter), *flags)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"decoder_start_token_id": 264}, "decoder_start_token_id must be a token, a number from 0 to 263, got 264"),
        ({"decoder_start_token_id": ...}, "has no decoder_start_token_id; add the token that a text begins with"),
        ({"early_stopping": "soon"}, 'early_stopping must be true, false or "never"'),
        ({"eos_token_id": [1, 2]}, "the files name 2 tokens that end a text"),
    ],
)
def test_files_that_do_not_say_how_to_write_are_refused(
    rewriter: Path, said: dict[str, Any], line: str, refused: Refused
) -> None:
    change_config(rewriter, **{"pad_token_id": ..., **said})
    assert line in refused("generate", str(rewriter), "--prompt", "a", "--tokens", "3")


def test_beams_are_not_for_a_language_model(language: Path, refused: Refused) -> None:
    assert "--beams is for a published encoder-decoder" in refused("generate", str(language), "--beams", "2")


def test_what_of_the_files_is_not_computed_is_named(rewriter: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change_config(rewriter, no_repeat_ngram_size=3)
    assert main(["generate", str(rewriter), "--prompt", "a", "--tokens", "2", "--greedy"]) == 0
    assert "not computed, though generation_config.json asks for it: no_repeat_ngram_size" in capfd.readouterr().err


def test_a_model_without_an_output_layer_embeds_and_writes_nothing(
    language: Path, refused: Refused, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = vectors([str(language), "the a"], capfd)
    tensors = written_tensors(language)
    del tensors["lm_head.weight"]
    rewrite(language, {name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    change_config(language, architectures=["LlamaModel"])
    numpy.testing.assert_array_equal(vectors([str(language), "the a"], capfd), wanted)
    assert "have no output layer" in refused("generate", str(language), "--prompt", "a")
    assert "have no output layer" in refused("score", str(language), "--text", "the a")
    out = language.parent / "taps.safetensors"
    assert main(["taps", str(language), "--text", "the a", "--out", str(out)]) == 0
    assert "norm" in tensors_of(out)
    assert "logits" not in tensors_of(out)
    capfd.readouterr()
    assert main(["inspect", str(language)]) == 0
    shown = capfd.readouterr().out
    assert "output layer none" in shown
    assert "embed" in shown.splitlines()[-1]


def test_inspect_says_of_each_form_that_is_not_computed_why(language: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for changes, line in (
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported; only 1 or null is"),
        (
            {"partial_rotary_factor": ..., "rope_parameters": {"rope_type": "longrope"}},
            "default, linear, dynamic, yarn and",
        ),
        ({"rope_parameters": {"rope_type": "yarn", "factor": -1}}, "factor must be above 0"),
    ):
        change_config(language, **changes)
        capfd.readouterr()
        assert main(["inspect", str(language)]) == 1
        assert f"{line}" in capfd.readouterr().out
