"""refllm taps: the values of a model as a file and as a folder, and a port's file beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.cli import main
from refllm.models import bert, encoder_decoder, llama
from refllm.pretrained.export import file_of
from refllm.pretrained.tensor_file import tensors_of
from spec_tests.commands.test_published import PIECES, write
from spec_tests.tokenizers.test_published import byte_level

SIZES: dict[str, Any] = {"vocabulary": 264, "context": 32, "layers": 2, "heads": 2, "width": 8, "hidden": 12}
BYTES = {"tokenizer.json": json.dumps(byte_level())}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model", "llama", llama.Config(**SIZES, kv_heads=1, eps=1e-6), BYTES)


@pytest.mark.parametrize("name", ["embedding", "layers.1.k", "layers.1", "norm", "logits"])
def test_the_first_tensor_that_differs_is_named(
    folder: Path, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "taps.safetensors"
    assert main(["taps", str(folder), "--text", "the aa b", "--out", str(out)]) == 0
    assert main(["taps", str(folder), "--text", "the aa b", "--compare", str(out)]) == 0
    tensors = {key: (one.dtype, one.shape, one.raw()) for key, one in tensors_of(out).items()}
    dtype, shape, raw = tensors[name]
    numbers = numpy.frombuffer(raw, "<f4").copy()
    numbers[0] += 0.5
    tensors[name] = (dtype, shape, numbers.tobytes())
    (tmp_path / "port.safetensors").write_bytes(file_of(tensors))
    capfd.readouterr()
    call = ["taps", str(folder), "--text", "the aa b", "--compare", str(tmp_path / "port.safetensors")]
    assert main([*call, "--search", "0"]) == 1
    said = " ".join(capfd.readouterr().out.split())
    assert f"({name})" in said.partition("differs first")[2].partition("agrees before")[0]


def test_every_kind_writes_its_values_and_agrees_with_itself(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"vocabulary": 264, "context": 32, "heads": 2, "width": 8, "hidden": 12, "head_width": 3}
    t5 = encoder_decoder.Config(
        **sizes, encoder_layers=1, decoder_layers=1, norm="pre", rms=True, positions="relative", biases=False,
        eps=1e-6, scaled_output=True,
    )  # fmt: skip
    words = {"vocab.txt": "\n".join(PIECES) + "\n"}
    small = bert.Config(**{**SIZES, "vocabulary": len(PIECES)}, outputs=("masked",), pooler=False)
    for kind, config, files, last in (("t5", t5, BYTES, "decoder.norm"), ("bert", small, words, "layers.1")):
        model = write(tmp_path / kind, kind, config, files, decoder_start_token_id=0)
        out = tmp_path / f"{kind}.safetensors"
        assert main(["taps", str(model), "--text", "good bad", "--out", str(out), "--all"]) == 0
        assert {"ids", "mask", last, "logits"} <= set(tensors_of(out))
        assert main(["taps", str(model), "--text", "good bad", "--compare", str(out)]) == 0


def test_a_folder_has_the_inputs_and_the_values_between_layers(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "sent"
    assert main(["taps", str(folder), "--text", "the aa b", "--out", str(out)]) == 0
    said = json.loads((out / "inputs.json").read_text())
    assert set(said) == {"one", "two", "text", "padded"}
    assert {"embedding", "layers.0.q", "layers.1", "logits"} <= set(tensors_of(out / "text.safetensors"))
    assert main(["taps", str(folder), "--text", "the aa b", "--out", str(out)]) == 2
