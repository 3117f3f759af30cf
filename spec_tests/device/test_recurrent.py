"""The language models that carry a state, and the two-way hybrid, on a device."""

from __future__ import annotations

import importlib
from typing import Any

import numpy
import pytest

from refllm.generation.generate import generate
from refllm.models import hybrid, nnlm, recurrent_lm
from refllm.objectives.causal import causal_loss
from refllm.parameters import map_leaves
from spec_tests.devices import DOUBLE, Device, assert_agrees, assert_same, every_device, moved, replaced
from spec_tests.gradients import random_tree

RANDOM = numpy.random.default_rng(7)
B, T, V = 3, 6, 11
IDS, TARGETS = RANDOM.integers(0, V, (B, T)), RANDOM.integers(-1, V, (B, T))
VARIANTS: dict[str, Any] = {
    "RNN": recurrent_lm.Config(vocabulary=V, context=8, width=3, hidden=5, cell="rnn", dropout=0.25),
    "LSTM": recurrent_lm.Config(vocabulary=V, context=8, width=4, hidden=4, tied=True),
    "NNLM": nnlm.Config(vocabulary=V, context=8, order=4, width=3, hidden=5, direct=True, dropout=0.25),
    "NNLM of bigrams": nnlm.Config(vocabulary=V, context=8, order=2, width=3, hidden=5),
    "hybrid": hybrid.Config(vocabulary=V, context=8, heads=2, width=4, hidden=3, dropout=0.25),
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def _model(config: Any) -> Any:
    return importlib.import_module(type(config).__module__)


def _parameters(config: Any, dtype: str = "float32") -> Any:
    return map_leaves(lambda leaf: leaf.astype(dtype), random_tree(_model(config).shapes(config), seed=2))


def _draws(config: Any) -> list[Any] | None:
    if not config.dropout:
        return None
    return [RANDOM.random((B, T, width)) < 0.75 for width in _model(config).dropout_widths(config)]


@every_device
@every_variant
@every_dtype
def test_a_model_and_its_loss_compute_what_they_do_on_the_host(device: Device, config: Any, dtype: str) -> None:
    model = _model(config)

    def compute(p: Any, ids: Any, targets: Any, keep: Any, dy: Any, dloss: Any) -> Any:
        logits, back = model.forward(p, ids=ids, config=config, keep=keep, cache=None)
        loss, back_loss = causal_loss(p, model=model, ids=ids, targets=targets, ignore=-1, config=config, keep=keep)
        return logits, back(dy), loss, back_loss(dloss)

    dy = RANDOM.standard_normal((B, T, V)).astype(dtype)
    assert_agrees(
        device, compute, _parameters(config, dtype), IDS, TARGETS, _draws(config), dy, numpy.asarray(0.25, dtype)
    )


@every_device
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
@pytest.mark.parametrize("padded", [False, True])
def test_the_hybrid_encodes_in_both_directions_as_on_the_host(device: Device, cell: str, padded: bool) -> None:
    config = hybrid.Config(
        vocabulary=V, context=8, heads=2, width=4, hidden=3, cell=cell, bidirectional=True, dropout=0.25
    )
    allowed = numpy.arange(T) < numpy.array([[6], [1], [4]]) if padded else None

    def compute(p: Any, ids: Any, allowed: Any, keep: Any, dy: Any) -> Any:
        h, back = hybrid.encode(p, ids=ids, allowed=allowed, config=config, keep=keep)
        return h, back(dy)

    dy = RANDOM.standard_normal((B, T, 6)).astype("float32")
    assert_agrees(device, compute, _parameters(config), IDS, allowed, _draws(config), dy)


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"uniforms": RANDOM.random((B, 9))},
    "ragged": {"uniforms": RANDOM.random((B, 9)), "padding": numpy.array([0, 2, 4])},
    "without a state": {"cache": False},
}


@every_device
@every_variant
@pytest.mark.parametrize("way", WAYS)
def test_generation_writes_what_it_does_on_the_host(device: Device, config: Any, way: str) -> None:
    """A token needs one reading of logits, and goes back as an id."""
    how = {
        "padding": None, "temperature": 1.0, "top_k": None, "top_p": None, "uniforms": None, "cache": True, **WAYS[way],
    }  # fmt: skip

    def written(p: Any, ids: Any, padding: Any) -> Any:
        steps = generate(
            p, model=_model(config), ids=ids, config=config, new_tokens=9, padding=padding,
            **{name: value for name, value in how.items() if name != "padding"},
        )  # fmt: skip
        return [list(step) for step in steps]

    arguments = (_parameters(config, "float64"), IDS, how["padding"])
    with replaced():
        expected = written(*arguments)
    with device.present():
        there = moved(arguments)
        with device.counting() as counts:
            got = written(*there)
    assert_same(device, expected, got)
    if device is DOUBLE:
        assert (counts.host_to_device, counts.device_to_host, counts.synchronisations) == (9, 9, 9)
