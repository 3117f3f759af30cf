"""The optimisers, the chain rule and the choice of tokens on a device."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.generation.sampling import choose
from refllm.objectives.causal import sentence_log_probability
from refllm.optim.clip import clip_factor
from refllm.optim.update import adam, adamw, sgd
from spec_tests.devices import Device, assert_agrees, every_device

RANDOM = numpy.random.default_rng(7)
B, T, V = 3, 6, 11
IDS, TARGETS = RANDOM.integers(0, V, (B, T)), RANDOM.integers(-1, V, (B, T))
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


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
}


@every_device
@pytest.mark.parametrize("way", WAYS)
def test_a_choice_can_be_made_on_a_device(device: Device, way: str) -> None:
    """Without leaving it: the sampler is written once for both."""
    how = {"temperature": 1.0, "top_k": None, "top_p": None, **WAYS[way]}
    uniforms = how.pop("uniforms", None)

    def compute(logits: Any, uniforms: Any) -> Any:
        return choose(logits, uniforms=None if uniforms is None else uniforms[:, 0], **how)

    assert_agrees(device, compute, RANDOM.standard_normal((B, V)), uniforms)
