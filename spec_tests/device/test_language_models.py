"""Every language model, its loss and its generation on a device."""

from __future__ import annotations

import itertools
from typing import Any

import numpy
import pytest

from refllm.generation.generate import generate
from refllm.models import hybrid
from refllm.objectives.causal import causal_loss
from refllm.parameters import map_leaves
from spec_tests import language_models as tested
from spec_tests.devices import DOUBLE, Device, assert_agrees, every_device, transferred
from spec_tests.gradients import random_tree
from spec_tests.language_models import V, model_of, tiny_gpt, tiny_llama, tiny_switch

RANDOM = numpy.random.default_rng(7)
B, T = 3, 6
IDS, TARGETS = RANDOM.integers(0, V, (B, T)), RANDOM.integers(-1, V, (B, T))
VARIANTS: dict[str, Any] = {
    f"gpt-{norm}-{positions}-{'tied' if tied else 'untied'}-{dropout}": tiny_gpt(
        norm=norm, positions=positions, tied=tied, activation="gelu_erf" if tied else "relu", dropout=dropout
    )
    for (norm, positions, tied), dropout in zip(
        itertools.product(("pre", "post"), ("learned", "sinusoidal"), (True, False)),
        itertools.cycle([0.0, 0.25, 0.25]),
    )
}
VARIANTS |= {
    f"llama-{positions}-{dropout}": tiny_llama(
        kv_heads=kv_heads, head_width=head_width, positions=positions, tied=tied, dropout=dropout
    )
    for positions, kv_heads, head_width, tied, dropout in [
        ("rotary", 2, 0, False, 0.25),
        ("rotary_interleaved", 1, 4, True, 0.0),
        ("alibi", 4, 3, False, 0.0),
        ("relative", 2, 1, True, 0.25),
        ("none", 1, 0, False, 0.0),
    ]
}
VARIANTS |= {
    f"switch-{every}-{factor}-{dropout}": tiny_switch(layers=3, every=every, capacity_factor=factor, dropout=dropout)
    for every, factor, dropout in [(2, 1.0, 0.25), (1, 0.5, 0.0), (3, 3.0, 0.25)]
}
VARIANTS |= {
    "RNN": tested.tiny_recurrent(cell="rnn", dropout=0.25),
    "LSTM": tested.tiny_recurrent(width=4, hidden=4, tied=True),
    "NNLM": tested.tiny_nnlm(direct=True, dropout=0.25),
    "NNLM of bigrams": tested.tiny_nnlm(order=2),
    "hybrid": tested.tiny_hybrid(dropout=0.25),
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def _parameters(config: Any, dtype: str) -> Any:
    return map_leaves(lambda leaf: leaf.astype(dtype), random_tree(model_of(config).shapes(config), seed=2))


def _draws(config: Any) -> Any:
    if not config.dropout:
        return None
    return map_leaves(lambda width: RANDOM.random((B, T, width)) < 0.75, model_of(config).dropout_widths(config))


@pytest.mark.one_in(6)
@every_device
@every_variant
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_and_its_loss_compute_what_they_do_on_the_host(device: Device, config: Any, dtype: str) -> None:
    """For experts the loss is that of training: which of them takes a token, and whether it has a place, is found
    without waiting for the device."""
    model = model_of(config)

    def compute(p: Any, ids: Any, targets: Any, dropout_mask: Any, dy: Any, dloss: Any) -> Any:
        logits, back = model.forward(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=None)
        loss, back_loss = causal_loss(
            p, model=model, ids=ids, targets=targets, ignore=-1, config=config, dropout_mask=dropout_mask
        )
        return logits, back(dy), loss, back_loss(dloss)

    dy = RANDOM.standard_normal((B, T, V)).astype(dtype)
    p, dloss = _parameters(config, dtype), numpy.asarray(0.25, dtype)
    assert_agrees(device, compute, p, IDS, TARGETS, _draws(config), dy, dloss)


@every_device
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
@pytest.mark.parametrize("padded", [False, True])
def test_the_hybrid_encodes_in_both_directions_as_on_the_host(device: Device, cell: str, padded: bool) -> None:
    config = tested.tiny_hybrid(cell=cell, bidirectional=True, dropout=0.25)
    attention_mask = numpy.arange(T) < numpy.array([[6], [1], [4]]) if padded else None

    def compute(p: Any, ids: Any, attention_mask: Any, dropout_mask: Any, dy: Any) -> Any:
        h, back = hybrid.encode(p, ids=ids, attention_mask=attention_mask, config=config, dropout_mask=dropout_mask)
        return h, back(dy)

    dy = RANDOM.standard_normal((B, T, 6)).astype("float32")
    assert_agrees(device, compute, _parameters(config, "float32"), IDS, attention_mask, _draws(config), dy)


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"uniforms": RANDOM.random((B, 9))},
    "top-k": {"uniforms": RANDOM.random((B, 9)), "top_k": 3, "temperature": 0.8},
    "top-p": {"uniforms": RANDOM.random((B, 9)), "top_p": 0.7},
    "ragged": {"uniforms": RANDOM.random((B, 9)), "padding": numpy.array([0, 2, 4])},
    "keeping nothing": {"cache": False},
}


# By default every model in half of the ways, and every way of half of the models.
GENERATED = [
    pytest.param(config, way, id=f"{name}-{way}", marks=() if (i + j) % 2 == 0 else pytest.mark.slow)
    for i, (name, config) in enumerate(VARIANTS.items())
    for j, way in enumerate(WAYS)
]


@pytest.mark.one_in(18)
@every_device
@pytest.mark.parametrize(("config", "way"), GENERATED)
def test_generation_writes_what_it_does_on_the_host(device: Device, config: Any, way: str) -> None:
    """Nine tokens after six slide the window of eight. A token needs one reading of logits, and goes back as an id."""
    how = {
        "padding": None, "temperature": 1.0, "top_k": None, "top_p": None, "uniforms": None, "cache": True, **WAYS[way],
    }  # fmt: skip
    padding = how.pop("padding")

    def written(p: Any, ids: Any, padding: Any) -> Any:
        steps = generate(p, model=model_of(config), ids=ids, config=config, new_tokens=9, padding=padding, **how)
        return [list(step) for step in steps]

    counts = transferred(device, written, _parameters(config, "float64"), IDS, padding)
    if device is DOUBLE:
        assert (counts.host_to_device, counts.device_to_host, counts.synchronisations) == (9, 9, 9)
