"""Laws of cross-attention, and of self-attention with a bias of the distance."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

from refllm.blocks.cross_attention import cross_attention, cross_attention_shapes
from refllm.blocks.relative_self_attention import relative_self_attention, relative_self_attention_shapes
from refllm.blocks.self_attention import self_attention
from refllm.generation.cache import KeyValueCache
from refllm.generation.decoder_cache import MemoryCache
from spec_tests.gradients import random_tree

B, T, S, C, H, D = 2, 3, 4, 6, 2, 5
RANDOM = numpy.random.default_rng(3)
X, MEMORY = RANDOM.standard_normal((B, T, C)), RANDOM.standard_normal((B, S, C))
P = random_tree(cross_attention_shapes(C, H, D, biases=True), seed=0)
ALLOWED = numpy.arange(S) < numpy.array([4, 2])[:, None, None, None]


def read(x: Any, memory: Any, p: Any = P, **changes: Any) -> Any:
    how: dict[str, Any] = {"heads": H, "scaled": True, "attention_mask": None, "cache": None, **changes}
    return cross_attention(x, memory, p, **how)[0]


def test_the_order_of_the_memory_does_not_matter() -> None:
    """Nothing in attention knows positions; those are in the memory itself."""
    numpy.testing.assert_allclose(read(X, MEMORY[:, ::-1]), read(X, MEMORY), rtol=1e-12, atol=1e-14)


def test_rows_that_share_a_memory_read_as_with_a_memory_each() -> None:
    x = RANDOM.standard_normal((3 * B, T, C))
    each = read(x, MEMORY.repeat(3, axis=0), attention_mask=ALLOWED.repeat(3, axis=0))
    numpy.testing.assert_allclose(read(x, MEMORY, attention_mask=ALLOWED), each, rtol=1e-12, atol=1e-14)


def test_a_memory_that_does_not_divide_the_rows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must be .n\*B, T, C. = .n\*2, T, 6. to match memory .*; got .3, 3, 6"):
        read(RANDOM.standard_normal((3, T, C)), MEMORY)


def test_padding_of_the_memory_is_not_read() -> None:
    alone = read(X[1:], MEMORY[1:, :2])
    numpy.testing.assert_allclose(read(X, MEMORY, attention_mask=ALLOWED)[1:], alone, rtol=1e-12, atol=1e-14)


def test_without_the_scale_scores_are_the_plain_products() -> None:
    """Weights of the queries over √D, and the scale left out, are the weights with the scale."""
    p = {**P, "Wq": P["Wq"] / math.sqrt(D), "bq": P["bq"] / math.sqrt(D)}
    numpy.testing.assert_allclose(read(X, MEMORY, p, scaled=False), read(X, MEMORY), rtol=1e-12, atol=1e-14)


def test_with_a_cache_the_memory_is_read_once_and_there_is_no_pullback() -> None:
    cache = MemoryCache()
    first = read(X[:, :1], MEMORY, cache=cache)
    y, back = cross_attention(
        X[:, 1:], numpy.full_like(MEMORY, numpy.nan), P, heads=H, scaled=True, attention_mask=None, cache=cache
    )
    whole = read(X, MEMORY)
    numpy.testing.assert_allclose(numpy.concatenate([first, y], axis=1), whole, rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="there is no pullback through a cache; give cache=None to train"):
        back(numpy.ones_like(y))


def test_a_bias_of_zero_is_plain_self_attention() -> None:
    p = random_tree(relative_self_attention_shapes(C, H, C // H, biases=True), seed=1)
    plain = self_attention(X, p, heads=H, causal=True, attention_mask=None, cache=None)[0]
    for r in (None, numpy.zeros((H, 2 * T - 1))):
        y = relative_self_attention(X, r, p, heads=H, scaled=True, causal=True, attention_mask=None, cache=None)[0]
        numpy.testing.assert_allclose(y, plain, rtol=1e-12, atol=1e-14)


def test_with_a_large_bias_at_distance_minus_one_every_place_reads_the_one_before_it() -> None:
    """Entry T - 2 of r, whose entry i is for the distance i - (T - 1)."""
    p = random_tree(relative_self_attention_shapes(C, H, D, biases=False), seed=2)
    r = numpy.zeros((H, 2 * T - 1))
    r[:, T - 2] = 1e3
    y = relative_self_attention(X, r, p, heads=H, scaled=True, causal=False, attention_mask=None, cache=None)[0]
    values = X @ p["Wqkv"][:, 2 * H * D :] @ p["Wo"]
    numpy.testing.assert_allclose(y[:, 1:], values[:, :-1], rtol=1e-10, atol=1e-12)


def test_with_a_cache_the_bias_belongs_to_the_last_places() -> None:
    p = random_tree(relative_self_attention_shapes(C, H, D, biases=False), seed=2)
    r = RANDOM.standard_normal((H, 2 * T - 1))
    how: dict[str, Any] = {"heads": H, "scaled": False, "causal": True, "attention_mask": None}
    whole = relative_self_attention(X, r, p, **how, cache=None)[0]
    store = KeyValueCache(batch=B, layers=1, heads=H, room=T, head_width=D, padding=None, like=X)
    store.advance(2)
    pieces = [relative_self_attention(X[:, :2], r[:, 1:4], p, **how, cache=store.layers[0])[0]]
    store.advance(1)
    pieces.append(relative_self_attention(X[:, 2:], r[:, :T], p, **how, cache=store.layers[0])[0])
    numpy.testing.assert_allclose(numpy.concatenate(pieces, axis=1), whole, rtol=1e-12, atol=1e-14)
