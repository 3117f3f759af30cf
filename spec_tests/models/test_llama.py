"""Laws of Llama as a whole, with every scheme of positions."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.backend import generator
from refllm.errors import UserError
from refllm.generation.cache import KeyValueCache
from refllm.generation.generate import generate
from refllm.models import llama
from refllm.objectives.causal import causal_loss
from refllm.ops.cross_entropy import cross_entropy
from refllm.parameters import Tree, count, map_leaves, named_leaves
from spec_tests.gradients import assert_gradients_agree, assert_pure, random_tree

TINY = {"vocabulary": 7, "context": 8, "layers": 2, "heads": 4, "width": 8, "hidden": 12}


def tiny(**changes: Any) -> llama.Config:
    return llama.Config(**{**TINY, **changes})


VARIANTS = {
    "rotary, a head of keys each": tiny(),
    "interleaved, one head of keys, tied": tiny(positions="rotary_interleaved", kv_heads=1, tied=True),
    "alibi, heads wider than the model": tiny(positions="alibi", heads=3, head_width=5),
    "relative, two heads of keys, tied": tiny(positions="relative", kv_heads=2, tied=True),
    "no positions, one head": tiny(positions="none", heads=1, kv_heads=1, head_width=3),
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
every_scheme = pytest.mark.parametrize("positions", llama.POSITIONS)


def parameters(config: llama.Config, *, dtype: str = "float64", seed: int = 0) -> Tree:
    p = random_tree(llama.shapes(config), seed)
    p["token"] *= 3  # away from 0, where the norm is steep and a difference quotient inexact
    return map_leaves(lambda leaf: leaf.astype(dtype), p)


def tokens(B: int, T: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).integers(0, TINY["vocabulary"], (B, T))


def logits(p: Tree, ids: Any, config: llama.Config, cache: Any = None) -> Any:
    return llama.forward(p, ids=ids, config=config, keep=None, cache=cache)[0]


def store(config: llama.Config, p: Tree, *, batch: int, padding: Any = None) -> KeyValueCache:
    layers, heads, head_width = llama.cache_shape(config)
    return KeyValueCache(
        batch=batch, layers=layers, heads=heads, room=config.context, head_width=head_width, padding=padding,
        like=p["token"],
    )  # fmt: skip


SMALLER = {"width": 4, "hidden": 5, "heads": 2, "context": 4}


@pytest.mark.parametrize(
    ("config", "T"),
    [
        (tiny(**SMALLER, kv_heads=1, dropout=0.3), 3),
        (tiny(**SMALLER, positions="rotary_interleaved", layers=1, head_width=4, tied=True), 3),
        (tiny(**SMALLER, positions="alibi", layers=1, dropout=0.3), 3),
        (tiny(**{**SMALLER, "heads": 3}, positions="relative", head_width=1, layers=1, tied=True), 3),
        (tiny(**SMALLER, positions="relative", kv_heads=1), 3),
        (tiny(**SMALLER, positions="none", layers=1), 3),
        (tiny(**SMALLER, layers=1, kv_heads=1), 1),
        (tiny(**SMALLER, layers=1, positions="relative", tied=True), 1),
    ],
    ids=lambda c: (
        f"{c.positions}, {c.heads} / {c.kv_heads} x {c.head_width}" if isinstance(c, llama.Config) else str(c)
    ),
)
def test_every_parameters_gradient_agrees_with_differences(config: llama.Config, T: int) -> None:
    ids = tokens(2, T)
    draws = numpy.random.default_rng(1)
    keep = [draws.random((*ids.shape, width)) < 0.7 for width in llama.dropout_widths(config)]

    def model(p: Tree) -> tuple[Any, Callable[[Any], Tree]]:
        return llama.forward(p, ids=ids, config=config, keep=keep if config.dropout else None, cache=None)

    assert_gradients_agree(model, parameters(config))


@every_variant
def test_the_losss_gradient_is_the_logits_pulled_back(config: llama.Config) -> None:
    p, ids, targets = parameters(config), tokens(2, 6), tokens(2, 6, seed=1)
    y, back = causal_loss(p, model=llama, ids=ids, targets=targets, ignore=2, config=config, keep=None)
    z, back_logits = llama.forward(p, ids=ids, config=config, keep=None, cache=None)
    plain, back_plain = cross_entropy(z, targets=targets, ignore=2, reduction="sum")
    numpy.testing.assert_allclose(y, plain, rtol=1e-13)
    for (_, one), (_, other) in zip(
        named_leaves(back(numpy.ones(()))), named_leaves(back_logits(back_plain(numpy.ones(())))), strict=True
    ):
        numpy.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


def dropped(p: Tree, ids: Any, config: llama.Config, sites: list[int]) -> Any:
    """Logits where all is dropped at some of the uses of dropout, and nothing at the others."""
    keep = [numpy.ones((*ids.shape, width), bool) for width in llama.dropout_widths(config)]
    for site in sites:
        keep[site][...] = False
    return llama.forward(p, ids=ids, config=config, keep=keep, cache=None)[0]


@every_variant
def test_the_draws_of_dropout_are_used_in_their_order_each_at_its_place(config: llama.Config) -> None:
    """The first after the embedding, then for each layer one after the attention and one after the feed-forward."""
    config = dataclasses.replace(config, dropout=0.5)
    p, ids, other = parameters(config), tokens(2, 6), tokens(2, 6, seed=1)
    attention, feed_forward = [1, 3], [2, 4]

    assert numpy.array_equal(dropped(p, ids, config, [0]), dropped(p, other, config, [0]))
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
def test_without_draws_the_rate_of_dropout_does_not_matter(config: llama.Config) -> None:
    p, ids = parameters(config), tokens(2, 6)
    assert numpy.array_equal(logits(p, ids, config), logits(p, ids, dataclasses.replace(config, dropout=0.5)))


@every_variant
def test_arguments_are_only_read_and_back_repeats_itself(config: llama.Config) -> None:
    ids = tokens(2, 3)
    ids.setflags(write=False)
    assert_pure(lambda p: llama.forward(p, ids=ids, config=config, keep=None, cache=None), parameters(config))


@every_variant
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_and_gradients_keep_the_dtype_of_the_parameters(config: llama.Config, dtype: str) -> None:
    p = parameters(config, dtype=dtype)
    y, back = llama.forward(p, ids=tokens(2, 3), config=config, keep=None, cache=None)
    assert y.dtype == dtype
    assert {leaf.dtype.name for _, leaf in named_leaves(back(numpy.ones_like(y)))} == {dtype}


@every_variant
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(t=st.integers(1, 7), seed=st.integers(0, 9))
def test_future_tokens_do_not_change_the_past(config: llama.Config, dtype: str, t: int, seed: int) -> None:
    p, ids = parameters(config, dtype=dtype), tokens(2, 8)
    other = ids.copy()
    other[:, t] = (ids[:, t] + 1) % config.vocabulary
    other[:, t + 1 :] = tokens(2, 8, seed)[:, t + 1 :]
    y, z = logits(p, ids, config), logits(p, other, config)
    assert numpy.array_equal(y[:, :t], z[:, :t])  # to the bit
    assert (y[:, t] != z[:, t]).any(axis=-1).all()


@every_variant
def test_all_positions_at_once_are_each_prefix_by_itself(config: llama.Config) -> None:
    p, ids = parameters(config), tokens(2, 8)
    y = logits(p, ids, config)
    for t in range(1, 9):
        numpy.testing.assert_allclose(logits(p, ids[:, :t], config)[:, -1], y[:, t - 1], rtol=1e-11, atol=1e-12)


@every_scheme
def test_the_order_of_earlier_tokens_matters_with_every_scheme_but_none(positions: str) -> None:
    """With one layer: in a second the causal mask alone tells the order."""
    config = tiny(positions=positions, layers=1)
    p, ids = parameters(config), numpy.array([[1, 2, 3, 4]])
    y, z = (logits(p, a, config)[:, -1] for a in (ids, ids[:, [2, 0, 1, 3]]))
    assert numpy.allclose(y, z, rtol=1e-12) == (positions == "none")


@every_scheme
@given(shift=st.integers(1, 5))
def test_a_place_counts_from_the_query_and_not_from_the_beginning(positions: str, shift: int) -> None:
    """A text behind padding that no token attends has its own logits, wherever it then stands."""
    config = tiny(positions=positions, context=16)
    p, ids = parameters(config), tokens(1, 6)
    cache = store(config, p, batch=1)
    cache.padding = numpy.array([shift])
    behind = numpy.concatenate([tokens(1, shift, seed=1), ids], axis=1)
    numpy.testing.assert_allclose(logits(p, behind, config, cache)[:, shift:], logits(p, ids, config), rtol=1e-11)


@every_variant
def test_a_text_does_not_depend_on_its_neighbours_in_the_batch(config: llama.Config) -> None:
    p, ids = parameters(config), tokens(3, 8)
    y = logits(p, ids, config)
    for row in range(3):
        numpy.testing.assert_allclose(logits(p, ids[row : row + 1], config)[0], y[row], rtol=1e-11, atol=1e-12)
    numpy.testing.assert_allclose(logits(p, ids[::-1], config)[::-1], y, rtol=1e-11, atol=1e-12)


@every_variant
@settings(max_examples=10)
@given(chunks=st.lists(st.integers(1, 4), min_size=1, max_size=8).filter(lambda c: sum(c) <= 8) | st.just([1] * 8))
def test_decoding_with_the_cache_is_the_full_forward_whatever_the_chunks(
    config: llama.Config, chunks: list[int]
) -> None:
    p, ids = parameters(config), tokens(2, sum(chunks))
    cache, ends = store(config, p, batch=2), list(itertools.accumulate(chunks))
    pieces = [logits(p, ids[:, end - n : end], config, cache) for n, end in zip(chunks, ends, strict=True)]
    numpy.testing.assert_allclose(numpy.concatenate(pieces, axis=1), logits(p, ids, config), rtol=1e-11, atol=1e-12)


@every_variant
@settings(max_examples=10)
@given(padding=st.lists(st.integers(0, 5), min_size=2, max_size=2), pad=st.integers(0, 4))
def test_padding_on_the_left_changes_nothing_through_the_cache(
    config: llama.Config, padding: list[int], pad: int
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
def test_what_stands_in_the_padding_does_not_reach_the_text(config: llama.Config) -> None:
    p, ids, padding = parameters(config), tokens(2, 6), numpy.array([3, 1])
    other = ids.copy()
    other[0, :3], other[1, :1] = 6 - ids[0, :3], 6 - ids[1, :1]
    y, z = (logits(p, a, config, store(config, p, batch=2, padding=padding)) for a in (ids, other))
    assert numpy.array_equal(y[0, 3:], z[0, 3:])
    assert numpy.array_equal(y[1, 1:], z[1, 1:])


@every_variant
def test_it_generates_the_same_with_and_without_a_cache(config: llama.Config) -> None:
    """Six tokens after four slide the window of eight."""
    how: dict[str, Any] = {"padding": None, "new_tokens": 6, "temperature": 1.0, "top_k": None, "top_p": None}
    p, uniforms = parameters(config), numpy.random.default_rng(0).random((2, 6))
    with_cache, without = (
        list(generate(p, model=llama, ids=tokens(2, 4), config=config, uniforms=uniforms, cache=cache, **how))
        for cache in (True, False)
    )
    for (one, one_logits), (other, other_logits) in zip(with_cache, without, strict=True):
        assert numpy.array_equal(one, other)
        numpy.testing.assert_allclose(one_logits, other_logits, rtol=1e-11, atol=1e-12)


@every_variant
def test_a_larger_context_changes_nothing_and_lets_the_same_parameters_read_on(config: llama.Config) -> None:
    """No scheme has a table of positions: what was trained at one length is evaluated beyond it."""
    p, ids = parameters(config), tokens(2, 40)
    longer = dataclasses.replace(config, context=40)
    assert llama.shapes(longer) == llama.shapes(config)
    numpy.testing.assert_allclose(logits(p, ids, longer)[:, :8], logits(p, ids[:, :8], config), rtol=1e-11, atol=1e-12)


def test_one_head_of_keys_for_all_is_a_head_of_keys_each_that_are_all_the_same() -> None:
    few, many = tiny(kv_heads=2), tiny(kv_heads=4)
    p, ids = parameters(few), tokens(2, 6)

    def spread(W: Any) -> Any:
        return W.reshape(8, 2, 2).repeat(2, axis=1).reshape(8, 8)  # heads 0, 0, 1, 1

    layers = [
        {**q, "attention": {**q["attention"], "Wk": spread(q["attention"]["Wk"]), "Wv": spread(q["attention"]["Wv"])}}
        for q in p["layers"]
    ]
    numpy.testing.assert_allclose(logits({**p, "layers": layers}, ids, many), logits(p, ids, few), rtol=1e-12)


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (1, [2**-8]),
        (8, [2.0**-h for h in range(1, 9)]),
        (16, [2 ** (-h / 2) for h in range(1, 17)]),
        (3, [2**-4, 2**-8, 2**-2]),
        (12, [2.0**-h for h in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
    ],
)
def test_the_slopes_of_alibi_are_the_published_ones(heads: int, slopes: list[float]) -> None:
    """Press et al. sec. 3 names 1/2, 1/4 ... 1/256 for 8 heads and 2^-0.5, 2^-1 ... for 16."""
    assert llama.alibi_slopes(heads) == pytest.approx(slopes, rel=1e-15)


@given(heads=st.integers(1, 200))
def test_every_head_has_a_slope_of_its_own(heads: int) -> None:
    slopes = llama.alibi_slopes(heads)
    assert len(set(slopes)) == len(slopes) == heads
    assert all(0 < slope < 1 for slope in slopes)


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (llama.llama2("7b"), 6_738_415_616),
        (llama.llama2("13b"), 13_015_864_320),
        (llama.llama2("70b"), 68_976_648_192),
        (llama.tinyllama(), 1_100_048_384),
    ],
    ids=["7b", "13b", "70b", "TinyLlama"],
)
def test_the_published_models_have_the_published_number_of_parameters(config: llama.Config, published: int) -> None:
    """By the shapes, and by the formula 2 V C + L (2 C² + 2 C G D + 3 C F + 2 C) + C; no array is made."""
    V, L, C, F = config.vocabulary, config.layers, config.width, config.hidden
    shared = config.kv_heads * config.head_width
    assert count(llama.shapes(config)) == published
    assert 2 * V * C + L * (2 * C * C + 2 * C * shared + 3 * C * F + 2 * C) + C == published


@every_variant
def test_initial_parameters_have_the_structure_of_the_shapes_and_of_the_gradient(config: llama.Config) -> None:
    p = llama.initial(config, generator(0))
    y, back = llama.forward(p, ids=tokens(1, 2), config=config, keep=None, cache=None)
    wanted = list(named_leaves(llama.shapes(config)))
    assert [(name, leaf.shape) for name, leaf in named_leaves(p)] == wanted
    assert [(name, leaf.shape) for name, leaf in named_leaves(back(numpy.ones_like(y)))] == wanted


def test_initial_matrices_are_normal_and_those_into_the_residual_stream_are_smaller() -> None:
    """Deviation 0.02 √(768 / C), divided by √(2L) for Wo and W2; gains 1."""
    layers, normal = 8, 0.02 * math.sqrt(768 / 32)
    p = llama.initial(tiny(layers=layers, width=32, hidden=128, vocabulary=50, positions="relative"), generator(0))
    for path, leaf in named_leaves(p):
        name = path.rpartition(".")[2]
        if name == "g":
            assert (leaf == 1).all(), path
        else:
            wanted = normal / math.sqrt(2 * layers) if name in ("Wo", "W2") else normal
            assert leaf.std() == pytest.approx(wanted, rel=4 / math.sqrt(2 * leaf.size)), path
            assert abs(leaf.mean()) <= 5 * wanted / math.sqrt(leaf.size), path


@every_variant
def test_an_untrained_model_finds_every_token_about_equally_probable(config: llama.Config) -> None:
    """ln V, and half the variance of the logits more: normalised states times a deviation of 0.02 √(768 / C)."""
    config = dataclasses.replace(config, vocabulary=50, width=32, hidden=64)
    random = numpy.random.default_rng(0)
    ids, targets = random.integers(0, 50, (2, 64, 8))
    p = llama.initial(config, generator(0))
    loss, _ = causal_loss(p, model=llama, ids=ids, targets=targets, ignore=None, config=config, keep=None)
    assert loss / ids.size == pytest.approx(math.log(50) + 0.02**2 * 768 / 2, abs=0.1)


@every_variant
@given(cut=st.integers(1, 5), ignore=st.none() | st.integers(0, 4))
@settings(max_examples=10)
def test_accumulating_over_micro_batches_gives_the_full_batch(
    config: llama.Config, cut: int, ignore: int | None
) -> None:
    p, ids, targets = parameters(config), tokens(6, 4), tokens(6, 4, seed=1)

    def of(rows: slice) -> tuple[Any, Tree]:
        y, back = causal_loss(
            p, model=llama, ids=ids[rows], targets=targets[rows], ignore=ignore, config=config, keep=None
        )
        return y, back(numpy.array(1 / 24))

    (full, whole), (first, one), (rest, other) = of(slice(None)), of(slice(cut)), of(slice(cut, None))
    assert first + rest == pytest.approx(full, rel=1e-13)
    for (_, a), (_, b), (_, c) in zip(named_leaves(whole), named_leaves(one), named_leaves(other), strict=True):
        numpy.testing.assert_allclose(b + c, a, rtol=1e-10, atol=1e-13)


def test_a_tied_matrix_gets_the_gradients_of_both_its_uses() -> None:
    tied, untied = tiny(tied=True), tiny()
    p, ids = parameters(tied), tokens(2, 4)
    y, back = llama.forward(p, ids=ids, config=tied, keep=None, cache=None)
    z, back_twin = llama.forward({**p, "head": p["token"].T.copy()}, ids=ids, config=untied, keep=None, cache=None)
    dy = numpy.random.default_rng(0).standard_normal(y.shape)
    dp, dtwin = back(dy), back_twin(dy)
    numpy.testing.assert_allclose(y, z, rtol=1e-12)
    numpy.testing.assert_allclose(dp["token"], dtwin["token"] + dtwin["head"].T, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_memory_of_a_training_step_grows_linearly_with_the_context(positions: str) -> None:
    """Four times the length takes at most five times the memory, where the square would take sixteen."""
    config = tiny(positions=positions, context=4096, layers=1, heads=1, width=16)
    p = parameters(config, dtype="float32")

    def peak(T: int) -> int:
        ids = tokens(1, T)
        tracemalloc.start()
        _, back = causal_loss(p, model=llama, ids=ids, targets=ids, ignore=None, config=config, keep=None)
        back(numpy.asarray(1, "float32"))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(2560) <= 5 * peak(640)


def test_more_tokens_than_the_context_are_refused() -> None:
    p = parameters(tiny())
    with pytest.raises(ValueError, match="llama: 9 tokens do not fit the context of 8; give fewer, or a config with"):
        logits(p, tokens(1, 9), tiny())
    cache = store(tiny(), p, batch=1)
    logits(p, tokens(1, 6), tiny(), cache)
    with pytest.raises(ValueError, match="no room for 3 more"):
        logits(p, tokens(1, 3), tiny(), cache)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"heads": 3}, "heads must divide the width: 8 / 3 is not whole; change one, or give head_width"),
        ({"kv_heads": 3}, "kv_heads must divide heads: 4 / 3"),
        ({"kv_heads": -1}, "kv_heads must be a whole number of at least 1, or 0"),
        ({"head_width": 2.0}, "head_width must be a whole number"),
        ({"head_width": 3}, "positions rotary turn pairs, so head_width must be even, not 3"),
        ({"layers": 0}, "layers must be a whole number of at least 1, got 0"),
        ({"width": 8.0}, "width must be a whole number"),
        ({"context": -1}, "context must be"),
        ({"vocabulary": 0}, "vocabulary must be"),
        ({"hidden": 0}, "hidden must be"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"dropout": math.nan}, "dropout must be"),
        ({"base": 0.0}, "base must be a number above 0"),
        ({"base": math.nan}, "base must be a number above 0"),
        ({"base": math.inf}, "base must be a number above 0"),
        ({"positions": "learned"}, "positions must be one of rotary, rotary_interleaved, alibi, relative, none"),
    ],
)
def test_an_impossible_architecture_is_refused_by_name(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        tiny(**change)


def test_what_is_left_open_is_filled_in_and_said() -> None:
    config = tiny()
    assert (config.kv_heads, config.head_width) == (4, 2)
    assert llama.Config(**config.as_dict()) == config
    assert config.as_dict()["kv_heads"] == 4
