"""Laws of the switch layer: who takes a token, what becomes of it, and that both of its values have their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.blocks.feed_forward import feed_forward
from refllm.blocks.switch_layer import (
    expert_feed_forward,
    switch_layer,
    switch_layer_shapes,
    switch_transformer_layer,
    switch_transformer_layer_shapes,
)
from refllm.parameters import Tree, map_leaves, named_leaves
from refllm.spec import switch_layer as text
from spec_tests.gradients import assert_gradients_agree, assert_pure, random_tree

B, T, C, F, E = 2, 7, 4, 5, 3
RANDOM = numpy.random.default_rng(3)
LENGTHS = numpy.arange(T) < numpy.array([7, 4])[:, None]
X = RANDOM.standard_normal((B, T, C))

Block = Callable[[Tree], tuple[Any, Callable[[Any], Tree]]]


def parameters(*, experts: int = E, biases: bool = True, seed: int = 1) -> Tree:
    p = random_tree(switch_layer_shapes(C, F, experts, biases=biases), seed)
    p["Wr"] *= 4  # probabilities far from 1 / E
    return p


def layer(x: Any, p: Tree, *, capacity: int = T, token_mask: Any = None, activation: str = "gelu_tanh") -> Any:
    return switch_layer(x, p, activation=activation, capacity=capacity, token_mask=token_mask)


def by_the_text(x: Any, p: Tree, *, capacity: int, token_mask: Any = None) -> tuple[Any, Any]:
    """y, and the expert that took each token, or -1."""
    (y, _), _ = text.switch_layer(x, p, activation="gelu_tanh", capacity=capacity, token_mask=token_mask)
    chosen = text.most_probable(x @ p["Wr"])
    slots = text.slots_of(chosen, experts=E, capacity=capacity, token_mask=token_mask)
    return y, numpy.where(slots < E * capacity, slots // capacity, -1)


def in_one_row(block: Callable[[Tree], Any]) -> Block:
    """Both values of a block as one row of numbers."""

    def call(a: Tree) -> tuple[Any, Callable[[Any], Tree]]:
        (y, balance), back = block(a)

        def pull(d: Any) -> Tree:
            return dict(zip(("x", "p"), back(d[: y.size].reshape(y.shape), d[y.size :]), strict=True))

        return numpy.concatenate([y.reshape(-1), balance.reshape(-1)]), pull

    return call


@pytest.mark.parametrize("token_mask", [None, LENGTHS], ids=["whole", "padded"])
@pytest.mark.parametrize("capacity", [1, 2, 3, T])
def test_a_token_goes_to_its_expert_while_there_is_room(capacity: int, token_mask: Any) -> None:
    p = parameters()
    (y, _), _ = layer(X, p, capacity=capacity, token_mask=token_mask)
    expected, takers = by_the_text(X, p, capacity=capacity, token_mask=token_mask)
    numpy.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)
    assert set(takers[LENGTHS]) == ({0, 1, 2} if capacity == T else {-1, 0, 1, 2})  # so the case shows what it should


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize(
    ("capacity", "token_mask"), [(1, None), (2, LENGTHS), (T, None)], ids=["one", "padded", "room"]
)
def test_gradients_agree_with_differences(biases: bool, capacity: int, token_mask: Any) -> None:
    block = in_one_row(lambda a: layer(a["x"], a["p"], capacity=capacity, token_mask=token_mask))
    assert_gradients_agree(block, {"x": X.copy(), "p": parameters(biases=biases)})


@pytest.mark.parametrize("token_mask", [None, LENGTHS], ids=["whole", "padded"])
def test_a_whole_layers_gradients_agree_with_differences(token_mask: Any) -> None:
    p = random_tree(switch_transformer_layer_shapes(C, F, E), seed=2)
    p["switch"]["Wr"] *= 4
    dropout_mask = {name: RANDOM.random((B, T, C)) < 0.7 for name in ("attention", "switch")}
    block = in_one_row(
        lambda a: switch_transformer_layer(
            a["x"], a["p"], heads=2, causal=True, attention_mask=None, activation="gelu_erf", capacity=2,
            token_mask=token_mask, eps=1e-5, dropout_mask=dropout_mask, rate=0.3, cache=None,
        )
    )  # fmt: skip
    assert_gradients_agree(block, {"x": X.copy(), "p": p})


def test_arguments_are_only_read_and_back_repeats_itself() -> None:
    assert_pure(in_one_row(lambda a: layer(a["x"], a["p"], capacity=2)), {"x": X.copy(), "p": parameters()})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=8)
@given(B=st.integers(0, 2), T=st.integers(1, 4), experts=st.integers(1, 3), capacity=st.integers(1, 5))
def test_dtypes_and_shapes_are_kept(dtype: str, B: int, T: int, experts: int, capacity: int) -> None:
    p = map_leaves(lambda leaf: leaf.astype(dtype), parameters(experts=experts))
    x = numpy.random.default_rng(0).standard_normal((B, T, C)).astype(dtype)
    (y, balance), back = layer(x, p, capacity=capacity)
    assert (y.shape, balance.shape) == ((B, T, C), (B,))
    gradients = named_leaves(dict(zip("xp", back(numpy.ones_like(y), numpy.ones_like(balance)), strict=True)))
    expected = named_leaves({"x": x, "p": {name: p[name] for name in ("Wr", "W1", "b1", "W2", "b2")}})
    assert [(n, d.shape, d.dtype) for n, d in gradients] == [(n, leaf.shape, leaf.dtype) for n, leaf in expected]
    assert {y.dtype.name, balance.dtype.name} == {dtype}


@pytest.mark.parametrize("capacity", [1, 2, T])
@given(t=st.integers(0, T - 1), seed=st.integers(0, 99))
def test_later_tokens_and_other_texts_do_not_change_what_becomes_of_a_token(capacity: int, t: int, seed: int) -> None:
    """To the bit: they cannot take its place, because places are given in the order of the tokens of a text."""
    p, other = parameters(), numpy.random.default_rng(seed).standard_normal(X.shape)
    other[0, : t + 1] = X[0, : t + 1]
    (y, _), _ = layer(X, p, capacity=capacity)
    (z, _), _ = layer(other, p, capacity=capacity)
    assert numpy.array_equal(y[0, : t + 1], z[0, : t + 1])


def test_a_token_that_overflows_leaves_the_layer_without_a_gradient_but_that_of_the_balance() -> None:
    p = parameters()
    _, takers = by_the_text(X, p, capacity=1)
    (y, balance), back = layer(X, p, capacity=1)
    dx, _ = back(RANDOM.standard_normal(y.shape), numpy.zeros_like(balance))
    assert not y[takers < 0].any()
    assert not dx[takers < 0].any()
    assert dx[takers >= 0].any(axis=-1).all()
    dx, _ = back(numpy.zeros_like(y), numpy.ones_like(balance))
    assert dx.any(axis=-1).all()


@given(pad=st.floats(-9, 9))
def test_padding_takes_no_place_and_changes_nothing(pad: float) -> None:
    """Before the text too, where it would come first."""
    p, n = parameters(), 3
    padded = numpy.concatenate([numpy.full((B, n, C), pad), X], axis=1)
    token_mask = numpy.broadcast_to(numpy.arange(n + T) >= n, (B, n + T))
    (y, balance), _ = layer(padded, p, capacity=2, token_mask=token_mask)
    (z, alone), _ = layer(X, p, capacity=2)
    numpy.testing.assert_allclose(y[:, n:], z, rtol=1e-12, atol=1e-14)
    numpy.testing.assert_allclose(balance, alone, rtol=1e-12)
    assert not y[:, :n].any()


def test_the_router_learns_from_the_output_alone() -> None:
    """Without the balance its gradient is that of the probability which multiplies the expert's output."""
    (y, balance), back = layer(X, parameters(), capacity=T)
    _, dp = back(y, numpy.zeros_like(balance))
    assert dp["Wr"].any(axis=0).all()


def test_experts_with_the_same_probability_are_chosen_by_their_number() -> None:
    p = parameters()
    p["Wr"][...] = 0
    (_, balance), back = layer(X, p, capacity=T)
    _, dp = back(numpy.ones_like(X), numpy.zeros_like(balance))
    assert dp["W2"][0].any()
    assert not dp["W2"][1:].any()
    numpy.testing.assert_allclose(balance, 1, rtol=1e-14)  # all tokens at one expert, but by the least of margins


def test_one_expert_is_a_feed_forward_layer() -> None:
    p = parameters(experts=1)
    (y, balance), back = layer(X, p, capacity=T)
    alone = {name: p[name][0] for name in ("W1", "b1", "W2", "b2")}
    z, back_alone = feed_forward(X, alone, activation="gelu_tanh")
    numpy.testing.assert_allclose(y, z, rtol=1e-12)
    numpy.testing.assert_allclose(balance, 1, rtol=1e-14)
    dy = RANDOM.standard_normal(y.shape)
    (dx, dp), (dz, dalone) = back(dy, numpy.ones(B)), back_alone(dy)
    numpy.testing.assert_allclose(dx, dz, rtol=1e-10, atol=1e-12)
    assert abs(dp["Wr"]).max() <= 1e-14
    for name, d in dalone.items():
        numpy.testing.assert_allclose(dp[name][0], d, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("biases", [True, False])
def test_every_expert_is_a_feed_forward_layer_of_its_own(biases: bool) -> None:
    p = parameters(biases=biases)
    z = RANDOM.standard_normal((B, E, 2, C))
    y, _ = expert_feed_forward(z, p, activation="relu")
    for e in range(E):
        expert = {name: leaf[e] for name, leaf in p.items() if name != "Wr"}
        expert = {"b1": numpy.zeros(F), "b2": numpy.zeros(C), **expert}
        numpy.testing.assert_allclose(y[:, e], feed_forward(z[:, e], expert, activation="relu")[0], rtol=1e-12)


def test_a_capacity_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        layer(X, parameters(), capacity=0)
