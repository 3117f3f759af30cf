"""Laws that every block keeps: its gradients are right, it changes nothing, and it keeps dtypes and shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.blocks.cross_attention import cross_attention, cross_attention_shapes
from refllm.blocks.decoder_layer import decoder_layer
from refllm.blocks.encoder_layer import encoder_layer
from refllm.blocks.feed_forward import feed_forward, feed_forward_shapes, feed_forward_without_biases
from refllm.blocks.gated_feed_forward import gated_feed_forward, gated_feed_forward_shapes
from refllm.blocks.grouped_attention import grouped_attention, grouped_attention_shapes
from refllm.blocks.llama_layer import llama_layer, llama_layer_shapes
from refllm.blocks.lm_head import lm_loss, smoothed_lm_loss
from refllm.blocks.relative_self_attention import relative_self_attention, relative_self_attention_shapes
from refllm.blocks.residual import RESIDUALS, norm_shapes
from refllm.blocks.self_attention import self_attention, self_attention_shapes
from refllm.blocks.transformer_layer import transformer_layer, transformer_layer_shapes
from refllm.parameters import Tree, map_leaves, named_leaves
from spec_tests.gradients import assert_gradients_agree, assert_pure, random_tree


@dataclass(frozen=True)
class Sizes:
    B: int = 2
    T: int = 3
    H: int = 2
    D: int = 3
    F: int = 5

    @property
    def width(self) -> int:
        return self.H * self.D

    @property
    def x(self) -> tuple[int, int, int]:
        return self.B, self.T, self.width

    def dropout_mask(self, seed: int) -> Any:
        return numpy.random.default_rng(seed).random(self.x) < 0.7


Block = Callable[[Tree], tuple[Any, Callable[[Any], Tree]]]
Case = tuple[Block, Tree]  # the block as a function of one tree with all its differentiable arguments, and their shapes


def away_from_kinks(p: Tree) -> None:
    """Biases so large that no unit of a ReLU crosses 0 when an argument moves a little; every other unit is on."""
    p["W1"] *= 0.1
    p["b1"][...] = 3 * (-1.0) ** numpy.arange(len(p["b1"]))


def feed_forward_case(activation: str, *, biases: bool = True) -> Callable[[Sizes], Case]:
    def case(s: Sizes) -> Case:
        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            f = feed_forward if biases else feed_forward_without_biases
            y, back = f(a["x"], a["p"], activation=activation)
            return y, lambda dy: dict(zip(("x", "p"), back(dy), strict=True))

        shapes = feed_forward_shapes(s.width, s.F)
        return block, {"x": s.x, "p": shapes if biases else {name: shapes[name] for name in ("W1", "W2")}}

    return case


def gated_case(activation: str) -> Callable[[Sizes], Case]:
    def case(s: Sizes) -> Case:
        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            y, back = gated_feed_forward(a["x"], a["p"], activation=activation)
            return y, lambda dy: dict(zip(("x", "p"), back(dy), strict=True))

        return block, {"x": s.x, "p": gated_feed_forward_shapes(s.width, s.F)}

    return case


def grouped_case(rotation: str | None, *, biased: bool, layer: bool, forms: bool = False) -> Callable[[Sizes], Case]:
    """Heads of another width than C / H, that share one head of keys; the second row is padded on the left."""

    def case(s: Sizes) -> Case:
        D, positions = 2 * s.D, numpy.arange(s.T) + numpy.arange(s.B)[:, None]
        attention_mask = numpy.arange(s.T) >= numpy.arange(s.B)[:, None, None, None]
        same: dict[str, Any] = {
            "heads": s.H, "kv_heads": 1, "rotation": rotation, "positions": positions, "base": 100.0,
            "attention_mask": attention_mask, "cap": 1.5 if forms else None, "stretch": 1.2, "eps": 1e-5, "cache": None,
        }  # fmt: skip

        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            if layer:
                y, back = llama_layer(
                    a["x"],
                    a.get("r"),
                    a["p"],
                    **same,
                    activation="silu",
                    dropout_mask={"attention": s.dropout_mask(4), "feed_forward": s.dropout_mask(5)},
                    rate=0.3,
                )
            else:
                y, back = grouped_attention(a["x"], a.get("r"), a["p"], **same, causal=True)

            def pull(dy: Any) -> Tree:
                dx, dr, dp = back(dy)
                assert (dr is None) == (not biased)
                return {"x": dx, "r": dr, "p": dp} if biased else {"x": dx, "p": dp}

            return y, pull

        p = llama_layer_shapes(s.width, s.H, 1, D, s.F) if layer else grouped_attention_shapes(s.width, s.H, 1, D)
        if forms:
            layers = llama_layer_shapes(
                s.width, s.H, 1, D, s.F, biases="qkvo", query_key_norm=True, offset_norms=True, norms_after=True
            )
            p = layers if layer else layers["attention"]
        return block, {"x": s.x, "r": (s.H, 2 * s.T - 1), "p": p} if biased else {"x": s.x, "p": p}

    return case


def attention_case(*, causal: bool, padded: bool) -> Callable[[Sizes], Case]:
    def case(s: Sizes) -> Case:
        attention_mask = numpy.arange(s.T) >= numpy.arange(s.B)[:, None, None, None] if padded else None

        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            y, back = self_attention(
                a["x"], a["p"], heads=s.H, causal=causal, attention_mask=attention_mask, cache=None
            )
            return y, lambda dy: dict(zip(("x", "p"), back(dy), strict=True))

        return block, {"x": s.x, "p": self_attention_shapes(s.width)}

    return case


def cross_attention_case(*, biases: bool, padded: bool) -> Callable[[Sizes], Case]:
    """Two rows of x read one row of memory; heads of another width than C / H."""

    def case(s: Sizes) -> Case:
        S, D = s.T + 1, s.D + 1
        attention_mask = numpy.arange(S) <= numpy.arange(s.B)[:, None, None, None] if padded else None

        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            x = a["x"].repeat(2, axis=0)
            x[1::2] *= 2
            y, back = cross_attention(
                x, a["memory"], a["p"], heads=s.H, scaled=biases, attention_mask=attention_mask, cache=None
            )

            def pull(dy: Any) -> Tree:
                dx, dmemory, dp = back(numpy.stack([dy, 3 * dy], axis=1).reshape(y.shape))
                return {"x": dx[::2] + 2 * dx[1::2], "memory": dmemory, "p": dp}

            return y[::2] + 3 * y[1::2], pull

        p = cross_attention_shapes(s.width, s.H, D, biases=biases)
        return block, {"x": s.x, "memory": (s.B, S, s.width), "p": p}

    return case


def relative_case(*, causal: bool, biases: bool, biased: bool) -> Callable[[Sizes], Case]:
    """Heads of another width than C / H; the last places of the second row are padding."""

    def case(s: Sizes) -> Case:
        D, attention_mask = s.D + 1, numpy.arange(s.T) <= s.T - 1 - numpy.arange(s.B)[:, None, None, None]

        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            y, back = relative_self_attention(
                a["x"],
                a.get("r"),
                a["p"],
                heads=s.H,
                scaled=biases,
                causal=causal,
                attention_mask=attention_mask,
                cache=None,
            )

            def pull(dy: Any) -> Tree:
                dx, dr, dp = back(dy)
                assert (dr is None) == (not biased)
                return {"x": dx, "r": dr, "p": dp} if biased else {"x": dx, "p": dp}

            return y, pull

        p = relative_self_attention_shapes(s.width, s.H, D, biases=biases)
        return block, {"x": s.x, "r": (s.H, 2 * s.T - 1), "p": p} if biased else {"x": s.x, "p": p}

    return case


def stack_layer_case(order: str, *, decoder: bool, biased: bool, drop: bool) -> Callable[[Sizes], Case]:
    """A layer of an encoder or a decoder: with r it has RMS norms and a gate, without it biases."""

    def case(s: Sizes) -> Case:
        C, F, S = s.width, s.F, s.T + 1
        norm = {"g": (C,)} if biased else norm_shapes(C)
        feed = gated_feed_forward_shapes(C, F) if biased else feed_forward_shapes(C, F)
        attention = relative_self_attention_shapes(C, s.H, s.D, biases=not biased)
        p: Tree = {"norm1": norm, "attention": attention}
        if decoder:
            p |= {"norm2": norm, "cross_attention": cross_attention_shapes(C, s.H, s.D, biases=not biased)}
        p |= {f"norm{len(p) // 2 + 1}": norm, "feed_forward": feed}
        shapes: Tree = {"x": s.x} | ({"memory": (s.B, S, C)} if decoder else {})
        shapes |= ({"r": (s.H, 2 * s.T - 1)} if biased else {}) | {"p": p}
        sublayers = ("attention", *(("cross_attention",) if decoder else ()), "feed_forward")
        dropout_mask = {name: s.dropout_mask(seed) for seed, name in enumerate(sublayers)} if drop else None
        same: dict[str, Any] = {
            "norm": order, "heads": s.H, "scaled": not biased, "activation": "gelu_erf", "capacity": 2,
            "eps": 0.1,            "dropout_mask": dropout_mask, "rate": 0.3,
        }  # fmt: skip

        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            r, p = a.get("r"), a["p"]
            found: Any
            if decoder:
                seen = numpy.arange(S) <= numpy.arange(s.B)[:, None, None, None]
                found = decoder_layer(a["x"], a["memory"], r, p, **same, memory_mask=seen, cache=None)
            else:
                found = encoder_layer(a["x"], r, p, **same, attention_mask=None)
            y, back = found
            return y, lambda dy: dict(zip(shapes, (d for d in back(dy) if d is not None), strict=True))

        return block, shapes

    return case


def residual_case(order: str, *, drop: bool, rms: bool = False) -> Callable[[Sizes], Case]:
    def case(s: Sizes) -> Case:
        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            y, back = RESIDUALS[order](
                a["x"],
                a["norm"],
                lambda z: feed_forward(z, a["p"], activation="gelu_erf"),
                eps=1e-5,
                dropout_mask=s.dropout_mask(3) if drop else None,
                rate=0.3,
            )
            return y, lambda dy: dict(zip(("x", "norm", "p"), back(dy), strict=True))

        norm = {"g": (s.width,)} if rms else norm_shapes(s.width)
        return block, {"x": s.x, "norm": norm, "p": feed_forward_shapes(s.width, s.F)}

    return case


def layer_case(order: str, activation: str, *, drop: bool) -> Callable[[Sizes], Case]:
    def case(s: Sizes) -> Case:
        draws = {"attention": s.dropout_mask(4), "feed_forward": s.dropout_mask(5)}

        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            y, back = transformer_layer(
                a["x"], a["p"], norm=order, heads=s.H, causal=True, attention_mask=None, activation=activation,
                eps=1e-5, dropout_mask=draws if drop else None, rate=0.3, cache=None,
            )  # fmt: skip
            return y, lambda dy: dict(zip(("x", "p"), back(dy), strict=True))

        return block, {"x": s.x, "p": transformer_layer_shapes(s.width, s.F)}

    return case


def loss_case(loss: Callable[..., Any], **how: Any) -> Callable[[Sizes], Case]:
    def case(s: Sizes) -> Case:
        V = s.F
        targets = numpy.arange(s.B * s.T).reshape(s.B, s.T) % V

        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            y, back = loss(a["h"], a["W"], targets=targets, ignore=1, **how)
            return y, lambda dy: dict(zip(("h", "W"), back(dy), strict=True))

        return block, {"h": s.x, "W": (s.width, V)}

    return case


CASES: dict[str, Callable[[Sizes], Case]] = {
    "feed_forward relu": feed_forward_case("relu"),
    "feed_forward gelu_tanh": feed_forward_case("gelu_tanh"),
    "feed_forward gelu_erf": feed_forward_case("gelu_erf"),
    "gated_feed_forward silu": gated_case("silu"),
    "gated_feed_forward gelu_tanh": gated_case("gelu_tanh"),
    "grouped_attention": grouped_case(None, biased=False, layer=False),
    "grouped_attention rotary": grouped_case("rotary", biased=False, layer=False),
    "grouped_attention interleaved": grouped_case("rotary_interleaved", biased=False, layer=False),
    "grouped_attention relative": grouped_case(None, biased=True, layer=False),
    "llama_layer rotary": grouped_case("rotary", biased=False, layer=True),
    "llama_layer relative": grouped_case(None, biased=True, layer=True),
    "grouped_attention biases norms cap": grouped_case("rotary", biased=False, layer=False, forms=True),
    "llama_layer offsets norms after": grouped_case("rotary", biased=False, layer=True, forms=True),
    "self_attention": attention_case(causal=False, padded=False),
    "self_attention causal": attention_case(causal=True, padded=False),
    "self_attention causal, padded": attention_case(causal=True, padded=True),
    "pre_norm": residual_case("pre", drop=False),
    "pre_norm with dropout": residual_case("pre", drop=True),
    "post_norm": residual_case("post", drop=False),
    "post_norm with dropout": residual_case("post", drop=True),
    "transformer_layer pre relu": layer_case("pre", "relu", drop=True),
    "transformer_layer post gelu_tanh": layer_case("post", "gelu_tanh", drop=False),
    "pre_norm with RMS norm": residual_case("pre", drop=True, rms=True),
    "post_norm with RMS norm": residual_case("post", drop=False, rms=True),
    "feed_forward without biases": feed_forward_case("gelu_tanh", biases=False),
    "cross_attention": cross_attention_case(biases=True, padded=False),
    "cross_attention without biases, padded, not scaled": cross_attention_case(biases=False, padded=True),
    "relative_self_attention": relative_case(causal=True, biases=False, biased=True),
    "relative_self_attention in both directions": relative_case(causal=False, biases=True, biased=True),
    "relative_self_attention without a bias": relative_case(causal=True, biases=True, biased=False),
    "encoder_layer post": stack_layer_case("post", decoder=False, biased=False, drop=True),
    "encoder_layer pre, relative, gated": stack_layer_case("pre", decoder=False, biased=True, drop=False),
    "decoder_layer post": stack_layer_case("post", decoder=True, biased=False, drop=False),
    "decoder_layer pre, relative, gated": stack_layer_case("pre", decoder=True, biased=True, drop=True),
    "lm_loss": loss_case(lm_loss, cap=None),
    "smoothed_lm_loss": loss_case(smoothed_lm_loss, smoothing=0.2, cap=None),
    "smoothed_lm_loss with a cap": loss_case(smoothed_lm_loss, smoothing=0.2, cap=1.5),
}
every_block = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
sizes = st.builds(
    Sizes, B=st.integers(1, 3), T=st.integers(1, 4), H=st.integers(1, 3), D=st.integers(1, 3), F=st.integers(2, 7)
)


def arguments(shapes: Tree, seed: int) -> Tree:
    tree = random_tree(shapes, seed)
    for p in (tree, tree.get("p", {}), tree.get("p", {}).get("feed_forward", {})):
        if "b1" in p:
            away_from_kinks(p)
    return tree


@pytest.mark.one_in(12)
@every_block
@pytest.mark.parametrize(
    "s", [Sizes(), Sizes(B=1, T=1, H=1, D=3, F=1), Sizes(B=1, T=5, H=3, D=1, F=4)], ids=["odd", "one token", "narrow"]
)
def test_gradients_agree_with_differences(case: Callable[[Sizes], Case], s: Sizes) -> None:
    block, shapes = case(s)
    assert_gradients_agree(block, arguments(shapes, seed=1), seed=2)


@every_block
def test_arguments_are_only_read_and_back_repeats_itself(case: Callable[[Sizes], Case]) -> None:
    block, shapes = case(Sizes())
    assert_pure(block, arguments(shapes, seed=1))


@pytest.mark.one_in(12)
@every_block
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=8)
@given(s=sizes)
def test_dtypes_and_shapes_are_kept(case: Callable[[Sizes], Case], dtype: str, s: Sizes) -> None:
    block, shapes = case(s)
    given_ = map_leaves(lambda leaf: leaf.astype(dtype), arguments(shapes, seed=1))
    y, back = block(given_)
    assert y.dtype == dtype
    assert y.shape == (() if "h" in shapes else s.x)
    gradients = dict(named_leaves(back(numpy.ones_like(y))))
    assert {name: (d.shape, d.dtype) for name, d in gradients.items()} == {
        name: (leaf.shape, leaf.dtype) for name, leaf in named_leaves(given_)
    }
