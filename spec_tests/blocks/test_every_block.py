"""Laws that every block keeps: its gradients are right, it changes nothing, and it keeps dtypes and shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.blocks.feed_forward import feed_forward, feed_forward_shapes
from refllm.blocks.lm_head import lm_loss
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

    def keep(self, seed: int) -> Any:
        return numpy.random.default_rng(seed).random(self.x) < 0.7


Block = Callable[[Tree], tuple[Any, Callable[[Any], Tree]]]
Case = tuple[Block, Tree]  # the block as a function of one tree with all its differentiable arguments, and their shapes


def away_from_kinks(p: Tree) -> None:
    """Biases so large that no unit of a ReLU crosses 0 when an argument moves a little; every other unit is on."""
    p["W1"] *= 0.1
    p["b1"][...] = 3 * (-1.0) ** numpy.arange(len(p["b1"]))


def feed_forward_case(activation: str) -> Callable[[Sizes], Case]:
    def case(s: Sizes) -> Case:
        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            y, back = feed_forward(a["x"], a["p"], activation=activation)
            return y, lambda dy: dict(zip(("x", "p"), back(dy), strict=True))

        return block, {"x": s.x, "p": feed_forward_shapes(s.width, s.F)}

    return case


def attention_case(*, causal: bool, padded: bool) -> Callable[[Sizes], Case]:
    def case(s: Sizes) -> Case:
        allowed = numpy.arange(s.T) >= numpy.arange(s.B)[:, None, None, None] if padded else None

        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            y, back = self_attention(a["x"], a["p"], heads=s.H, causal=causal, allowed=allowed, cache=None)
            return y, lambda dy: dict(zip(("x", "p"), back(dy), strict=True))

        return block, {"x": s.x, "p": self_attention_shapes(s.width)}

    return case


def residual_case(order: str, *, drop: bool) -> Callable[[Sizes], Case]:
    def case(s: Sizes) -> Case:
        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            y, back = RESIDUALS[order](
                a["x"],
                a["norm"],
                lambda z: feed_forward(z, a["p"], activation="gelu_erf"),
                eps=1e-5,
                keep=s.keep(3) if drop else None,
                rate=0.3,
            )
            return y, lambda dy: dict(zip(("x", "norm", "p"), back(dy), strict=True))

        return block, {"x": s.x, "norm": norm_shapes(s.width), "p": feed_forward_shapes(s.width, s.F)}

    return case


def layer_case(order: str, activation: str, *, drop: bool) -> Callable[[Sizes], Case]:
    def case(s: Sizes) -> Case:
        def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
            y, back = transformer_layer(
                a["x"], a["p"], norm=order, heads=s.H, causal=True, allowed=None, activation=activation, eps=1e-5,
                keep=(s.keep(4), s.keep(5)) if drop else None, rate=0.3, cache=None,
            )  # fmt: skip
            return y, lambda dy: dict(zip(("x", "p"), back(dy), strict=True))

        return block, {"x": s.x, "p": transformer_layer_shapes(s.width, s.F)}

    return case


def loss_case(s: Sizes) -> Case:
    V = s.F
    targets = numpy.arange(s.B * s.T).reshape(s.B, s.T) % V

    def block(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
        y, back = lm_loss(a["h"], a["W"], targets=targets, ignore=1)
        return y, lambda dy: dict(zip(("h", "W"), back(dy), strict=True))

    return block, {"h": s.x, "W": (s.width, V)}


CASES: dict[str, Callable[[Sizes], Case]] = {
    "feed_forward relu": feed_forward_case("relu"),
    "feed_forward gelu_tanh": feed_forward_case("gelu_tanh"),
    "feed_forward gelu_erf": feed_forward_case("gelu_erf"),
    "self_attention": attention_case(causal=False, padded=False),
    "self_attention causal": attention_case(causal=True, padded=False),
    "self_attention causal, padded": attention_case(causal=True, padded=True),
    "pre_norm": residual_case("pre", drop=False),
    "pre_norm with dropout": residual_case("pre", drop=True),
    "post_norm": residual_case("post", drop=False),
    "post_norm with dropout": residual_case("post", drop=True),
    "transformer_layer pre relu": layer_case("pre", "relu", drop=True),
    "transformer_layer post gelu_tanh": layer_case("post", "gelu_tanh", drop=False),
    "lm_loss": loss_case,
}
every_block = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
sizes = st.builds(
    Sizes, B=st.integers(1, 3), T=st.integers(1, 4), H=st.integers(1, 3), D=st.integers(1, 3), F=st.integers(2, 7)
)


def arguments(shapes: Tree, seed: int) -> Tree:
    tree = random_tree(shapes, seed)
    for p in (tree, tree.get("p", {}), tree.get("p", {}).get("feed_forward", {})):
        if "W1" in p:
            away_from_kinks(p)
    return tree


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
