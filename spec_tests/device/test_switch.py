"""The Switch Transformer, its layer and the contrastive objective on a device."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.models import bert, switch
from refllm.objectives.contrastive import Contrastive
from refllm.parameters import map_leaves
from spec_tests.devices import Device, assert_agrees, every_device
from spec_tests.gradients import random_tree

RANDOM = numpy.random.default_rng(7)
B, T, V = 3, 6, 11
IDS = RANDOM.integers(0, V, (B, T))
VARIANTS = [
    switch.Config(
        vocabulary=V, context=8, layers=3, heads=2, width=8, hidden=12, experts=3, every=every,
        capacity_factor=factor, dropout=dropout,
    )
    for every, factor, dropout in [(2, 1.0, 0.25), (1, 0.5, 0.0), (3, 3.0, 0.25)]
]  # fmt: skip
every_variant = pytest.mark.parametrize("config", VARIANTS, ids=lambda c: f"{c.every}-{c.capacity_factor}-{c.dropout}")
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def _parameters(shapes: Any, dtype: str) -> Any:
    return map_leaves(lambda leaf: leaf.astype(dtype), random_tree(shapes, seed=2))


@every_device
@every_variant
@every_dtype
def test_training_and_use_compute_what_they_do_on_the_host(device: Device, config: switch.Config, dtype: str) -> None:
    """Which expert takes a token, and whether it has a place, is found without waiting for the device."""
    widths = switch.dropout_widths(config)
    dropout_mask = map_leaves(lambda n: RANDOM.random((B, T, n)) < 0.75, widths) if config.dropout else None

    def compute(p: Any, ids: Any, dropout_mask: Any, dh: Any, dbalance: Any, dy: Any) -> Any:
        values, back = switch.balanced_states(p, ids=ids, config=config, dropout_mask=dropout_mask)
        logits, back_logits = switch.forward(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=None)
        return values, back(dh, dbalance), logits, back_logits(dy)

    dh, dy = (RANDOM.standard_normal((B, T, n)).astype(dtype) for n in (config.width, V))
    assert_agrees(
        device,
        compute,
        _parameters(switch.shapes(config), dtype),
        IDS,
        dropout_mask,
        dh,
        numpy.asarray(0.25, dtype),
        dy,
    )


@every_device
@every_dtype
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_the_contrastive_objective_computes_what_it_does_on_the_host(
    device: Device, dtype: str, dropout: float
) -> None:
    config = bert.Config(vocabulary=V, context=8, layers=1, heads=2, width=8, hidden=12, dropout=dropout)
    objective = Contrastive(bert, config, temperature=0.2)
    batch = {
        "ids": RANDOM.integers(0, V, (B, 2, T)),
        "token_mask": numpy.arange(T) < RANDOM.integers(1, T + 1, (B, 2, 1)),
    }
    shapes = objective.dropout_shapes(batch)
    dropout_mask = map_leaves(lambda shape: RANDOM.random(shape) < 0.75, shapes) if dropout else None

    def compute(p: Any, batch: Any, dropout_mask: Any, dy: Any) -> Any:
        y, back = objective.loss(p, batch, totals=B, dropout_mask=dropout_mask)
        return y, back(dy)

    assert_agrees(
        device, compute, _parameters(bert.shapes(config), dtype), batch, dropout_mask, numpy.asarray(0.5, dtype)
    )  # fmt: skip
