"""Laws of every language model: those of Transformer layers, those that carry a state, and the hybrid of both."""

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
from refllm.generation.generate import generate
from refllm.objectives.causal import causal_loss
from refllm.ops.cross_entropy import cross_entropy
from refllm.parameters import Tree, map_leaves, named_leaves
from spec_tests import language_models as tested
from spec_tests.gradients import assert_gradients_agree, assert_pure
from spec_tests.language_models import (
    S,
    V,
    draws,
    logits,
    model_of,
    parameters,
    store,
    tiny_gpt,
    tiny_hybrid,
    tiny_llama,
    tiny_nnlm,
    tiny_recurrent,
    tiny_switch,
    tokens,
)

every_model = pytest.mark.parametrize("config", tested.ALL.values(), ids=tested.ALL)
STACKS = {**tested.GPT, **tested.LLAMA, **tested.SWITCH}
every_stack = pytest.mark.parametrize("config", STACKS.values(), ids=STACKS)
DENSE = {**tested.GPT, **tested.LLAMA}
EXACT = {**DENSE, **tested.WITH_STATE}  # a loss of experts drops tokens, which logits never do
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


# --- gradients --------------------------------------------------------------------------------------------------------

GPT = {"width": 4, "hidden": 5, "vocabulary": 5, "context": 4}
LLAMA = {"width": 4, "hidden": 5, "heads": 2, "context": 4}
SWITCH = {"width": 4, "hidden": 3, "vocabulary": 4, "context": 4}
SEEDS = {"switch": 4}  # with it no token is so undecided that the steps of a difference change its expert
MINIATURES: dict[str, tuple[Any, int]] = {  # the configuration, and how many tokens
    "GPT-2, dropout": (tiny_gpt(**GPT, dropout=0.3), 3),
    "2017": (tiny_gpt(**GPT, norm="post", activation="relu", positions="sinusoidal", tied=False), 3),
    "pre, sinusoidal, untied, dropout": (
        tiny_gpt(**GPT, positions="sinusoidal", tied=False, activation="gelu_erf", dropout=0.3), 3,
    ),
    "post, learned, tied, dropout": (tiny_gpt(**GPT, norm="post", activation="relu", dropout=0.3), 3),
    "three heads": (tiny_gpt(**{**GPT, "width": 6}, layers=1, heads=3, activation="relu"), 3),
    "scaled": (tiny_gpt(**GPT, positions="sinusoidal", scaled_embedding=True, dropout=0.3), 3),
    "rotary, dropout": (tiny_llama(**LLAMA, kv_heads=1, dropout=0.3), 3),
    "interleaved, tied": (
        tiny_llama(**LLAMA, positions="rotary_interleaved", layers=1, head_width=4, tied=True), 3,
    ),
    "alibi, dropout": (tiny_llama(**LLAMA, positions="alibi", layers=1, dropout=0.3), 3),
    "relative, tied, narrow heads": (
        tiny_llama(**{**LLAMA, "heads": 3}, positions="relative", head_width=1, layers=1, tied=True), 3,
    ),
    "relative": (tiny_llama(**LLAMA, positions="relative", kv_heads=1), 3),
    "no positions": (tiny_llama(**LLAMA, positions="none", layers=1), 3),
    "rotary, one token": (tiny_llama(**LLAMA, layers=1, kv_heads=1), 1),
    "relative, one token": (tiny_llama(**LLAMA, layers=1, positions="relative", tied=True), 1),
    "every second with experts, dropout": (tiny_switch(**SWITCH, experts=2, dropout=0.3), 4),
    "every with experts": (
        tiny_switch(**SWITCH, experts=3, every=1, layers=1, capacity_factor=1.0, activation="gelu_erf"), 4,
    ),
    "one expert, one token": (tiny_switch(**{**SWITCH, "context": 1}, experts=1, layers=1, every=1), 1),
}  # fmt: skip
MINIATURES |= {
    f"{name}, {what}": (dataclasses.replace(config, dropout=dropout), T)
    for name, config in tested.WITH_STATE.items()
    for what, dropout, T in (("whole", 0.0, 4), ("dropout", 0.3, 4), ("one token", 0.0, 1))
}


@pytest.mark.one_in(12)
@pytest.mark.parametrize(("config", "T"), MINIATURES.values(), ids=MINIATURES)
def test_every_parameters_gradient_agrees_with_differences(config: Any, T: int) -> None:
    model, B = model_of(config), 2 if T > 1 else 1
    ids = numpy.random.default_rng(0).integers(0, config.vocabulary, (B, T))
    dropout_mask = draws(config, *ids.shape) if config.dropout else None

    def f(p: Tree) -> Any:
        return model.forward(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=None)

    assert_gradients_agree(f, parameters(config, seed=SEEDS.get(model.__name__.rpartition(".")[2], 0)))


@pytest.mark.parametrize("config", EXACT.values(), ids=EXACT)
def test_the_losss_gradient_is_the_logits_pulled_back(config: Any) -> None:
    """causal_loss never forms the logits of a whole batch; the result is that of the plain chain of operations."""
    p, ids, targets, model = parameters(config), tokens(2, 6), tokens(2, 6, seed=1), model_of(config)
    y, back = causal_loss(p, model=model, ids=ids, targets=targets, ignore=2, config=config, dropout_mask=None)
    z, back_logits = model.forward(p, ids=ids, config=config, dropout_mask=None, cache=None)
    plain, back_plain = cross_entropy(z, targets=targets, ignore=2, reduction="sum")
    numpy.testing.assert_allclose(y, plain, rtol=1e-13)
    one = numpy.ones(())
    for (_, a), (_, b) in zip(named_leaves(back(one)), named_leaves(back_logits(back_plain(one))), strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.one_in(12)
@every_model
@given(cut=st.integers(1, 5), ignore=st.none() | st.integers(0, 4))
@settings(max_examples=10)
def test_accumulating_over_micro_batches_gives_the_full_batch(config: Any, cut: int, ignore: int | None) -> None:
    """Where a loss has the balance of experts in it, a mean over texts, as long as all texts have as many targets."""
    p, ids, targets, model = parameters(config), tokens(6, 4), tokens(6, 4, seed=1), model_of(config)
    if hasattr(model, "balanced_states") and ignore is not None:
        targets = numpy.where(numpy.arange(4) == ignore % 4, ignore, (targets % 2 + ignore + 1) % config.vocabulary)

    def of(rows: slice) -> tuple[Any, Tree]:
        y, back = causal_loss(
            p, model=model, ids=ids[rows], targets=targets[rows], ignore=ignore, config=config, dropout_mask=None
        )
        return y, back(numpy.array(1 / 24))

    (full, whole), (first, one), (rest, other) = of(slice(None)), of(slice(cut)), of(slice(cut, None))
    assert first + rest == pytest.approx(full, rel=1e-13)
    for (_, a), (_, b), (_, c) in zip(named_leaves(whole), named_leaves(one), named_leaves(other), strict=True):
        numpy.testing.assert_allclose(b + c, a, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("tiny", [tiny_gpt, tiny_llama])
def test_a_tied_matrix_gets_the_gradients_of_both_its_uses(tiny: Callable[..., Any]) -> None:
    tied, untied = tiny(tied=True), tiny(tied=False)
    model, p, ids = model_of(tied), parameters(tied), tokens(2, 4)
    y, back = model.forward(p, ids=ids, config=tied, dropout_mask=None, cache=None)
    z, back_twin = model.forward(
        {**p, "head": p["token"].T.copy()}, ids=ids, config=untied, dropout_mask=None, cache=None
    )
    dy = numpy.random.default_rng(0).standard_normal(y.shape)
    dp, dtwin = back(dy), back_twin(dy)
    numpy.testing.assert_allclose(y, z, rtol=1e-12)
    numpy.testing.assert_allclose(dp["token"], dtwin["token"] + dtwin["head"].T, rtol=1e-12, atol=1e-13)


# --- dropout ----------------------------------------------------------------------------------------------------------


def dropped(p: Tree, ids: Any, config: Any, *sites: int) -> Any:
    """Logits where all is dropped at some of the uses of dropout, and nothing at the others."""
    number = itertools.count()
    widths = model_of(config).dropout_widths(config)
    dropout_mask = map_leaves(lambda width: numpy.full((*ids.shape, width), next(number) not in sites), widths)
    return model_of(config).forward(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=None)[0]


@every_model
def test_the_draws_of_dropout_are_used_each_at_its_place(config: Any) -> None:
    """Everything dropped at one place differs from nothing dropped, and from every other place; and with nothing kept
    after the embedding the tokens do not matter."""
    config = dataclasses.replace(config, dropout=0.5)
    p, ids = parameters(config), tokens(2, 6)
    sites = range(len(named_leaves(model_of(config).dropout_widths(config))))
    everything = [dropped(p, ids, config), *(dropped(p, ids, config, site) for site in sites)]
    for one, another in itertools.combinations(everything, 2):
        assert not numpy.allclose(one, another)
    assert numpy.array_equal(dropped(p, ids, config, 0), dropped(p, tokens(2, 6, seed=1), config, 0))


@pytest.mark.parametrize("config", DENSE.values(), ids=DENSE)
def test_a_layer_draws_first_after_its_attention_and_then_after_its_feed_forward(config: Any) -> None:
    config = dataclasses.replace(config, dropout=0.5)
    p, ids, other = parameters(config), tokens(2, 6), tokens(2, 6, seed=1)
    attention, feed_forward = [1, 3], [2, 4]
    assert len(named_leaves(model_of(config).dropout_widths(config))) == 5

    no_attention = dropped(p, numpy.concatenate([other[:, :-1], ids[:, -1:]], axis=1), config, *attention)
    assert numpy.array_equal(no_attention[:, -1], dropped(p, ids, config, *attention)[:, -1])
    no_feed_forward, whole = dropped(p, ids, config, *feed_forward), dropped(p, ids, config)
    for layer in p["layers"]:
        layer["feed_forward"]["W1"] += 1
    assert numpy.array_equal(dropped(p, ids, config, *feed_forward), no_feed_forward)
    assert not numpy.allclose(dropped(p, ids, config), whole)


@every_model
def test_without_draws_the_rate_of_dropout_does_not_matter(config: Any) -> None:
    p, ids = parameters(config), tokens(2, 6)
    assert numpy.array_equal(logits(p, ids, config), logits(p, ids, dataclasses.replace(config, dropout=0.5)))


# --- arrays -----------------------------------------------------------------------------------------------------------


@every_model
def test_arguments_are_only_read_and_back_repeats_itself(config: Any) -> None:
    model, ids = model_of(config), tokens(2, 3)
    ids.setflags(write=False)
    assert_pure(lambda p: model.forward(p, ids=ids, config=config, dropout_mask=None, cache=None), parameters(config))


@every_model
@every_dtype
def test_logits_and_gradients_keep_the_dtype_of_the_parameters(config: Any, dtype: str) -> None:
    p, ids = parameters(config, dtype=dtype), tokens(2, 3)
    y, back = model_of(config).forward(p, ids=ids, config=config, dropout_mask=None, cache=None)
    assert y.dtype == dtype
    assert {leaf.dtype.name for _, leaf in named_leaves(back(numpy.ones_like(y)))} == {dtype}
    assert logits(p, ids, config, store(config, p, batch=2, padding=numpy.array([1, 0]))).dtype == dtype


@every_model
def test_initial_parameters_have_the_structure_of_the_shapes_and_of_the_gradient(config: Any) -> None:
    model = model_of(config)
    p = model.initial(config, generator(0))
    y, back = model.forward(p, ids=tokens(1, 2), config=config, dropout_mask=None, cache=None)
    wanted = list(named_leaves(model.shapes(config)))
    assert [(name, leaf.shape) for name, leaf in named_leaves(p)] == wanted
    assert [(name, leaf.shape) for name, leaf in named_leaves(back(numpy.ones_like(y)))] == wanted
    assert {leaf.dtype.name for _, leaf in named_leaves(p)} == {"float64"}


WIDE: dict[str, Any] = {"layers": 8, "width": 32, "hidden": 128, "vocabulary": 50, "context": 50}


@pytest.mark.parametrize(
    "config",
    [tiny_gpt(**WIDE, tied=False), tiny_llama(**WIDE, positions="relative"), tiny_switch(**WIDE)],
    ids=["gpt", "llama", "switch"],
)
def test_initial_matrices_are_normal_and_those_into_the_residual_stream_are_smaller(config: Any) -> None:
    """Deviation 0.02 √(768 / C), divided by √(2L) for Wo and W2; gains 1, biases 0."""
    normal = 0.02 * math.sqrt(768 / config.width)
    for path, leaf in named_leaves(model_of(config).initial(config, generator(0))):
        name = path.rpartition(".")[2]
        if name == "g" or name.startswith("b"):
            assert (leaf == (1 if name == "g" else 0)).all(), path
        else:
            wanted = normal / math.sqrt(2 * config.layers) if name in ("Wo", "W2") else normal
            assert leaf.std() == pytest.approx(wanted, rel=4 / math.sqrt(2 * leaf.size)), path
            assert abs(leaf.mean()) <= 5 * wanted / math.sqrt(leaf.size), path


def untrained(config: Any) -> float:
    """The loss, a token, of a model that has only been initialised."""
    ids, targets = numpy.random.default_rng(0).integers(0, config.vocabulary, (2, 64, 8))
    model = model_of(config)
    p = model.initial(config, generator(0))
    loss, _ = causal_loss(p, model=model, ids=ids, targets=targets, ignore=None, config=config, dropout_mask=None)
    return float(loss / ids.size)


@every_stack
def test_an_untrained_stack_finds_every_token_about_equally_probable(config: Any) -> None:
    """ln V, and half the variance of the logits more: normalised states times a deviation of 0.02 √(768 / C)."""
    config = dataclasses.replace(config, vocabulary=50, width=32, hidden=64)
    assert untrained(config) == pytest.approx(math.log(50) + 0.02**2 * 768 / 2, abs=0.1)


@pytest.mark.parametrize(
    "config",
    [
        tiny_recurrent(width=32, hidden=64, vocabulary=50),
        tiny_recurrent(width=32, hidden=32, vocabulary=50, tied=True),
        tiny_nnlm(width=32, hidden=64, vocabulary=50),
        tiny_nnlm(width=32, hidden=64, vocabulary=50, direct=True),
        tiny_hybrid(width=32, hidden=64, vocabulary=50),
    ],
    ids=["LSTM", "LSTM, tied", "NNLM", "NNLM, direct", "hybrid"],
)
def test_an_untrained_model_with_a_state_finds_every_token_about_equally_probable(config: Any) -> None:
    """ln V, and half the variance of the logits more, which is about 1."""
    assert -0.1 < untrained(config) - math.log(50) < 0.8


# --- what a token sees ------------------------------------------------------------------------------------------------


@pytest.mark.one_in(8)
@every_model
@every_dtype
@given(t=st.integers(1, 7), seed=st.integers(0, 9))
def test_future_tokens_do_not_change_the_past(config: Any, dtype: str, t: int, seed: int) -> None:
    p, ids = parameters(config, dtype=dtype), tokens(2, 8)
    other = ids.copy()
    other[:, t] = (ids[:, t] + 1) % V
    other[:, t + 1 :] = tokens(2, 8, seed)[:, t + 1 :]
    y, z = logits(p, ids, config), logits(p, other, config)
    assert numpy.array_equal(y[:, :t], z[:, :t])  # to the bit
    assert (y[:, t] != z[:, t]).any(axis=-1).all()


@every_model
def test_all_positions_at_once_are_each_prefix_by_itself(config: Any) -> None:
    """Erratum E8: nothing is recursive but a state."""
    p, ids = parameters(config), tokens(2, 8)
    y = logits(p, ids, config)
    for t in range(1, 9):
        numpy.testing.assert_allclose(logits(p, ids[:, :t], config)[:, -1], y[:, t - 1], rtol=1e-11, atol=1e-12)


@every_model
def test_a_text_does_not_depend_on_its_neighbours_in_the_batch(config: Any) -> None:
    p, ids = parameters(config), tokens(3, 8)
    y = logits(p, ids, config)
    for row in range(3):
        numpy.testing.assert_allclose(logits(p, ids[row : row + 1], config)[0], y[row], rtol=1e-11, atol=1e-12)
    numpy.testing.assert_allclose(logits(p, ids[::-1], config)[::-1], y, rtol=1e-11, atol=1e-12)


# --- piece by piece ---------------------------------------------------------------------------------------------------


@pytest.mark.one_in(8)
@every_model
@settings(max_examples=10)
@given(chunks=st.lists(st.integers(1, 4), min_size=1, max_size=8).filter(lambda c: sum(c) <= 8) | st.just([1] * 8))
def test_what_is_kept_of_earlier_tokens_replaces_them_whatever_the_chunks(config: Any, chunks: list[int]) -> None:
    p, ids = parameters(config), tokens(2, sum(chunks))
    kept, ends = store(config, p, batch=2), list(itertools.accumulate(chunks))
    pieces = [logits(p, ids[:, end - n : end], config, kept) for n, end in zip(chunks, ends, strict=True)]
    numpy.testing.assert_allclose(numpy.concatenate(pieces, axis=1), logits(p, ids, config), rtol=1e-11, atol=1e-12)


@pytest.mark.one_in(8)
@every_model
@settings(max_examples=10)
@given(padding=st.lists(st.integers(0, 5), min_size=2, max_size=2), cut=st.integers(1, 6), pad=st.integers(0, V - 1))
def test_padding_on_the_left_changes_nothing(config: Any, padding: list[int], cut: int, pad: int) -> None:
    """In pieces too, of which the first may be padding alone."""
    p, ids = parameters(config), tokens(2, 8)
    for row, n in enumerate(padding):
        ids[row, :n] = pad
    kept = store(config, p, batch=2, padding=numpy.array(padding))
    pieces = [logits(p, ids[:, :cut], config, kept), logits(p, ids[:, cut:], config, kept)]
    padded = numpy.concatenate(pieces, axis=1)
    for row, n in enumerate(padding):
        alone = logits(p, ids[row : row + 1, n:], config)
        numpy.testing.assert_allclose(padded[row, n:], alone[0], rtol=1e-11, atol=1e-12)


@every_model
def test_what_stands_in_the_padding_does_not_reach_the_text(config: Any) -> None:
    p, ids, padding = parameters(config), tokens(2, 6), numpy.array([3, 1])
    other = ids.copy()
    other[0, :3], other[1, :1] = (ids[0, :3] + 1) % V, (ids[1, :1] + 1) % V
    y, z = (logits(p, a, config, store(config, p, batch=2, padding=padding)) for a in (ids, other))
    assert numpy.array_equal(y[0, 3:], z[0, 3:])
    assert numpy.array_equal(y[1, 1:], z[1, 1:])


@every_model
def test_it_generates_the_same_whether_it_keeps_what_it_read_or_not(config: Any) -> None:
    """Six tokens after four slide the window of eight."""
    how: dict[str, Any] = {"padding": None, "new_tokens": 6, "temperature": 1.0, "top_k": None, "top_p": None}
    p, uniforms, model = parameters(config), numpy.random.default_rng(0).random((2, 6)), model_of(config)
    keeping, anew = (
        list(generate(p, model=model, ids=tokens(2, 4), config=config, uniforms=uniforms, cache=cache, **how))
        for cache in (True, False)
    )
    for (one, one_logits), (other, other_logits) in zip(keeping, anew, strict=True):
        assert numpy.array_equal(one, other)
        numpy.testing.assert_allclose(one_logits, other_logits, rtol=1e-11, atol=1e-12)


@every_stack
def test_more_tokens_than_the_context_are_refused(config: Any) -> None:
    p = parameters(config)
    with pytest.raises(ValueError, match=rf"{S + 1} tokens do not fit the context of {S}; give fewer"):
        logits(p, tokens(1, S + 1), config)
    cache = store(config, p, batch=1)
    logits(p, tokens(1, 6), config, cache)
    with pytest.raises(ValueError, match="no room for 3 more"):
        logits(p, tokens(1, 3), config, cache)
