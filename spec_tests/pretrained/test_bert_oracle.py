"""BERT computes what transformers computes: hidden states, the pooled state, every head and every gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

pytest.importorskip("transformers")

from refllm.models import bert
from refllm.parameters import from_names
from refllm.pretrained.folder import open_folder
from spec_tests.pretrained.oracle import as_published, assert_close, gradients, ids_of, made, saved, torch

pytestmark = pytest.mark.oracle

VALUES: dict[str, Any] = {
    "vocab_size": 37, "hidden_size": 10, "intermediate_size": 14, "num_hidden_layers": 2, "num_attention_heads": 5,
    "max_position_embeddings": 16, "type_vocab_size": 3,
}  # fmt: skip
HEADS = {
    "Model": ["last_hidden_state", "pooler_output"],
    "ForPreTraining": ["prediction_logits", "seq_relationship_logits"],
    "ForMaskedLM": ["logits"],
    "ForSequenceClassification": ["logits"],
    "ForQuestionAnswering": ["start_logits", "end_logits"],
    "ForNextSentencePrediction": ["logits"],
}


def heads(name: str, h: Any, p: Any, config: Any) -> tuple[list[Any], list[Any]]:
    """Values and pullbacks of the heads of a class, in the order of HEADS."""
    masked = (bert.masked_logits(h, p, config=config),) if "masked" in config.outputs else ()
    pair = (bert.pair_logits(h, p),) if "pair" in config.outputs else ()
    found: tuple[Any, ...]
    if name == "Model":
        found = ((h, lambda dy: (dy, {})), bert.pooled(h, p))
    elif name == "ForSequenceClassification":
        found = (bert.class_logits(h, p, dropout_mask=None, rate=0.0),)
    elif name == "ForQuestionAnswering":
        found = (bert.span_logits(h, p),)
    else:
        found = (*masked, *pair)
    return [y for y, _ in found], [back for _, back in found]


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("T", [1, 9])
def test_every_head_and_every_gradient_is_that_of_transformers(name: str, dtype: str, T: int, tmp_path: Path) -> None:
    values = {**VALUES, "num_labels": 3} if name == "ForSequenceClassification" else VALUES
    values = {**values, "hidden_act": "gelu_new"} if name == "ForMaskedLM" else values
    model = made("Bert", values, suffix=name, dtype=dtype)
    folder = open_folder(saved(model, tmp_path))
    config, p = folder.config, from_names(folder.shapes, folder.leaves())
    ids, segments = ids_of(37, 2, T, first=1), ids_of(3, 2, T, seed=1)
    mask = numpy.arange(T) < numpy.array([[T], [max(1, T - 2)]])
    truth = model(
        input_ids=torch.tensor(ids), token_type_ids=torch.tensor(segments), attention_mask=torch.tensor(mask).long()
    )
    h, back = bert.encode(
        p, ids=ids, segments=segments, attention_mask=mask[:, None, None], config=config, dropout_mask=None
    )
    values_of, backs = heads(name, h, p, config)
    wanted = [getattr(truth, one) for one in HEADS[name]]
    random = numpy.random.default_rng(3)
    seeds = [random.standard_normal(tuple(y.shape)).astype(dtype) for y in wanted]
    places = mask[:, :, None] if T > 1 else numpy.ones((2, 1, 1), bool)
    seeds = [dy * places[..., : dy.shape[-1]] if dy.ndim == 3 else dy for dy in seeds]  # nothing comes from padding
    if name == "ForQuestionAnswering":
        seeds = [dy * mask for dy in seeds]
    sum((y * torch.tensor(dy)).sum() for y, dy in zip(wanted, seeds, strict=True)).backward()
    found = values_of
    if name == "ForQuestionAnswering":
        found, seeds = [values_of[0][..., 0], values_of[0][..., 1]], [numpy.stack(seeds, axis=-1)]
    for y, t in zip(found, wanted, strict=True):
        real = mask if y.ndim == 2 and y.shape == mask.shape else mask[:, :, None] if y.ndim == 3 else True
        assert_close(y * real, t.detach().numpy() * real, dtype, "a head")
    dh, parts = numpy.zeros_like(h), []
    for pull, dy in zip(backs, seeds, strict=True):
        d, part = pull(dy)
        dh = dh + d
        parts.append(part)
    gradient = as_published(folder, bert.whole_gradient(p, back(dh), *parts))
    theirs = gradients(model)
    assert gradient.keys() == theirs.keys()
    largest = max(numpy.abs(g).max() for g in theirs.values())
    for key, g in gradient.items():
        off = numpy.abs(g - theirs[key]).max()
        assert off <= {"float32": 1e-5, "float64": 1e-12}[dtype] * largest, f"{key} is off by {off:.3g}"
