"""Llama on a device, with every scheme of positions."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.generation.generate import generate
from refllm.models import llama
from refllm.objectives.causal import causal_loss
from refllm.parameters import map_leaves
from spec_tests.devices import DOUBLE, Device, assert_agrees, assert_same, every_device, moved, replaced
from spec_tests.gradients import random_tree

RANDOM = numpy.random.default_rng(7)
B, T, V = 3, 6, 11
IDS, TARGETS = RANDOM.integers(0, V, (B, T)), RANDOM.integers(-1, V, (B, T))
VARIANTS = [
    llama.Config(
        vocabulary=V, context=8, layers=2, heads=4, kv_heads=kv_heads, width=8, head_width=head_width, hidden=12,
        positions=positions, tied=tied, dropout=dropout,
    )
    for positions, kv_heads, head_width, tied, dropout in [
        ("rotary", 2, 0, False, 0.25),
        ("rotary_interleaved", 1, 4, True, 0.0),
        ("alibi", 4, 3, False, 0.0),
        ("relative", 2, 1, True, 0.25),
        ("none", 1, 0, False, 0.0),
    ]
]  # fmt: skip
every_variant = pytest.mark.parametrize("config", VARIANTS, ids=lambda c: f"{c.positions}-{c.dropout}")
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def _parameters(config: llama.Config, dtype: str = "float32") -> Any:
    return map_leaves(lambda leaf: leaf.astype(dtype), random_tree(llama.shapes(config), seed=2))


@every_device
@every_variant
@every_dtype
def test_llama_and_its_loss_compute_what_they_do_on_the_host(device: Device, config: llama.Config, dtype: str) -> None:
    keep = [RANDOM.random((B, T, width)) < 0.75 for width in llama.dropout_widths(config)] if config.dropout else None

    def compute(p: Any, ids: Any, targets: Any, keep: Any, dy: Any, dloss: Any) -> Any:
        logits, back = llama.forward(p, ids=ids, config=config, keep=keep, cache=None)
        loss, back_loss = causal_loss(p, model=llama, ids=ids, targets=targets, ignore=-1, config=config, keep=keep)
        return logits, back(dy), loss, back_loss(dloss)

    dy = RANDOM.standard_normal((B, T, V)).astype(dtype)
    assert_agrees(device, compute, _parameters(config, dtype), IDS, TARGETS, keep, dy, numpy.asarray(0.25, dtype))


WAYS: dict[str, dict[str, Any]] = {
    "drawn": {"uniforms": RANDOM.random((B, 9))},
    "ragged": {"uniforms": RANDOM.random((B, 9)), "padding": numpy.array([0, 2, 4])},
    "without a cache": {"cache": False},
}


@every_device
@every_variant
@pytest.mark.parametrize("way", WAYS)
def test_generation_writes_what_it_does_on_the_host(device: Device, config: llama.Config, way: str) -> None:
    """Nine tokens after six slide the window of eight. A token needs one reading of logits, and goes back as an id."""
    how = {
        "padding": None, "temperature": 1.0, "top_k": None, "top_p": None, "uniforms": None, "cache": True, **WAYS[way],
    }  # fmt: skip

    def written(p: Any, ids: Any, padding: Any) -> Any:
        steps = generate(
            p, model=llama, ids=ids, config=config, new_tokens=9, padding=padding,
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
