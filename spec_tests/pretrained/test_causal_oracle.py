"""Decoders compute what transformers computes: hidden states, logits, every gradient, and greedy continuations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

pytest.importorskip("transformers")

from refllm.generation.generate import generate
from refllm.parameters import from_names
from refllm.pretrained.folder import Folder, open_folder
from spec_tests.pretrained.oracle import (
    CAUSAL,
    as_published,
    assert_close,
    gradients,
    ids_of,
    made,
    saved,
    torch,
)

pytestmark = pytest.mark.oracle
every_model = pytest.mark.parametrize("which", CAUSAL)


def opened(which: str, directory: Path, dtype: str) -> tuple[Any, Folder, Any]:
    kind, values = CAUSAL[which]
    model = made(kind, values, suffix="LMHeadModel" if kind == "GPT2" else "ForCausalLM", dtype=dtype)
    folder = open_folder(saved(model, directory))
    return model, folder, from_names(folder.shapes, folder.leaves())


@every_model
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("T", [1, 13])
def test_logits_hidden_states_and_every_gradient_are_those_of_transformers(
    which: str, dtype: str, T: int, tmp_path: Path
) -> None:
    model, folder, p = opened(which, tmp_path, dtype)
    config = folder.config
    ids = ids_of(config.vocabulary, 2, T)
    truth = model(torch.tensor(ids), output_hidden_states=True)
    dy = numpy.random.default_rng(1).standard_normal(truth.logits.shape).astype(dtype)
    truth.logits.backward(torch.tensor(dy))
    h, _ = folder.model.hidden_states(p, ids=ids, config=config, dropout_mask=None, cache=None)
    y, back = folder.model.forward(p, ids=ids, config=config, dropout_mask=None, cache=None)
    assert_close(h, truth.hidden_states[-1].detach().numpy(), dtype, "the hidden states")
    assert_close(y, truth.logits.detach().numpy(), dtype, "the logits")
    wanted = gradients(model)
    found = as_published(folder, back(dy))
    assert found.keys() == wanted.keys()
    largest = max(numpy.abs(g).max() for g in wanted.values())
    for name, gradient in found.items():
        off = numpy.abs(gradient - wanted[name]).max()
        assert off <= {"float32": 1e-5, "float64": 1e-6}[dtype] * largest, (
            f"{name} is off by {off:.3g} of {largest:.3g}"
        )


@every_model
def test_greedy_continuations_through_the_cache_are_those_of_transformers(which: str, tmp_path: Path) -> None:
    model, folder, p = opened(which, tmp_path, "float64")
    ids = ids_of(folder.config.vocabulary, 1, 5)
    truth = torch.tensor(ids)
    with torch.no_grad():
        for _ in range(20):
            best = model(truth).logits[:, -1].topk(2).values[0]
            assert best[0] - best[1] > 1e-6, "no margin: choose another seed"
            truth = torch.cat([truth, model(truth).logits[:, -1:].argmax(-1)], dim=1)
    written = generate(
        p, model=folder.model, ids=ids, padding=None, config=folder.config, new_tokens=20, temperature=1.0, top_k=None,
        top_p=None, uniforms=None, cache=True,
    )  # fmt: skip
    assert [int(tokens[0]) for tokens, _ in written] == truth[0, 5:].tolist()


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Gemma", "GPT2"])
def test_hidden_states_and_gradients_of_a_model_without_a_head_are_those_of_transformers(
    kind: str, tmp_path: Path
) -> None:
    values = CAUSAL["GPT-2" if kind == "GPT2" else "Mistral" if kind == "Mistral" else "Llama, one key head"][1]
    model = made(kind, values, suffix="Model", dtype="float64")
    folder = open_folder(saved(model, tmp_path))
    assert folder.has_head is (kind in ("Gemma", "GPT2"))  # whose head is the embedding
    p, ids = from_names(folder.shapes, folder.leaves()), ids_of(37, 2, 9)
    truth = model(torch.tensor(ids)).last_hidden_state
    dy = numpy.random.default_rng(1).standard_normal(truth.shape)
    truth.backward(torch.tensor(dy))
    h, back = folder.model.hidden_states(p, ids=ids, config=folder.config, dropout_mask=None, cache=None)
    assert_close(h, truth.detach().numpy(), "float64", "the hidden states")
    wanted, found = gradients(model), as_published(folder, back(dy))
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        assert_close(gradient, wanted[name], "float64", name)
