"""Laws of multi-head self-attention."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.blocks.self_attention import self_attention, self_attention_shapes
from refllm.parameters import map_leaves
from refllm.spec import self_attention as text
from spec_tests.gradients import random_tree

H, C = 2, 6
P = random_tree(self_attention_shapes(C), seed=0)


def states(B: int, T: int, seed: int = 1) -> Any:
    return numpy.random.default_rng(seed).standard_normal((B, T, C))


@pytest.mark.parametrize("causal", [False, True])
def test_it_is_what_the_text_says(causal: bool) -> None:
    x = states(2, 5)
    how: dict[str, Any] = {"heads": H, "causal": causal, "attention_mask": None}
    y, _ = self_attention(x, P, **how, cache=None)
    numpy.testing.assert_allclose(y, text.self_attention(x, P, **how)[0], rtol=1e-12, atol=1e-13)


@given(order=st.permutations(range(5)))
def test_without_positions_and_mask_permuting_tokens_permutes_the_result(order: list[int]) -> None:
    x = states(2, 5)
    y, _ = self_attention(x, P, heads=H, causal=False, attention_mask=None, cache=None)
    permuted, _ = self_attention(x[:, order], P, heads=H, causal=False, attention_mask=None, cache=None)
    numpy.testing.assert_allclose(permuted, y[:, order], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("causal", [False, True])
def test_the_gradient_of_the_key_bias_is_zero_and_that_of_the_others_is_not(causal: bool) -> None:
    x = states(3, 7)
    _, back = self_attention(x, P, heads=H, causal=causal, attention_mask=None, cache=None)
    _, dp = back(states(3, 7, seed=2))
    query, key, value = numpy.split(dp["bqkv"], 3)
    assert abs(key).max() < 1e-14
    assert abs(query).max() > 0.01
    assert abs(value).max() > 0.01


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(t=st.integers(1, 6))
def test_changing_a_token_leaves_what_comes_before_it_bit_identical(dtype: str, t: int) -> None:
    p = map_leaves(lambda leaf: leaf.astype(dtype), P)
    x = states(2, 7).astype(dtype)
    other = x.copy()
    other[:, t:] = states(2, 7 - t, seed=3)
    y, z = (self_attention(a, p, heads=H, causal=True, attention_mask=None, cache=None)[0] for a in (x, other))
    assert numpy.array_equal(y[:, :t], z[:, :t])
    assert (y[:, t:] != z[:, t:]).any(axis=-1).all()
