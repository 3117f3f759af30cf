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
from refllm.backend import namespace
from refllm.blocks.affine import affine, affine_shapes, concatenated, project
from refllm.blocks.cross_attention import cross_attention, cross_attention_shapes
from refllm.blocks.decoder_layer import decoder_layer
from refllm.blocks.encoder_layer import encoder_layer, maybe_gated
from refllm.blocks.feed_forward import (
    ACTIVATIONS,
    feed_forward,
    feed_forward_shapes,
    feed_forward_without_biases,
)
from refllm.blocks.gated_feed_forward import GATES, gated_feed_forward, gated_feed_forward_shapes
from refllm.blocks.grouped_attention import ROTATIONS, grouped_attention, grouped_attention_shapes
from refllm.blocks.layers import through
from refllm.blocks.llama_layer import llama_layer, llama_layer_shapes
from refllm.blocks.lm_head import lm_loss, maybe_capped, smoothed_lm_loss
from refllm.blocks.recurrent import (
    bidirectional,
    recurrent,
    recurrent_layers,
    recurrent_layers_shapes,
    recurrent_shapes,
)
from refllm.blocks.relative_self_attention import (
    maybe_biased,
    relative_self_attention,
    relative_self_attention_shapes,
)
from refllm.blocks.residual import maybe_dropout, norm_shapes, normalise, post_norm, pre_norm
from refllm.blocks.self_attention import self_attention, self_attention_shapes
from refllm.blocks.stack import distance_bias, maybe_norm, stack, stack_embedding, stack_positions, then_norm
from refllm.blocks.switch_layer import (
    expert_feed_forward,
    switch_layer,
    switch_layer_shapes,
    switch_transformer_layer,
    switch_transformer_layer_shapes,
)
from refllm.blocks.transformer_layer import transformer_layer, transformer_layer_shapes
from refllm.ops.activation import relu
from refllm.parameters import map_leaves
from spec_tests.devices import Device, assert_agrees, every_device, value_and_gradients
from spec_tests.gradients import random_tree

B, T, H, C, F, V = 2, 5, 2, 6, 7, 9
RANDOM = numpy.random.default_rng(5)


def _normal(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype("float32")


def _tree(shapes: Any) -> Any:
    return map_leaves(lambda leaf: leaf.astype("float32"), random_tree(shapes, seed=1))


def _dropout_mask() -> Any:
    return RANDOM.random((B, T, C)) < 0.7


def _dropout_masks(*names: str) -> dict[str, Any]:
    return {name: _dropout_mask() for name in names}


X = _normal(B, T, C)
IDS = RANDOM.integers(0, V, (B, T))
PADDED = numpy.arange(T) >= numpy.arange(B)[:, None, None, None]
LAYER = {"heads": H, "causal": True, "eps": 1e-5, "rate": 0.3, "cache": None}
RESIDUAL = (X, _tree(norm_shapes(C)), _tree(feed_forward_shapes(C, F)))


def _around_feed_forward(residual: Callable[..., Any]) -> Callable[..., Any]:
    """The sublayer's parameters as an argument, so that they go to the device with the others."""

    def call(x: Any, norm: Any, p: Any, **keywords: Any) -> Any:
        return residual(x, norm, lambda z: feed_forward(z, p, activation="gelu_tanh"), **keywords)

    call.__name__ = residual.__name__
    return call


def _without_none(block: Callable[..., Any]) -> Callable[..., Any]:
    """What has no gradient, because it was not given, is left out of the comparison."""

    def call(*arrays: Any, **keywords: Any) -> Any:
        y, back = block(*arrays, **keywords)
        return y, lambda dy: tuple(d for d in back(dy) if d is not None)

    call.__name__ = block.__name__
    return call


def _values_in_a_row(block: Callable[..., Any]) -> Callable[..., Any]:
    """A block of two values, y (B, T, C) and one number a text, with the numbers behind the rest of their text."""

    def call(*arrays: Any, **keywords: Any) -> Any:
        (y, balance), back = block(*arrays, **keywords)
        row = namespace(y).concatenate([y.reshape(len(y), -1), balance[:, None]], axis=1)
        return row, lambda d: back(d[:, :-1].reshape(y.shape), d[:, -1])

    call.__name__ = block.__name__
    return call


def _stacked(block: Callable[..., Any]) -> Callable[..., Any]:
    """Several values as one array."""

    def call(*arrays: Any, **keywords: Any) -> Any:
        ys, back = block(*arrays, **keywords)
        return namespace(ys[0]).stack(ys), lambda dy: back(*dy)

    call.__name__ = block.__name__
    return call


def _normalised_layers(x: Any, layers: Any) -> Any:
    return through(x, layers, lambda x, p, n: normalise(x, p, eps=1e-5))


def _encoder(token: Any, p: Any, **keywords: Any) -> Any:
    def layer(x: Any, r: Any, of_layer: Any, n: int) -> Any:
        return encoder_layer(
            x, r, of_layer, norm="pre", heads=H, scaled=False, attention_mask=None, activation="gelu_tanh", capacity=1,
            eps=1e-5, dropout_mask=None, rate=0.0,
        )  # fmt: skip

    return stack(token, p, layer, **keywords)


_normalised_layers.__name__, _encoder.__name__ = through.__name__, stack.__name__


def _stack_layer(*, decoder: bool, biases: bool) -> Any:
    """The parameters of a layer of an encoder or a decoder, with RMS norms and a gate where there are no biases."""
    norm: Any = norm_shapes(C) if biases else {"g": (C,)}
    p: Any = {"norm1": norm, "attention": relative_self_attention_shapes(C, H, 4, biases=biases)}
    if decoder:
        p |= {"norm2": norm, "cross_attention": cross_attention_shapes(C, H, 4, biases=biases)}
    feed = feed_forward_shapes(C, F) if biases else gated_feed_forward_shapes(C, F)
    return _tree(p | {f"norm{len(p) // 2 + 1}": norm, "feed_forward": feed})


BEFORE = numpy.arange(T) < T - numpy.arange(B)[:, None, None, None]  # the padding of a source is at its end
STACK: dict[str, Any] = {"heads": H, "activation": "gelu_erf", "eps": 1e-5, "rate": 0.3, "capacity": 2}

GROUPED: dict[str, Any] = {
    "heads": 2, "kv_heads": 1, "base": 100.0, "cap": None, "stretch": 1.2, "eps": 1e-5, "cache": None,
}  # fmt: skip
PLACES = numpy.maximum(numpy.arange(T) - numpy.arange(B)[:, None], 0)


def _after_relu(x: Any, p: Any, *, name: str, eps: float) -> Any:
    y, back = relu(x)
    return then_norm(y, lambda dy: (back(dy),), p, name=name, eps=eps)


_after_relu.__name__ = then_norm.__name__  # as the block that it is a case of

CASES: list[tuple[Callable[..., Any], Any, dict[str, Any]]] = [
    *((feed_forward, (X, _tree(feed_forward_shapes(C, F))), {"activation": name}) for name in ACTIVATIONS),
    (feed_forward_without_biases, (X, _tree({"W1": (C, F), "W2": (F, C)})), {"activation": "relu"}),
    *(
        (
            self_attention,
            (X, _tree(self_attention_shapes(C))),
            {"heads": H, "causal": causal, "attention_mask": attention_mask, "cache": None},
        )
        for causal, attention_mask in [(False, None), (True, None), (True, PADDED)]
    ),
    *(
        (_around_feed_forward(residual), RESIDUAL, {"eps": 1e-5, "dropout_mask": dropout_mask, "rate": 0.3})
        for residual in (pre_norm, post_norm)
        for dropout_mask in (None, _dropout_mask())
    ),
    *(
        (
            transformer_layer,
            (X, _tree(transformer_layer_shapes(C, F))),
            {
                **LAYER,
                "norm": norm,
                "activation": activation,
                "attention_mask": attention_mask,
                "dropout_mask": dropout_mask,
            },
        )
        for norm, activation, attention_mask, dropout_mask in [
            ("pre", "gelu_tanh", None, None),
            ("post", "relu", PADDED, _dropout_masks("attention", "feed_forward")),
        ]
    ),
    *((gated_feed_forward, (X, _tree(gated_feed_forward_shapes(C, F))), {"activation": name}) for name in GATES),
    *(
        (
            _without_none(grouped_attention),
            (X, r, _tree(grouped_attention_shapes(C, 2, 1, 4))),
            {**GROUPED, "rotation": rotation, "positions": positions, "causal": True, "attention_mask": attention_mask},
        )
        for rotation, r, positions, attention_mask in [
            *((rotation, None, PLACES, PADDED) for rotation in ROTATIONS),
            ("rotary", None, numpy.arange(T), None),
            (None, _normal(2, 2 * T - 1), PLACES, PADDED),
            (None, None, numpy.arange(T), None),
        ]
    ),
    *(
        (
            _without_none(llama_layer),
            (X, r, _tree(llama_layer_shapes(C, 2, 1, 4, F))),
            {
                **GROUPED,
                "rotation": rotation,
                "positions": PLACES,
                "attention_mask": PADDED,
                "activation": "silu",
                "dropout_mask": dropout_mask,
                "rate": 0.3,
            },
        )
        for rotation, r, dropout_mask in [
            ("rotary", None, _dropout_masks("attention", "feed_forward")),
            (None, _normal(2, 2 * T - 1), None),
        ]
    ),
    *(
        (
            _values_in_a_row(switch_layer),
            (X, _tree(switch_layer_shapes(C, F, 3, biases=biases))),
            {"activation": "relu", "capacity": capacity, "token_mask": token_mask},
        )
        for biases, capacity, token_mask in [(True, 1, None), (False, 2, PADDED[:, 0, 0]), (True, T, None)]
    ),
    (
        expert_feed_forward,
        (_normal(B, 3, 2, C), _tree({k: v for k, v in switch_layer_shapes(C, F, 3, biases=True).items() if k != "Wr"})),
        {"activation": "relu"},
    ),
    (
        _values_in_a_row(switch_transformer_layer),
        (X, _tree(switch_transformer_layer_shapes(C, F, 3))),
        {
            **LAYER,
            "activation": "relu",
            "attention_mask": None,
            "dropout_mask": _dropout_masks("attention", "switch"),
            "capacity": 2,
            "token_mask": None,
        },
    ),
    *((maybe_dropout, (X,), {"dropout_mask": dropout_mask, "rate": 0.3}) for dropout_mask in (None, _dropout_mask())),
    *((normalise, (X, _tree(norm)), {"eps": 1e-5}) for norm in (norm_shapes(C), {"g": (C,)}, {"offset": (C,)})),
    *((maybe_capped, (X,), {"cap": cap}) for cap in (None, 0.5)),
    *((affine, (X, _tree(affine_shapes({"q": (C, F)}, biases=b))), {"name": "q"}) for b in (True, False)),
    *(
        (_stacked(project), (X, _tree(affine_shapes({"q": (C, 12)}, biases=b))), {"name": "q", "heads": 2, "parts": 3})
        for b in (True, False)
    ),
    (concatenated, (_normal(B, H, T, 3), _tree(affine_shapes({"o": (6, C)}, biases=True))), {"name": "o"}),
    *(
        (maybe_gated, (X, _tree(shapes)), {"activation": "relu", "capacity": 2})
        for shapes in (
            feed_forward_shapes(C, F),
            gated_feed_forward_shapes(C, F),
            {"W1": (C, F), "W2": (F, C)},
            switch_layer_shapes(C, F, 3, biases=False),
        )
    ),
    *(
        (
            cross_attention,
            (_normal(2 * B, 3, C), X, _tree(cross_attention_shapes(C, H, 4, biases=biases))),
            {"heads": H, "scaled": biases, "attention_mask": attention_mask, "cache": None},
        )
        for biases, attention_mask in ((True, None), (False, BEFORE))
    ),
    *(
        (
            _without_none(maybe_biased),
            (_normal(B, H, T, 4), _normal(B, H, T, 4), _normal(B, H, T, 4), r),
            {"causal": True, "attention_mask": BEFORE},
        )
        for r in (None, _normal(H, 2 * T - 1))
    ),
    *(
        (
            _without_none(relative_self_attention),
            (X, r, _tree(relative_self_attention_shapes(C, H, 4, biases=biases))),
            {"heads": H, "scaled": biases, "causal": causal, "attention_mask": BEFORE, "cache": None},
        )
        for r, biases, causal in ((None, True, False), (_normal(H, 2 * T - 1), False, True))
    ),
    *(
        (
            _without_none(encoder_layer),
            (X, r, _stack_layer(decoder=False, biases=r is None)),
            {**STACK, "norm": norm, "scaled": r is None, "attention_mask": BEFORE, "dropout_mask": dropout_mask},
        )
        for r, norm, dropout_mask in (
            (None, "post", _dropout_masks("attention", "feed_forward")),
            (_normal(H, 2 * T - 1), "pre", None),
        )
    ),
    *(
        (
            _without_none(decoder_layer),
            (X, _normal(B, 3, C), r, _stack_layer(decoder=True, biases=r is None)),
            {
                **STACK,
                "norm": norm,
                "scaled": r is None,
                "memory_mask": None,
                "dropout_mask": dropout_mask,
                "cache": None,
            },
        )
        for r, norm, dropout_mask in (
            (None, "post", None),
            (
                _normal(H, 2 * T - 1),
                "pre",
                _dropout_masks("attention", "cross_attention", "feed_forward"),
            ),
        )
    ),
    *(
        (
            recurrent,
            (X, _tree(recurrent_shapes(C, 3, cell=cell))),
            {"cell": cell, "token_mask": token_mask, "state": None},
        )
        for cell, token_mask in (("rnn", None), ("lstm", BEFORE[:, 0, 0]))
    ),
    (
        bidirectional,
        (X, _tree({way: recurrent_shapes(C, 3, cell="lstm") for way in ("forward", "backward")})),
        {"cell": "lstm", "token_mask": BEFORE[:, 0, 0]},
    ),
    *(
        (
            recurrent_layers,
            (X, _tree(recurrent_layers_shapes(C, 3, layers=2, cell=cell, bidirectional=cell == "rnn"))),
            {"cell": cell, "token_mask": None, "states": None, "dropout_mask": dropout_mask, "rate": 0.3},
        )
        for cell, dropout_mask in (("lstm", None), ("rnn", [RANDOM.random((B, T, 6)) < 0.7 for _ in range(2)]))
    ),
    *(
        (
            stack_embedding,
            (_normal(V, C), _tree(p)),
            {
                "ids": IDS,
                "positions": numpy.arange(T),
                "scale": 2.0,
                "waves": waves,
                "eps": 1e-5,
                "dropout_mask": _dropout_mask(),
                "rate": 0.3,
            },
        )
        for p, waves in (({"position": (T, C), "embedding_norm": norm_shapes(C)}, False), ({"norm": {"g": (C,)}}, True))
    ),
    *(
        (stack_positions, (X, _tree(p)), {"positions": numpy.arange(T), "waves": waves})
        for p, waves in (({"position": (T + 1, C)}, False), ({}, True), ({}, False))
    ),
    *(
        (
            distance_bias,
            (_tree({"relative": (8, H)}),),
            {"queries": 3, "keys": T, "causal": causal, "farthest": 16},
        )
        for causal in (True, False)
    ),
    (_normalised_layers, (X, [_tree(norm_shapes(C)) for _ in range(2)]), {}),
    (
        _encoder,
        (
            _normal(V, C),
            {
                **_tree({"relative": (8, H), "norm": {"g": (C,)}}),
                "layers": [_stack_layer(decoder=False, biases=False) for _ in range(2)],
            },
        ),
        {
            "ids": IDS,
            "positions": numpy.arange(T),
            "keys": T,
            "causal": False,
            "scale": 2.0,
            "waves": False,
            "farthest": 16,
            "eps": 1e-5,
            "dropout_mask": _dropout_mask(),
            "rate": 0.3,
        },
    ),
    *((maybe_norm, (X, _tree({"norm": norm_shapes(C)})), {"name": name, "eps": 1e-5}) for name in ("norm", "other")),
    *((_after_relu, (X, _tree({"norm": norm_shapes(C)})), {"name": name, "eps": 1e-5}) for name in ("norm", "other")),
    (
        smoothed_lm_loss,
        (X, _normal(C, V)),
        {"targets": RANDOM.integers(0, V, (B, T)), "ignore": 1, "smoothing": 0.1, "cap": 0.5},
    ),
    (lm_loss, (X, _normal(C, V)), {"targets": RANDOM.integers(0, V, (B, T)), "ignore": 1, "cap": None}),
    (
        _without_none(grouped_attention),
        (X, None, _tree(grouped_attention_shapes(C, 2, 1, 4, biases="qkvo", normed=True))),
        {
            **GROUPED,
            "cap": 0.5,
            "rotation": "rotary",
            "positions": PLACES,
            "causal": True,
            "attention_mask": PADDED,
        },
    ),
    (
        _without_none(llama_layer),
        (X, None, _tree(llama_layer_shapes(C, 2, 1, 4, F, offset_norms=True, norms_after=True))),
        {
            **GROUPED,
            "rotation": "rotary",
            "positions": PLACES,
            "attention_mask": PADDED,
            "activation": "gelu_tanh",
            "dropout_mask": None,
            "rate": 0.0,
        },
    ),
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
            if inspect.isfunction(f) and f.__module__ == module.name and not name.startswith(("_", "initial_")):
                found.add(name)
    assert {name for name in found if not name.endswith("_shapes")} == {case[0].__name__ for case in CASES}
