"""GPT, the causal objective, the optimisers and the generator on a device."""

from __future__ import annotations

import itertools
from typing import Any

import numpy
import pytest

from refllm.generation.generate import generate
from refllm.generation.sampling import choose
from refllm.models import gpt
from refllm.objectives.causal import causal_loss, sentence_log_probability
from refllm.optim.clip import clip_factor
from refllm.optim.update import adam, adamw, sgd
from refllm.parameters import map_leaves
from spec_tests.devices import DOUBLE, Device, assert_agrees, assert_same, every_device, moved, replaced
from spec_tests.gradients import random_tree

RANDOM = numpy.random.default_rng(7)
B, T, V = 3, 6, 11
IDS, TARGETS = RANDOM.integers(0, V, (B, T)), RANDOM.integers(-1, V, (B, T))
VARIANTS = [
    gpt.Config(
        vocabulary=V, context=8, layers=2, heads=2, width=8, hidden=12, norm=norm, positions=positions, tied=tied,
        activation="gelu_erf" if tied else "relu", dropout=dropout,
    )
    for (norm, positions, tied), dropout in zip(
        itertools.product(("pre", "post"), ("learned", "sinusoidal"), (True, False)),
        itertools.cycle([0.0, 0.25, 0.25]),
    )
]  # fmt: skip
every_variant = pytest.mark.parametrize(
    "config", VARIANTS, ids=lambda c: f"{c.norm}-{c.positions}-{'tied' if c.tied else 'untied'}-{c.dropout}"
)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def _parameters(config: gpt.Config, dtype: str = "float32") -> Any:
    return map_leaves(lambda leaf: leaf.astype(dtype), random_tree(gpt.shapes(config), seed=2))


@every_device
@every_variant
@every_dtype
def test_gpt_and_its_loss_compute_what_they_do_on_the_host(device: Device, config: gpt.Config, dtype: str) -> None:
    keep = RANDOM.random((len(gpt.dropout_widths(config)), B, T, config.width)) < 0.75 if config.dropout else None

    def compute(p: Any, ids: Any, targets: Any, keep: Any, dy: Any, dloss: Any) -> Any:
        logits, back = gpt.forward(p, ids=ids, config=config, keep=keep, cache=None)
        loss, back_loss = causal_loss(p, model=gpt, ids=ids, targets=targets, ignore=-1, config=config, keep=keep)
        return logits, back(dy), loss, back_loss(dloss)

    dy = RANDOM.standard_normal((B, T, V)).astype(dtype)
    assert_agrees(device, compute, _parameters(config, dtype), IDS, TARGETS, keep, dy, numpy.asarray(0.25, dtype))


@every_device
@pytest.mark.parametrize("ignore", [None, -1])
def test_the_probability_of_a_sentence_is_the_hosts(device: Device, ignore: int | None) -> None:
    ids = IDS if ignore is None else TARGETS
    logits = RANDOM.standard_normal((B, T, V))
    assert_agrees(device, lambda z, i: sentence_log_probability(z, ids=i, ignore=ignore), logits, ids)


ADAM = {"step": 3, "lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "decay": 0.1}
RULES: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "sgd": (sgd, 3, {"lr": 0.1, "momentum": 0.9, "decay": 0.01}),
    "adam": (adam, 4, ADAM),
    "adamw": (adamw, 4, ADAM),
}


@every_device
@every_dtype
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("in_place", [False, True])
def test_an_optimiser_steps_as_on_the_host(device: Device, rule: str, dtype: str, in_place: bool) -> None:
    update, count, keywords = RULES[rule]
    arrays = [numpy.abs(RANDOM.standard_normal((4, 5))).astype(dtype) for _ in range(count)]

    def compute(p: Any, g: Any, *moments: Any) -> Any:
        p, moments = p.copy(), tuple(m.copy() for m in moments)
        return update(p, g, *moments, **keywords, out=(p, *moments) if in_place else None)

    assert_agrees(device, compute, *arrays)


@every_device
@pytest.mark.parametrize("limit", [0.5, 100.0, float("inf")])
def test_clipping_waits_for_nothing(device: Device, limit: float) -> None:
    gradients = [RANDOM.standard_normal(shape).astype("float32") for shape in [(3, 4), (5,), (0,)]]
    assert_agrees(device, lambda *g: clip_factor(g, limit=limit), *gradients)


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"uniforms": RANDOM.random((B, 9))},
    "top-k": {"uniforms": RANDOM.random((B, 9)), "top_k": 3, "temperature": 0.8},
    "top-p": {"uniforms": RANDOM.random((B, 9)), "top_p": 0.7},
    "ragged": {"uniforms": RANDOM.random((B, 9)), "padding": numpy.array([0, 2, 4])},
    "without a cache": {"cache": False},
}


@every_device
@every_variant
@pytest.mark.parametrize("way", WAYS)
def test_generation_writes_what_it_does_on_the_host(device: Device, config: gpt.Config, way: str) -> None:
    """Nine tokens after six slide the window of eight. A token needs one reading of logits, and goes back as an id."""
    how = {
        "padding": None, "temperature": 1.0, "top_k": None, "top_p": None, "uniforms": None, "cache": True, **WAYS[way],
    }  # fmt: skip

    def written(p: Any, ids: Any, padding: Any) -> Any:
        steps = generate(
            p, model=gpt, ids=ids, config=config, new_tokens=9, padding=padding,
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


@every_device
@pytest.mark.parametrize("way", [way for way in WAYS if way != "ragged"])
def test_a_choice_can_be_made_on_a_device(device: Device, way: str) -> None:
    """Without leaving it: the sampler is written once for both."""
    how = {"temperature": 1.0, "top_k": None, "top_p": None, **WAYS[way]}
    uniforms = how.pop("uniforms", None)
    how.pop("cache", None)

    def compute(logits: Any, uniforms: Any) -> Any:
        return choose(logits, uniforms=None if uniforms is None else uniforms[:, 0], **how)

    assert_agrees(device, compute, RANDOM.standard_normal((B, V)), uniforms)
