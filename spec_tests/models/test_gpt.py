"""Laws of the GPT as a whole."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.backend import generator
from refllm.errors import UserError
from refllm.generation.cache import KeyValueCache
from refllm.models import gpt
from refllm.objectives.causal import causal_loss
from refllm.ops.cross_entropy import cross_entropy
from refllm.parameters import Tree, count, map_leaves, named_leaves
from spec_tests.gradients import assert_gradients_agree, assert_pure, random_tree

TINY = {"vocabulary": 5, "context": 8, "layers": 2, "heads": 2, "width": 8, "hidden": 12}


def tiny(**changes: Any) -> gpt.Config:
    return gpt.Config(**{**TINY, **changes})


VARIANTS = {
    "GPT-2": tiny(),
    "the decoder of 2017": tiny(norm="post", activation="relu", positions="sinusoidal", tied=False),
    "pre-norm, sinusoidal, untied": tiny(positions="sinusoidal", tied=False, activation="gelu_erf"),
    "post-norm, learned, tied": tiny(norm="post"),
    "sinusoidal, scaled, tied": tiny(positions="sinusoidal", scaled_embedding=True),
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def parameters(config: gpt.Config, *, dtype: str = "float64", seed: int = 0) -> Tree:
    p = random_tree(gpt.shapes(config), seed)
    if config.activation == "relu":  # units far from the kink, every other one on
        for layer in p["layers"]:
            layer["feed_forward"]["W1"] *= 0.1
            layer["feed_forward"]["b1"][...] = 3 * (-1.0) ** numpy.arange(config.hidden)
    return map_leaves(lambda leaf: leaf.astype(dtype), p)


def tokens(B: int, T: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).integers(0, TINY["vocabulary"], (B, T))


def logits(p: Tree, ids: Any, config: gpt.Config, cache: Any = None) -> Any:
    return gpt.forward(p, ids=ids, config=config, keep=None, cache=cache)[0]


def store(config: gpt.Config, p: Tree, *, batch: int, padding: Any = None) -> KeyValueCache:
    layers, heads, head_width = gpt.cache_shape(config)
    return KeyValueCache(
        batch=batch, layers=layers, heads=heads, room=config.context, head_width=head_width, padding=padding,
        like=p["token"],
    )  # fmt: skip


SMALLER = {"width": 4, "hidden": 5, "vocabulary": 5, "context": 4}


@pytest.mark.parametrize(
    "config",
    [
        tiny(**SMALLER, dropout=0.3),
        tiny(**SMALLER, norm="post", activation="relu", positions="sinusoidal", tied=False),
        tiny(**SMALLER, positions="sinusoidal", tied=False, activation="gelu_erf", dropout=0.3),
        tiny(**SMALLER, norm="post", activation="relu", dropout=0.3),
        tiny(**{**SMALLER, "width": 6}, layers=1, heads=3, activation="relu"),
    ],
    ids=["GPT-2, dropout", "2017", "pre, sinusoidal, untied, dropout", "post, learned, tied, dropout", "three heads"],
)
def test_every_parameters_gradient_agrees_with_differences(config: gpt.Config) -> None:
    ids = tokens(2, 3)
    keep = numpy.random.default_rng(1).random((len(gpt.dropout_widths(config)), *ids.shape, config.width)) < 0.7

    def model(p: Tree) -> tuple[Any, Callable[[Any], Tree]]:
        return gpt.forward(p, ids=ids, config=config, keep=list(keep) if config.dropout else None, cache=None)

    assert_gradients_agree(model, parameters(config))


@every_variant
def test_the_losss_gradient_is_the_logits_pulled_back(config: gpt.Config) -> None:
    """causal_loss never forms the logits of a whole batch; the result is that of the plain chain of operations."""
    p, ids, targets = parameters(config), tokens(2, 6), tokens(2, 6, seed=1)
    y, back = causal_loss(p, model=gpt, ids=ids, targets=targets, ignore=2, config=config, keep=None)
    z, back_logits = gpt.forward(p, ids=ids, config=config, keep=None, cache=None)
    plain, back_plain = cross_entropy(z, targets=targets, ignore=2, reduction="sum")
    numpy.testing.assert_allclose(y, plain, rtol=1e-13)
    for (_, one), (_, other) in zip(
        named_leaves(back(numpy.ones(()))), named_leaves(back_logits(back_plain(numpy.ones(())))), strict=True
    ):
        numpy.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


def dropped(p: Tree, ids: Any, config: gpt.Config, sites: list[int]) -> Any:
    """Logits where all is dropped at some of the uses of dropout, and nothing at the others."""
    keep = numpy.ones((len(gpt.dropout_widths(config)), *ids.shape, config.width), bool)
    keep[sites] = False
    return gpt.forward(p, ids=ids, config=config, keep=list(keep), cache=None)[0]


@every_variant
def test_the_draws_of_dropout_are_used_in_their_order_each_at_its_place(config: gpt.Config) -> None:
    """The first after the embedding, then for each layer one after the attention and one after the feed-forward."""
    config = dataclasses.replace(config, dropout=0.5)
    p, ids, other = parameters(config), tokens(2, 6), tokens(2, 6, seed=1)
    attention, feed_forward = [1, 3], [2, 4]

    no_embedding = dropped(p, ids, config, [0])
    assert numpy.array_equal(no_embedding, dropped(p, other, config, [0]))
    no_attention = dropped(p, numpy.concatenate([other[:, :-1], ids[:, -1:]], axis=1), config, attention)
    assert numpy.array_equal(no_attention[:, -1], dropped(p, ids, config, attention)[:, -1])
    all_dropped = [dropped(p, ids, config, sites) for sites in ([], *([site] for site in range(5)))]
    for one, another in itertools.combinations(all_dropped, 2):
        assert not numpy.allclose(one, another)
    no_feed_forward = dropped(p, ids, config, feed_forward)
    for layer in p["layers"]:
        layer["feed_forward"]["W1"] += 1
    assert numpy.array_equal(dropped(p, ids, config, feed_forward), no_feed_forward)
    assert not numpy.allclose(dropped(p, ids, config, []), all_dropped[0])


@every_variant
def test_without_draws_the_rate_of_dropout_does_not_matter(config: gpt.Config) -> None:
    p, ids = parameters(config), tokens(2, 6)
    assert numpy.array_equal(logits(p, ids, config), logits(p, ids, dataclasses.replace(config, dropout=0.5)))


@every_variant
def test_arguments_are_only_read_and_back_repeats_itself(config: gpt.Config) -> None:
    ids = tokens(2, 3)
    ids.setflags(write=False)
    assert_pure(lambda p: gpt.forward(p, ids=ids, config=config, keep=None, cache=None), parameters(config))


@every_variant
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_and_gradients_keep_the_dtype_of_the_parameters(config: gpt.Config, dtype: str) -> None:
    p = parameters(config, dtype=dtype)
    y, back = gpt.forward(p, ids=tokens(2, 3), config=config, keep=None, cache=None)
    assert y.dtype == dtype
    assert {leaf.dtype.name for _, leaf in named_leaves(back(numpy.ones_like(y)))} == {dtype}


@every_variant
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(t=st.integers(1, 7), seed=st.integers(0, 9))
def test_future_tokens_do_not_change_the_past(config: gpt.Config, dtype: str, t: int, seed: int) -> None:
    p, ids = parameters(config, dtype=dtype), tokens(2, 8)
    other = ids.copy()
    other[:, t] = (ids[:, t] + 1) % config.vocabulary
    other[:, t + 1 :] = tokens(2, 8, seed)[:, t + 1 :]
    y, z = logits(p, ids, config), logits(p, other, config)
    assert numpy.array_equal(y[:, :t], z[:, :t])  # to the bit
    assert (y[:, t] != z[:, t]).any(axis=-1).all()


@every_variant
def test_all_positions_at_once_are_each_prefix_by_itself(config: gpt.Config) -> None:
    """Erratum E8: nothing is recursive."""
    p, ids = parameters(config), tokens(2, 8)
    y = logits(p, ids, config)
    for t in range(1, 9):
        numpy.testing.assert_allclose(logits(p, ids[:, :t], config)[:, -1], y[:, t - 1], rtol=1e-11, atol=1e-12)


@every_variant
def test_a_text_does_not_depend_on_its_neighbours_in_the_batch(config: gpt.Config) -> None:
    p, ids = parameters(config), tokens(3, 8)
    y = logits(p, ids, config)
    for row in range(3):
        numpy.testing.assert_allclose(logits(p, ids[row : row + 1], config)[0], y[row], rtol=1e-11, atol=1e-12)
    numpy.testing.assert_allclose(logits(p, ids[::-1], config)[::-1], y, rtol=1e-11, atol=1e-12)


@every_variant
@settings(max_examples=10)
@given(chunks=st.lists(st.integers(1, 4), min_size=1, max_size=8).filter(lambda c: sum(c) <= 8) | st.just([1] * 8))
def test_decoding_with_the_cache_is_the_full_forward_whatever_the_chunks(config: gpt.Config, chunks: list[int]) -> None:
    p, ids = parameters(config), tokens(2, sum(chunks))
    cache, ends = store(config, p, batch=2), list(itertools.accumulate(chunks))
    pieces = [logits(p, ids[:, end - n : end], config, cache) for n, end in zip(chunks, ends, strict=True)]
    numpy.testing.assert_allclose(numpy.concatenate(pieces, axis=1), logits(p, ids, config), rtol=1e-11, atol=1e-12)


@every_variant
@settings(max_examples=10)
@given(padding=st.lists(st.integers(0, 5), min_size=2, max_size=2), pad=st.integers(0, 4))
def test_padding_on_the_left_changes_nothing_through_the_cache(
    config: gpt.Config, padding: list[int], pad: int
) -> None:
    p, ids, further = parameters(config), tokens(2, 6), tokens(2, 2, seed=1)
    for row, n in enumerate(padding):
        ids[row, :n] = pad
    cache = store(config, p, batch=2, padding=numpy.array(padding))
    padded = numpy.concatenate([logits(p, ids, config, cache), logits(p, further, config, cache)], axis=1)
    for row, n in enumerate(padding):
        alone = logits(p, numpy.concatenate([ids, further], axis=1)[row : row + 1, n:], config)
        numpy.testing.assert_allclose(padded[row, n:], alone[0], rtol=1e-11, atol=1e-12)


@every_variant
def test_what_stands_in_the_padding_does_not_reach_the_text(config: gpt.Config) -> None:
    p, ids, padding = parameters(config), tokens(2, 6), numpy.array([3, 1])
    other = ids.copy()
    other[0, :3], other[1, :1] = 4 - ids[0, :3], 4 - ids[1, :1]
    y, z = (logits(p, a, config, store(config, p, batch=2, padding=padding)) for a in (ids, other))
    assert numpy.array_equal(y[0, 3:], z[0, 3:])
    assert numpy.array_equal(y[1, 1:], z[1, 1:])


@pytest.mark.parametrize(
    ("size", "published"),
    [("small", 124_439_808), ("medium", 354_823_168), ("large", 774_030_080), ("xl", 1_557_611_200)],
)
def test_the_published_models_have_the_published_number_of_parameters(size: str, published: int) -> None:
    """By the shapes, and by the formula V C + S C + L (12 C² + 13 C) + 2 C; no array is made."""
    config = gpt.gpt2(size)
    V, S, L, C = config.vocabulary, config.context, config.layers, config.width
    assert count(gpt.shapes(config)) == published
    assert V * C + S * C + L * (12 * C**2 + 13 * C) + 2 * C == published


@every_variant
def test_initial_parameters_have_the_structure_of_the_shapes_and_of_the_gradient(config: gpt.Config) -> None:
    p = gpt.initial(config, generator(0))
    y, back = gpt.forward(p, ids=tokens(1, 2), config=config, keep=None, cache=None)
    wanted = list(named_leaves(gpt.shapes(config)))
    assert [(name, leaf.shape) for name, leaf in named_leaves(p)] == wanted
    assert [(name, leaf.shape) for name, leaf in named_leaves(back(numpy.ones_like(y)))] == wanted


def test_initial_matrices_are_normal_and_those_into_the_residual_stream_are_smaller() -> None:
    """Deviation 0.02 √(768 / C), divided by √(2L) for Wo and W2; gains 1, biases 0."""
    layers, normal = 8, 0.02 * math.sqrt(768 / 32)
    p = gpt.initial(tiny(layers=layers, width=32, hidden=128, tied=False, vocabulary=50, context=50), generator(0))
    for path, leaf in named_leaves(p):
        name = path.rpartition(".")[2]
        if leaf.ndim == 1:
            assert (leaf == (1 if name == "g" else 0)).all(), path
        else:
            wanted = normal / math.sqrt(2 * layers) if name in ("Wo", "W2") else normal
            assert leaf.std() == pytest.approx(wanted, rel=4 / math.sqrt(2 * leaf.size)), path
            assert abs(leaf.mean()) <= 5 * wanted / math.sqrt(leaf.size), path


@every_variant
def test_an_untrained_model_finds_every_token_about_equally_probable(config: gpt.Config) -> None:
    """ln V, and half the variance of the logits more: normalised states times a deviation of 0.02 √(768 / C)."""
    config = dataclasses.replace(config, vocabulary=50, width=32, hidden=64)
    random = numpy.random.default_rng(0)
    ids, targets = random.integers(0, 50, (2, 64, 8))
    p = gpt.initial(config, generator(0))
    loss, _ = causal_loss(p, model=gpt, ids=ids, targets=targets, ignore=None, config=config, keep=None)
    assert loss / ids.size == pytest.approx(math.log(50) + 0.02**2 * 768 / 2, abs=0.1)


@every_variant
def test_the_gradient_of_the_keys_bias_is_zero(config: gpt.Config) -> None:
    """It shifts all scores of a query by the same amount."""
    C = config.width
    y, back = gpt.forward(parameters(config), ids=tokens(2, 8), config=config, keep=None, cache=None)
    for layer in back(numpy.random.default_rng(0).standard_normal(y.shape))["layers"]:
        query, key, value = numpy.split(layer["attention"]["bqkv"], 3)
        assert abs(key).max() <= 1e-12 * max(abs(query).max(), abs(value).max())
        assert key.shape == (C,)


@every_variant
@given(cut=st.integers(1, 5), ignore=st.none() | st.integers(0, 4))
@settings(max_examples=10)
def test_accumulating_over_micro_batches_gives_the_full_batch(config: gpt.Config, cut: int, ignore: int | None) -> None:
    p, ids, targets = parameters(config), tokens(6, 4), tokens(6, 4, seed=1)

    def of(rows: slice) -> tuple[Any, Tree]:
        y, back = causal_loss(
            p, model=gpt, ids=ids[rows], targets=targets[rows], ignore=ignore, config=config, keep=None
        )
        return y, back(numpy.array(1 / 24))

    (full, whole), (first, one), (rest, other) = of(slice(None)), of(slice(cut)), of(slice(cut, None))
    assert first + rest == pytest.approx(full, rel=1e-13)
    for (_, a), (_, b), (_, c) in zip(named_leaves(whole), named_leaves(one), named_leaves(other), strict=True):
        numpy.testing.assert_allclose(b + c, a, rtol=1e-10, atol=1e-13)


def test_a_tied_matrix_gets_the_gradients_of_both_its_uses() -> None:
    tied, untied = tiny(), tiny(tied=False)
    p = parameters(tied)
    ids = tokens(2, 4)
    y, back = gpt.forward(p, ids=ids, config=tied, keep=None, cache=None)
    twin = {**p, "head": p["token"].T.copy()}
    z, back_twin = gpt.forward(twin, ids=ids, config=untied, keep=None, cache=None)
    dy = numpy.random.default_rng(0).standard_normal(y.shape)
    dp, dtwin = back(dy), back_twin(dy)
    numpy.testing.assert_allclose(y, z, rtol=1e-12)
    numpy.testing.assert_allclose(dp["token"], dtwin["token"] + dtwin["head"].T, rtol=1e-12, atol=1e-13)


def test_more_tokens_than_the_context_are_refused() -> None:
    p = parameters(tiny())
    with pytest.raises(ValueError, match="9 tokens do not fit the context of 8"):
        logits(p, tokens(1, 9), tiny())
    cache = store(tiny(), p, batch=1)
    logits(p, tokens(1, 6), tiny(), cache)
    with pytest.raises(ValueError, match="no room for 3 more"):
        logits(p, tokens(1, 3), tiny(), cache)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"heads": 3}, "heads must divide the width: 8 / 3"),
        ({"layers": 0}, "layers must be a whole number of at least 1, got 0"),
        ({"width": 8.0}, "width must be a whole number"),
        ({"context": -1}, "context must be"),
        ({"vocabulary": 0}, "vocabulary must be"),
        ({"hidden": 0}, "hidden must be"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"dropout": math.nan}, "dropout must be"),
        ({"norm": "middle"}, "norm must be one of pre, post"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"positions": "rotary"}, "positions must be one of"),
    ],
)
def test_an_impossible_architecture_is_refused_by_name(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        tiny(**change)
