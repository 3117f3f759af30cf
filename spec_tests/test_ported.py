"""A port of a model: the first tensor that differs is named, and the mistake that gives its numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm import ported
from refllm.cli import main
from refllm.models import gpt, llama
from refllm.pretrained.export import file_of
from refllm.pretrained.tensor_file import tensors_of
from spec_tests.commands.test_published import write
from spec_tests.language_models import parameters, tiny_gpt, tiny_llama, tokens
from spec_tests.tokenizers.test_published import byte_level

GEMMA = tiny_llama(
    layers=2, score_width=3.0, score_cap=0.5, logit_cap=0.7, scaled_embedding=True, windows=(2, 0), kv_heads=2,
    scaling="linear", scaling_factor=2.0, eps=1e-3, head_width=4,
)  # fmt: skip
CONFIGS: dict[str, Any] = {"llama": GEMMA, "gpt": tiny_gpt(tied=False, eps=1e-3)}


def model_of(config: Any) -> Any:
    return gpt if isinstance(config, gpt.Config) else llama


def all_mistakes(which: str) -> list[str]:
    config = CONFIGS[which]
    return [told for told, _, _ in ported.mistakes(model_of(config), parameters(config), config)]


@pytest.mark.parametrize(("which", "told"), [(which, told) for which in CONFIGS for told in all_mistakes(which)])
def test_every_mistake_is_found_named_and_is_one_of_few(which: str, told: str) -> None:
    config = CONFIGS[which]
    model, p, ids = model_of(config), parameters(config), tokens(1, 7)
    changed, changed_config = next((q, c) for name, q, c in ported.mistakes(model, p, config) if name == told)
    port = ported.taps(model, changed, ids, changed_config)
    ours = ported.taps(model, p, ids, config)
    wrong = ported.first_difference(ours, port)
    if wrong is None:
        assert "eps" in told  # so small a difference that no number shows it
        return
    found = ported.explanations(model, p, ids, config, port)
    assert told in found
    assert all("eps" in other for other in found) or len(found) == 1


def test_the_taps_are_the_states_between_the_layers() -> None:
    config = tiny_gpt()
    p, ids = parameters(config), tokens(1, 6)
    found = ported.taps(gpt, p, ids, config)
    numpy.testing.assert_allclose(found["embedding"], p["token"][ids] + p["position"][:6])
    first = replace(config, layers=1)
    shorter = ported.taps(gpt, {**p, "layers": p["layers"][:1]}, ids, first)
    assert numpy.array_equal(found["layers.0"], shorter["layers.0"])
    assert not numpy.array_equal(found["layers.0"], found["layers.1"])


@pytest.mark.parametrize("name", ["embedding", "layers.1.k", "layers.1", "norm", "logits"])
def test_the_first_tensor_that_differs_is_named(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = llama.Config(vocabulary=264, context=32, layers=2, heads=2, width=8, hidden=12, kv_heads=1, eps=1e-6)
    folder = write(tmp_path / "model", "llama", config, {"tokenizer.json": json.dumps(byte_level())})
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
    assert main(["taps", str(folder), "--text", "the aa b", "--compare", str(tmp_path / "port.safetensors")]) == 1
    assert f"the first tensor that differs: {name}, by" in capfd.readouterr().out
