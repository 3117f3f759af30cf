"""Encoder-decoders compute what transformers computes: the memory, the logits and every gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

pytest.importorskip("transformers")

from refllm.commands.sequences import Search, tokens_for
from refllm.models import encoder_decoder
from refllm.parameters import from_names
from refllm.pretrained.fields import Fields
from refllm.pretrained.folder import Folder, open_folder
from refllm.pretrained.writing import writing_in
from refllm.trained import Trained
from spec_tests.pretrained.oracle import (
    SEQUENCE,
    as_published,
    assert_close,
    gradients,
    ids_of,
    made,
    saved,
    torch,
    transformers,
)

pytestmark = pytest.mark.oracle


def opened(which: str, directory: Path, dtype: str) -> tuple[Any, Folder, Any]:
    kind, values = SEQUENCE[which]
    model = made(kind, values, suffix="ForConditionalGeneration", dtype=dtype)
    folder = open_folder(saved(model, directory))
    return model, folder, from_names(folder.shapes, folder.leaves())


@pytest.mark.parametrize("which", SEQUENCE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("S", "T"), [(1, 1), (7, 9), (12, 3)])
def test_memory_logits_and_every_gradient_are_those_of_transformers(
    which: str, dtype: str, S: int, T: int, tmp_path: Path
) -> None:
    model, folder, p = opened(which, tmp_path, dtype)
    source, ids = ids_of(37, 2, S, first=2), ids_of(37, 2, T, seed=1, first=2)
    mask = numpy.arange(S) < numpy.array([[S], [max(1, S - 2)]])
    mask = numpy.ones_like(mask) if which == "Switch" else mask  # there padding takes the places of an expert
    truth = model(
        input_ids=torch.tensor(source), attention_mask=torch.tensor(mask).long(), decoder_input_ids=torch.tensor(ids)
    )
    dy = numpy.random.default_rng(1).standard_normal(truth.logits.shape).astype(dtype)
    truth.logits.backward(torch.tensor(dy))
    memory, _ = encoder_decoder.encode(p, ids=source, attention_mask=mask, config=folder.config, dropout_mask=None)
    y, back = encoder_decoder.forward(
        p, source=source, attention_mask=mask, ids=ids, config=folder.config, dropout_mask=None
    )
    there = mask[:, :, None]
    assert_close(memory * there, truth.encoder_last_hidden_state.detach().numpy() * there, dtype, "the memory")
    assert_close(y, truth.logits.detach().numpy(), dtype, "the logits")
    wanted, found = gradients(model), as_published(folder, back(dy))
    assert found.keys() == wanted.keys()
    largest = max(numpy.abs(g).max() for g in wanted.values())
    bound = 2e-5 if dtype == "float32" else 1e-12 if "BART" in which else 2e-6  # T5's norm is float32 there
    for name, gradient in found.items():
        off = numpy.abs(gradient - wanted[name]).max()
        assert off <= bound * largest, f"{name} is off by {off:.3g} of {largest:.3g}"


ONLY_IDS: Any = None  # in the place of a tokenizer
SEARCHES: list[dict[str, Any]] = [
    {"num_beams": 1},
    {"num_beams": 3},
    {"num_beams": 4, "length_penalty": 0.0, "early_stopping": "never"},
    {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
    {"num_beams": 2, "forced_bos_token_id": 5, "forced_eos_token_id": 2},
]


@pytest.mark.parametrize("which", SEQUENCE)
def test_what_is_written_over_64_tokens_is_what_transformers_generates(which: str, tmp_path: Path) -> None:
    kind, values = SEQUENCE[which]
    longer = {"max_position_embeddings": 80} if kind == "Bart" else {}
    model = made(kind, {**values, **longer, "decoder_start_token_id": 0}, suffix="ForConditionalGeneration").double()
    folder = open_folder(saved(model, tmp_path))
    p, ids = from_names(folder.shapes, folder.leaves()), ids_of(37, 1, 7, first=3)[0]
    kept = kind != "T5"  # whose cache there has the layers of the encoder, and the decoder has more

    def written(said: dict[str, Any], *end: int) -> list[int]:
        fields = Fields({**folder.fields.values, **said}, "config.json")
        writing = writing_in(tmp_path, fields, vocabulary=37)
        trained = Trained(folder.model, folder.config, p, ONLY_IDS, {}, frozenset(end), writing)
        search = Search(said["num_beams"], None, True, 1.0, None, None, 1)
        return list(tokens_for(trained, ids, tokens=64, search=search, device="cpu"))

    alone = written({"num_beams": 1})
    lengths = []
    for said in SEARCHES:
        for end in (2, alone[7]):
            how = {"eos_token_id": end, "pad_token_id": 0, "decoder_start_token_id": 0, "do_sample": False, **said}
            settings = transformers.GenerationConfig(**how, max_new_tokens=64, use_cache=kept)
            with torch.no_grad():
                (wanted,) = model.generate(torch.tensor(ids[None]), settings).tolist()
            found = written(how, end)
            assert found == wanted[1 : len(found) + 1], (said, end)
            assert set(wanted[len(found) + 1 :]) <= {0}, (said, end)
            lengths.append(len(found))
    assert min(lengths) < 64 <= max(lengths)  # some come to their end before, some do not
