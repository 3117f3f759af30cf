"""The encoder-decoder, its objectives and its generation on a device."""

from __future__ import annotations

import itertools
from typing import Any

import numpy
import pytest

from refllm.generation.beam import beam_search
from refllm.generation.sequence import write
from refllm.generation.writer import CausalWriter, SequenceWriter
from refllm.models import encoder_decoder, gpt
from refllm.objectives.denoising import denoising_loss
from refllm.objectives.seq2seq import seq2seq_loss, shifted_right
from refllm.parameters import map_leaves
from spec_tests.devices import DOUBLE, Device, assert_agrees, every_device, transferred
from spec_tests.gradients import random_tree

RANDOM = numpy.random.default_rng(11)
B, S, T, V = 2, 5, 4, 7
SOURCE, TARGETS = RANDOM.integers(0, V, (B, S)), RANDOM.integers(-1, V, (B, T))
ALLOWED, COUNTED = numpy.arange(S) < numpy.array([[5], [3]]), RANDOM.random((B, T)) < 0.6
SIZES: dict[str, Any] = {
    "vocabulary": V, "context": 9, "encoder_layers": 1, "decoder_layers": 2, "heads": 2, "head_width": 3, "width": 4,
    "hidden": 5, "dropout": 0.25,
}  # fmt: skip
T5: dict[str, Any] = {
    **SIZES, "norm": "pre", "rms": True, "positions": "relative", "biases": False, "buckets": 4, "farthest": 5,
}  # fmt: skip
VARIANTS = {
    "2017": encoder_decoder.Config(**SIZES, scaled_embedding=True),
    "BART": encoder_decoder.Config(**SIZES, positions="learned", activation="gelu_erf", embedding_norm=True),
    "T5": encoder_decoder.Config(**T5, scaled_output=True),
    "T5 1.1": encoder_decoder.Config(**T5, activation="gelu_tanh", gated=True, tied=False),
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def _parameters(config: encoder_decoder.Config, dtype: str) -> Any:
    return map_leaves(lambda leaf: leaf.astype(dtype), random_tree(encoder_decoder.shapes(config), seed=2))


def _dropout_mask(config: encoder_decoder.Config) -> Any:
    widths, lengths = encoder_decoder.dropout_widths(config), {"encoder": S, "decoder": T}
    return {
        half: map_leaves(lambda width, n=n: RANDOM.random((B, n, width)) < 0.75, widths[half])
        for half, n in lengths.items()
    }


@pytest.mark.one_in(4)
@every_device
@every_variant
@pytest.mark.parametrize(("dtype", "drop", "padded"), [("float32", True, True), ("float64", False, False)])
def test_the_model_and_its_losses_compute_what_they_do_on_the_host(
    device: Device, config: encoder_decoder.Config, dtype: str, drop: bool, padded: bool
) -> None:
    dropout_mask, attention_mask = _dropout_mask(config) if drop else None, ALLOWED if padded else None

    def compute(
        p: Any, source: Any, attention_mask: Any, targets: Any, counted: Any, dropout_mask: Any, dy: Any, dloss: Any
    ) -> Any:
        same = {"source": source, "attention_mask": attention_mask, "config": config, "dropout_mask": dropout_mask}
        inputs = shifted_right(targets, start=1, ignore=-1)
        logits, back = encoder_decoder.forward(p, ids=inputs, **same)
        loss, back_loss = seq2seq_loss(
            p, model=encoder_decoder, inputs=inputs, targets=targets, ignore=-1, smoothing=0.1, **same
        )
        noise, back_noise = denoising_loss(p, model=encoder_decoder, ids=inputs, counted=counted, start=1, **same)
        return logits, back(dy), loss, back_loss(dloss), noise, back_noise(dloss)

    dy = RANDOM.standard_normal((B, T, V)).astype(dtype)
    p, dloss = _parameters(config, dtype), numpy.asarray(0.25, dtype)
    assert_agrees(device, compute, p, SOURCE, attention_mask, TARGETS, COUNTED, dropout_mask, dy, dloss)


BEAMS: dict[str, Any] = {"new_tokens": 6, "end": 2, "beams": 3, "length_penalty": 1.0}
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"uniforms": None},
    "drawn": {"uniforms": RANDOM.random((B, 6))},
}


@pytest.mark.one_in(4)
@every_device
@every_variant
@pytest.mark.parametrize("way", ["beams", *WAYS])
def test_targets_are_written_as_on_the_host(device: Device, config: encoder_decoder.Config, way: str) -> None:
    """A step reads the logits once, and sends the tokens, and for beams which rows to copy where."""

    def written(p: Any, source: Any, attention_mask: Any) -> Any:
        writer = SequenceWriter(
            p, model=encoder_decoder, config=config, source=source, attention_mask=attention_mask, room=6
        )
        return _written(writer, numpy.ones((B, 1), int), way)

    _assert_written_the_same(device, written, (_parameters(config, "float64"), SOURCE, ALLOWED))


@every_device
@pytest.mark.parametrize(("way", "padding"), list(itertools.product(["beams", *WAYS], [None, numpy.array([0, 2])])))
def test_a_decoder_only_model_writes_as_on_the_host(device: Device, way: str, padding: Any) -> None:
    config = gpt.Config(vocabulary=V, context=10, layers=2, heads=2, width=8, hidden=12)
    p = random_tree(gpt.shapes(config), seed=3)

    def written(p: Any, padding: Any) -> Any:
        writer = CausalWriter(p, model=gpt, config=config, rows=B, room=10, padding=padding)
        return _written(writer, SOURCE, way)

    _assert_written_the_same(device, written, (p, padding))


def _written(writer: Any, ids: Any, way: str) -> Any:
    if way == "beams":
        return [[(t.tokens, t.score) for t in texts] for texts in beam_search(writer, ids=ids, **BEAMS)]
    return write(writer, ids=ids, new_tokens=6, end=2, temperature=1.0, top_k=None, top_p=None, **WAYS[way])


def _assert_written_the_same(device: Device, written: Any, arguments: Any) -> None:
    counts = transferred(device, written, *arguments)
    if device is DOUBLE:
        assert 1 <= counts.device_to_host == counts.synchronisations <= 6
        assert counts.host_to_device <= 3 * 6
