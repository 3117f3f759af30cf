"""A folder is opened whole, or refused with one line before anything of its size is made."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.cli import main
from refllm.errors import UserError
from refllm.pretrained.architectures import ARCHITECTURES
from refllm.pretrained.export import file_of, tensors_of_folder
from refllm.pretrained.folder import open_folder
from spec_tests.pretrained.folders import CONFIGS, change_config, made, rewrite, written_tensors, zeros

every_model = pytest.mark.parametrize("which", CONFIGS)


@every_model
def test_what_is_written_is_read_back_config_and_every_number(which: str, tmp_path: Path) -> None:
    leaves = made(which, tmp_path)
    folder = open_folder(tmp_path)
    assert folder.config == CONFIGS[which][1]
    found = folder.leaves()
    assert found.keys() == leaves.keys()
    for path, leaf in leaves.items():
        assert found[path].dtype == leaf.dtype
        numpy.testing.assert_array_equal(found[path], leaf)
    for path, x in folder.piecewise_leaves().items():  # and one at a time
        assert (x.shape, x.dtype) == (leaves[path].shape, leaves[path].dtype)
        numpy.testing.assert_array_equal(x.whole(), leaves[path])


@every_model
def test_the_tensors_of_a_folder_are_written_bit_for_bit(which: str, tmp_path: Path) -> None:
    made(which, tmp_path)
    folder = open_folder(tmp_path)
    assert tensors_of_folder(folder, folder.leaves()) == written_tensors(tmp_path)


@every_model
def test_every_parameter_has_a_name_and_every_name_a_parameter(which: str) -> None:
    from refllm.models import by_name
    from refllm.parameters import named_leaves

    architecture = ARCHITECTURES[CONFIGS[which][0]]
    config = CONFIGS[which][1]
    entries = architecture.table(config)
    paths = [entry.path for entry in entries]
    names = [name for entry in entries for name in entry.names]
    assert sorted(paths) == sorted(path for path, _ in named_leaves(by_name(architecture.model).shapes(config)))
    assert len(names) == len(set(names))


def test_names_without_the_prefix_old_names_buffers_and_tied_copies_are_the_same_model(tmp_path: Path) -> None:
    leaves = made("BERT, masked", tmp_path)
    tensors = written_tensors(tmp_path)
    old = {
        name.removeprefix("bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): one
        for name, one in tensors.items()
    }
    old["embeddings.position_ids"] = ("I64", (1, 8), bytes(64))
    old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    rewrite(tmp_path, old)
    found = open_folder(tmp_path).leaves()
    assert all(numpy.array_equal(found[path], leaf) for path, leaf in leaves.items())
    old["cls.predictions.decoder.weight"] = zeros(11, 4)
    rewrite(tmp_path, old)
    with pytest.raises(UserError, match=r"differs from embeddings\.word_embeddings\.weight"):
        open_folder(tmp_path).leaves()


def sharded(directory: Path, **moved: str) -> dict[str, Any]:
    """The file cut in two, with an index."""
    tensors = written_tensors(directory)
    (directory / "model.safetensors").unlink()
    half = sorted(tensors)[: len(tensors) // 2]
    weight_map = {name: f"model-0000{1 + (name not in half)}-of-00002.safetensors" for name in tensors}
    for file in sorted(set(weight_map.values())):
        (directory / file).write_bytes(
            file_of({name: one for name, one in tensors.items() if weight_map[name] == file})
        )
    weight_map |= moved
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def test_shards_are_one_model(tmp_path: Path) -> None:
    leaves = made("Llama", tmp_path)
    sharded(tmp_path)
    found = open_folder(tmp_path).leaves()
    assert all(numpy.array_equal(found[path], leaf) for path, leaf in leaves.items())


SHARDS: dict[str, tuple[dict[str, str], str]] = {
    "outside": ({"lm_head.weight": "../model.safetensors"}, "no .safetensors file beside it"),
    "absolute": ({"lm_head.weight": "/etc/passwd"}, "no .safetensors file beside it"),
    "a folder of its own": ({"lm_head.weight": "a/model.safetensors"}, "no .safetensors file beside it"),
    "missing file": ({"lm_head.weight": "model-9.safetensors"}, "does not exist"),
    "wrong file": ({"lm_head.weight": "model-00002-of-00002.safetensors"}, "says is in"),
    "nowhere": ({"more.weight": "model-00001-of-00002.safetensors"}, "does not hold"),
}


@pytest.mark.parametrize("which", SHARDS)
def test_an_index_that_does_not_belong_to_its_shards_is_refused(which: str, tmp_path: Path) -> None:
    moved, message = SHARDS[which]
    made("Llama", tmp_path)
    sharded(tmp_path, **moved)
    with pytest.raises(UserError, match=message):
        open_folder(tmp_path)


def test_a_pickle_is_never_opened_and_the_line_says_how_to_convert_it(tmp_path: Path) -> None:
    made("Llama", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin, a pickle.*save_file"):
        open_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        open_folder(tmp_path)


TENSORS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown": (lambda t: t.update({"model.extra.weight": zeros(2, 3)}), r"unknown: model\.extra\.weight \(2, 3\)"),
    "missing": (lambda t: t.pop("model.norm.weight"), r"missing: model\.norm\.weight \(4,\)"),
    "another shape": (
        lambda t: t.update({"model.norm.weight": zeros(5)}), r"model\.norm\.weight \(5,\), should be \(4,\)",
    ),
    "transposed": (
        lambda t: t.update({"model.layers.0.mlp.up_proj.weight": zeros(4, 6)}), r"\(4, 6\), should be \(6, 4\)",
    ),
    "twice": (lambda t: t.update({"norm.weight": zeros(4)}), "one and the same"),
}  # fmt: skip


@pytest.mark.parametrize("which", TENSORS)
def test_tensors_that_do_not_belong_are_named_with_their_shapes(which: str, tmp_path: Path) -> None:
    change, message = TENSORS[which]
    made("Llama", tmp_path)
    tensors = written_tensors(tmp_path)
    change(tensors)
    rewrite(tmp_path, tensors)
    with pytest.raises(UserError, match=message):
        open_folder(tmp_path)


def test_many_names_are_counted_and_not_listed(tmp_path: Path) -> None:
    made("Llama", tmp_path)
    rewrite(tmp_path, {f"x{i}": zeros(1) for i in range(500)})
    with pytest.raises(UserError, match="and 494 more") as refused:
        open_folder(tmp_path)
    assert len(str(refused.value)) < 1500


def yarn(**changes: Any) -> dict[str, Any]:
    usual = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 100.0, "original_max_position_embeddings": 8}
    return {**usual, **changes}


FIELDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "an absurd number of layers": ("Llama", {"num_hidden_layers": 2_000_000_000}, "more than any model"),
    "more layers than tensors": ("GPT-2", {"n_layer": 2_000_000_000}, "only"),
    "an absurd vocabulary": ("Llama", {"vocab_size": 1 << 40}, "vocab_size must be a whole number"),
    "a large vocabulary": ("Llama", {"vocab_size": 1 << 30}, "another shape"),
    "a width of zero": ("Llama", {"hidden_size": 0}, "hidden_size must be"),
    "a width that is true": ("Llama", {"hidden_size": True}, "hidden_size must be"),
    "a width in words": ("Llama", {"hidden_size": "4"}, "hidden_size must be"),
    "a list of heads": ("Llama", {"num_attention_heads": [2]}, "num_attention_heads must be"),
    "heads that do not divide": ("GPT-2", {"n_head": 3}, "heads must divide"),
    "an activation": ("Llama", {"hidden_act": "quick_gelu"}, "quick_gelu"),
    "a scaling": (
        "Llama",
        {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}},
        "dynamic, yarn and llama3 are",
    ),
    "a scaling that is no word": ("Llama", {"rope_parameters": {"rope_type": {"a": 1}}}, "is not supported"),
    "a part of the head": ("Llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
    "a part of the head, within": (
        "Llama",
        {"rope_parameters": {"partial_rotary_factor": 0.25}},
        "partial_rotary_factor 0.25 is not supported",
    ),
    "a yarn of nothing": ("Llama 3", {"rope_parameters": yarn(factor=0)}, "factor must be above 0"),
    "a yarn without end": ("Llama 3", {"rope_parameters": yarn(factor=float("inf"))}, "factor must be a number"),
    "a yarn of no length": ("Llama 3", {"rope_parameters": yarn(original_max_position_embeddings=0)}, "a whole number"),
    "a yarn that is turned round": ("Llama 3", {"rope_parameters": yarn(beta_fast=1.0, beta_slow=2.0)}, "scaling_low"),
    "a yarn on no base": ("Llama 3", {"rope_parameters": yarn(rope_theta=1.0)}, "a base above 1"),
    "a yarn with a scale below 0": ("Llama 3", {"rope_parameters": yarn(mscale=-9.0, mscale_all_dim=1.0)}, "negative"),
    "a yarn with a scale of 0": (
        "Llama 3",
        {"rope_parameters": yarn(attention_factor=0.0)},
        "attention_factor must be",
    ),
    "a yarn that is rounded in words": ("Llama 3", {"rope_parameters": yarn(truncate="no")}, "truncate must be true"),
    "dynamic beyond measure": ("Llama 3", {"rope_parameters": yarn(rope_type="dynamic", factor=1e300)}, "at most 1e"),
    "dynamic in words": ("Llama 3", {"rope_parameters": yarn(rope_type="dynamic", factor="2")}, "factor must be"),
    "a base that is nothing": (
        "Llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 0}},
        "rope_theta must be",
    ),
    "biases that are not there": ("Llama", {"mlp_bias": True}, r"missing: model.layers.0.mlp.gate_proj.bias \(6,\)"),
    "biases in words": ("Llama", {"mlp_bias": "yes"}, "mlp_bias must be true or false"),
    "an architecture": ("Llama", {"model_type": "mamba"}, "'mamba' is not supported"),
    "a class": ("Llama", {"architectures": ["LlamaForSequenceClassification"]}, "is not supported"),
    "no type": ("Llama", {"model_type": ...}, "has no model_type"),
    "quantised": ("Llama", {"quantization_config": {"bits": 4}}, "quantised"),
    "an eps that is infinite": ("Llama", {"rms_norm_eps": float("inf")}, "rms_norm_eps must be a number"),
    "an eps that is nothing": ("Llama", {"rms_norm_eps": 0.0}, "rms_norm_eps must be"),
    "a decoder": ("BERT", {"is_decoder": True}, "is_decoder true is not supported"),
    "layer types": ("Qwen 2", {"layer_types": ["full_attention"]}, "layer_types"),
    "a window of nothing": ("Mistral", {"sliding_window": -3}, "sliding_window"),
}


@pytest.mark.parametrize("which", FIELDS)
def test_a_field_that_cannot_be_meant_or_is_not_computed_is_one_line(which: str, tmp_path: Path) -> None:
    model, changes, message = FIELDS[which]
    made(model, tmp_path)
    change_config(tmp_path, **changes)
    tracemalloc.start()
    with pytest.raises(UserError, match=message) as refused:
        open_folder(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(refused.value)
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 1_000_000, "nests values too deeply|cannot be read as JSON"),
        ('{"a":' * 100 + "1" + "}" * 100, "values within each other"),
        ('{"model_type": "llama", "model_type": "gpt2"}', "occurs twice"),
        ("[]", "must hold an object"),
        ('{"vocab_size": 1' + "0" * 10_000 + "}", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        ("\xff", "not UTF-8|cannot be read as JSON"),
    ],
)
def test_a_config_that_is_no_object_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    made("Llama", tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        open_folder(tmp_path)


def test_a_file_in_the_place_of_a_directory_is_one_line(tmp_path: Path) -> None:
    made("Llama", tmp_path)
    with pytest.raises(UserError, match="is a file; give the directory of the model"):
        open_folder(tmp_path / "config.json")


def test_a_bias_that_is_not_computed_is_refused_before_the_weights_are_read(tmp_path: Path) -> None:
    made("BART", tmp_path)
    tensors = written_tensors(tmp_path)
    [name] = [name for name in tensors if name.endswith("final_logits_bias")]
    kind, shape, data = tensors[name]
    rewrite(tmp_path, {**tensors, name: (kind, shape, numpy.ones(shape, "<f4").tobytes()[: len(data)])})
    folder = open_folder(tmp_path)
    with pytest.raises(UserError, match="final_logits_bias is not zero"):
        folder.require_zeros()
    assert main(["inspect", str(tmp_path)]) == 1


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    made("Llama", tmp_path)
    tensors = written_tensors(tmp_path)
    tensors["model.norm.weight"] = ("F32", (4,), numpy.array([1, numpy.nan, 1, 1], "<f4").tobytes())
    rewrite(tmp_path, tensors)
    with pytest.raises(UserError, match="not all finite"):
        open_folder(tmp_path).leaves()
    tensors["model.norm.weight"] = ("I32", (4,), bytes(16))
    rewrite(tmp_path, tensors)
    with pytest.raises(UserError, match="I32"):
        open_folder(tmp_path).leaves()


def test_the_configuration_of_older_files_is_read_as_well(tmp_path: Path) -> None:
    """`rope_theta` and `rope_scaling` with a `type`, before there were `rope_parameters`."""
    made("Llama 3", tmp_path)
    inner = json.loads((tmp_path / "config.json").read_text())["rope_parameters"]
    inner["type"] = inner.pop("rope_type")
    change_config(tmp_path, rope_parameters=..., rope_scaling=inner, rope_theta=inner.pop("rope_theta"))
    assert open_folder(tmp_path).config == CONFIGS["Llama 3"][1]
    change_config(tmp_path, rope_scaling=None)
    assert open_folder(tmp_path).config == replace(
        CONFIGS["Llama 3"][1], scaling="none", scaling_factor=1.0, scaling_original=0
    )
