"""Every block on a device."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import refllm.blocks
from refllm.blocks.feed_forward import ACTIVATIONS, feed_forward, feed_forward_shapes
from refllm.blocks.lm_head import lm_loss
from refllm.blocks.residual import maybe_dropout, norm_shapes, post_norm, pre_norm
from refllm.blocks.self_attention import self_attention, self_attention_shapes
from refllm.blocks.transformer_layer import transformer_layer, transformer_layer_shapes
from refllm.parameters import map_leaves
from spec_tests.devices import Device, assert_agrees, every_device, value_and_gradients
from spec_tests.gradients import random_tree

B, T, H, C, F, V = 2, 5, 2, 6, 7, 9
RANDOM = numpy.random.default_rng(5)


def _normal(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype("float32")


def _tree(shapes: Any) -> Any:
    return map_leaves(lambda leaf: leaf.astype("float32"), random_tree(shapes, seed=1))


def _keep() -> Any:
    return RANDOM.random((B, T, C)) < 0.7


X = _normal(B, T, C)
PADDED = numpy.arange(T) >= numpy.arange(B)[:, None, None, None]
LAYER = {"heads": H, "causal": True, "eps": 1e-5, "rate": 0.3, "cache": None}
RESIDUAL = (X, _tree(norm_shapes(C)), _tree(feed_forward_shapes(C, F)))


def _around_feed_forward(residual: Callable[..., Any]) -> Callable[..., Any]:
    """The sublayer's parameters as an argument, so that they go to the device with the others."""

    def call(x: Any, norm: Any, p: Any, **keywords: Any) -> Any:
        return residual(x, norm, lambda z: feed_forward(z, p, activation="gelu_tanh"), **keywords)

    call.__name__ = residual.__name__
    return call


CASES: list[tuple[Callable[..., Any], Any, dict[str, Any]]] = [
    *((feed_forward, (X, _tree(feed_forward_shapes(C, F))), {"activation": name}) for name in ACTIVATIONS),
    *(
        (
            self_attention,
            (X, _tree(self_attention_shapes(C))),
            {"heads": H, "causal": causal, "allowed": allowed, "cache": None},
        )
        for causal, allowed in [(False, None), (True, None), (True, PADDED)]
    ),
    *(
        (_around_feed_forward(residual), RESIDUAL, {"eps": 1e-5, "keep": keep, "rate": 0.3})
        for residual in (pre_norm, post_norm)
        for keep in (None, _keep())
    ),
    *(
        (
            transformer_layer,
            (X, _tree(transformer_layer_shapes(C, F))),
            {**LAYER, "norm": norm, "activation": activation, "allowed": allowed, "keep": keep},
        )
        for norm, activation, allowed, keep in [
            ("pre", "gelu_tanh", None, None),
            ("post", "relu", PADDED, (_keep(), _keep())),
        ]
    ),
    *((maybe_dropout, (X,), {"keep": keep, "rate": 0.3}) for keep in (None, _keep())),
    (lm_loss, (X, _normal(C, V)), {"targets": RANDOM.integers(0, V, (B, T)), "ignore": 1}),
]


@every_device
@pytest.mark.parametrize(("block", "arrays", "keywords"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_block_computes_what_it_does_on_the_host_and_waits_for_nothing(
    block: Callable[..., Any], arrays: Any, keywords: Any, device: Device
) -> None:
    dy = RANDOM.standard_normal(block(*arrays, **keywords)[0].shape).astype("float32")
    assert_agrees(device, lambda *a: value_and_gradients(block, *a), arrays, keywords, (dy,))


def test_every_block_has_a_case() -> None:
    found = set()
    for module in pkgutil.iter_modules(refllm.blocks.__path__, "refllm.blocks."):
        for name, f in vars(importlib.import_module(module.name)).items():
            if inspect.isfunction(f) and f.__module__ == module.name and not name.startswith("_"):
                found.add(name)
    assert {name for name in found if not name.endswith("_shapes")} == {case[0].__name__ for case in CASES}
