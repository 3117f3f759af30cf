"""Laws of every language model that carries a state: recurrent_lm, nnlm, and hybrid, which attends as well."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from types import ModuleType
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.backend import generator
from refllm.errors import UserError
from refllm.generation.cache import KeyValueCache
from refllm.generation.state import CacheAndState, CarriedState
from refllm.models import hybrid, nnlm, recurrent_lm
from refllm.objectives.causal import causal_loss
from refllm.ops.cross_entropy import cross_entropy
from refllm.parameters import Tree, map_leaves, named_leaves
from spec_tests.gradients import assert_gradients_agree, assert_pure, random_tree

V, S = 7, 8


def recurrent(**changes: Any) -> recurrent_lm.Config:
    return recurrent_lm.Config(**{"vocabulary": V, "context": S, "width": 3, "hidden": 5, **changes})


def window(**changes: Any) -> nnlm.Config:
    return nnlm.Config(**{"vocabulary": V, "context": S, "order": 4, "width": 3, "hidden": 5, **changes})


def mixed(**changes: Any) -> hybrid.Config:
    usual = {"vocabulary": V, "context": S, "heads": 2, "width": 4, "hidden": 3, "dropout": 0.0}
    return hybrid.Config(**{**usual, **changes})


VARIANTS: dict[str, Any] = {
    "RNN": recurrent(cell="rnn"),
    "LSTM": recurrent(),
    "LSTM, tied": recurrent(hidden=3, tied=True),
    "RNN, three layers of one unit": recurrent(cell="rnn", layers=3, width=1, hidden=1),
    "NNLM": window(),
    "NNLM, direct": window(direct=True),
    "NNLM of bigrams": window(order=2, direct=True),
    "NNLM that sees beyond the context": window(order=10),
    "hybrid": mixed(),
    "hybrid, RNN, one head": mixed(cell="rnn", layers=1, heads=1, width=3, hidden=4),
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def model_of(config: Any) -> ModuleType:
    return importlib.import_module(type(config).__module__)


def parameters(config: Any, *, dtype: str = "float64", seed: int = 0) -> Tree:
    p = random_tree(model_of(config).shapes(config), seed, scale=0.6)
    return map_leaves(lambda leaf: leaf.astype(dtype), p)


def tokens(B: int, T: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).integers(0, V, (B, T))


def logits(p: Tree, ids: Any, config: Any, cache: Any = None) -> Any:
    return model_of(config).forward(p, ids=ids, config=config, keep=None, cache=cache)[0]


def store(config: Any, p: Tree, *, batch: int, padding: Any = None) -> Any:
    model, like = model_of(config), p["token"]
    state = CarriedState(model.state_shapes(config), batch=batch, padding=padding, like=like)
    if model is not hybrid:
        return state
    layers, heads, head_width = model.cache_shape(config)
    cache = KeyValueCache(
        batch=batch, layers=layers, heads=heads, room=config.context, head_width=head_width, padding=padding, like=like
    )
    return CacheAndState(cache, state)


def draws(config: Any, B: int, T: int) -> list[Any]:
    random = numpy.random.default_rng(1)
    return [random.random((B, T, width)) < 0.7 for width in model_of(config).dropout_widths(config)]


@every_variant
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_every_parameters_gradient_agrees_with_differences(config: Any, dropout: float) -> None:
    config, ids = dataclasses.replace(config, dropout=dropout), tokens(2, 4)
    keep = draws(config, 2, 4) if dropout else None

    def model(p: Tree) -> Any:
        return model_of(config).forward(p, ids=ids, config=config, keep=keep, cache=None)

    assert_gradients_agree(model, parameters(config))


@every_variant
def test_gradients_agree_for_one_token(config: Any) -> None:
    def model(p: Tree) -> Any:
        return model_of(config).forward(p, ids=tokens(1, 1), config=config, keep=None, cache=None)

    assert_gradients_agree(model, parameters(config))


@every_variant
def test_the_losss_gradient_is_the_logits_pulled_back(config: Any) -> None:
    p, ids, targets, model = parameters(config), tokens(2, 6), tokens(2, 6, seed=1), model_of(config)
    y, back = causal_loss(p, model=model, ids=ids, targets=targets, ignore=2, config=config, keep=None)
    z, back_logits = model.forward(p, ids=ids, config=config, keep=None, cache=None)
    plain, back_plain = cross_entropy(z, targets=targets, ignore=2, reduction="sum")
    numpy.testing.assert_allclose(y, plain, rtol=1e-13)
    one = numpy.ones(())
    for (_, a), (_, b) in zip(named_leaves(back(one)), named_leaves(back_logits(back_plain(one))), strict=True):
        numpy.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@every_variant
def test_the_draws_of_dropout_are_used_each_at_its_place(config: Any) -> None:
    """Everything dropped at one place differs from nothing dropped, and from every other place; and with nothing kept
    after the embedding the tokens do not matter."""
    config = dataclasses.replace(config, dropout=0.5)
    model, p, ids = model_of(config), parameters(config), tokens(2, 6)
    sites = range(len(model.dropout_widths(config)))

    def dropped(ids: Any, *at: int) -> Any:
        keep = [numpy.full((2, 6, w), i not in at) for i, w in enumerate(model.dropout_widths(config))]
        return model.forward(p, ids=ids, config=config, keep=keep, cache=None)[0]

    everything = [dropped(ids), *(dropped(ids, site) for site in sites)]
    for one, another in itertools.combinations(everything, 2):
        assert not numpy.allclose(one, another)
    assert numpy.array_equal(dropped(ids, 0), dropped(tokens(2, 6, seed=1), 0))


@every_variant
def test_without_draws_the_rate_of_dropout_does_not_matter(config: Any) -> None:
    p, ids = parameters(config), tokens(2, 6)
    assert numpy.array_equal(logits(p, ids, config), logits(p, ids, dataclasses.replace(config, dropout=0.5)))


@every_variant
def test_arguments_are_only_read_and_back_repeats_itself(config: Any) -> None:
    ids = tokens(2, 3)
    ids.setflags(write=False)
    model = model_of(config)
    assert_pure(lambda p: model.forward(p, ids=ids, config=config, keep=None, cache=None), parameters(config))


@every_variant
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_and_gradients_keep_the_dtype_of_the_parameters(config: Any, dtype: str) -> None:
    p, model = parameters(config, dtype=dtype), model_of(config)
    y, back = model.forward(p, ids=tokens(2, 3), config=config, keep=None, cache=None)
    assert y.dtype == dtype
    assert {leaf.dtype.name for _, leaf in named_leaves(back(numpy.ones_like(y)))} == {dtype}
    cached = logits(p, tokens(2, 3), config, store(config, p, batch=2, padding=numpy.array([1, 0])))
    assert cached.dtype == dtype


@every_variant
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(t=st.integers(1, 7), seed=st.integers(0, 9))
def test_future_tokens_do_not_change_the_past(config: Any, dtype: str, t: int, seed: int) -> None:
    p, ids = parameters(config, dtype=dtype), tokens(2, 8)
    other = ids.copy()
    other[:, t] = (ids[:, t] + 1) % V
    other[:, t + 1 :] = tokens(2, 8, seed)[:, t + 1 :]
    y, z = logits(p, ids, config), logits(p, other, config)
    assert numpy.array_equal(y[:, :t], z[:, :t])  # to the bit
    assert (y[:, t] != z[:, t]).any(axis=-1).all()


@every_variant
def test_all_positions_at_once_are_each_prefix_by_itself(config: Any) -> None:
    p, ids = parameters(config), tokens(2, 8)
    y = logits(p, ids, config)
    for t in range(1, 9):
        numpy.testing.assert_allclose(logits(p, ids[:, :t], config)[:, -1], y[:, t - 1], rtol=1e-11, atol=1e-12)


@every_variant
def test_a_text_does_not_depend_on_its_neighbours_in_the_batch(config: Any) -> None:
    p, ids = parameters(config), tokens(3, 8)
    y = logits(p, ids, config)
    for row in range(3):
        numpy.testing.assert_allclose(logits(p, ids[row : row + 1], config)[0], y[row], rtol=1e-11, atol=1e-12)


@every_variant
@settings(max_examples=10)
@given(chunks=st.lists(st.integers(1, 4), min_size=1, max_size=8).filter(lambda c: sum(c) <= 8) | st.just([1] * 8))
def test_a_carried_state_is_the_full_forward_whatever_the_chunks(config: Any, chunks: list[int]) -> None:
    p, ids = parameters(config), tokens(2, sum(chunks))
    state, ends = store(config, p, batch=2), list(itertools.accumulate(chunks))
    pieces = [logits(p, ids[:, end - n : end], config, state) for n, end in zip(chunks, ends, strict=True)]
    numpy.testing.assert_allclose(numpy.concatenate(pieces, axis=1), logits(p, ids, config), rtol=1e-11, atol=1e-12)


@every_variant
@settings(max_examples=10)
@given(padding=st.lists(st.integers(0, 5), min_size=2, max_size=2), cut=st.integers(1, 6), pad=st.integers(0, V - 1))
def test_padding_on_the_left_changes_nothing_through_the_state(
    config: Any, padding: list[int], cut: int, pad: int
) -> None:
    """In pieces too, of which the first may be padding alone."""
    p, ids = parameters(config), tokens(2, 8)
    for row, n in enumerate(padding):
        ids[row, :n] = pad
    state = store(config, p, batch=2, padding=numpy.array(padding))
    pieces = [logits(p, ids[:, :cut], config, state), logits(p, ids[:, cut:], config, state)]
    padded = numpy.concatenate(pieces, axis=1)
    for row, n in enumerate(padding):
        numpy.testing.assert_allclose(
            padded[row, n:], logits(p, ids[row : row + 1, n:], config)[0], rtol=1e-11, atol=1e-12
        )


@every_variant
def test_what_stands_in_the_padding_does_not_reach_the_text(config: Any) -> None:
    p, ids, padding = parameters(config), tokens(2, 6), numpy.array([3, 1])
    other = ids.copy()
    other[0, :3], other[1, :1] = (ids[0, :3] + 1) % V, (ids[1, :1] + 1) % V
    y, z = (logits(p, a, config, store(config, p, batch=2, padding=padding)) for a in (ids, other))
    assert numpy.array_equal(y[0, 3:], z[0, 3:])
    assert numpy.array_equal(y[1, 1:], z[1, 1:])


@every_variant
def test_initial_parameters_have_the_structure_of_the_shapes_and_of_the_gradient(config: Any) -> None:
    model = model_of(config)
    p = model.initial(config, generator(0))
    y, back = model.forward(p, ids=tokens(1, 2), config=config, keep=None, cache=None)
    wanted = list(named_leaves(model.shapes(config)))
    assert [(name, leaf.shape) for name, leaf in named_leaves(p)] == wanted
    assert [(name, leaf.shape) for name, leaf in named_leaves(back(numpy.ones_like(y)))] == wanted
    assert {leaf.dtype.name for _, leaf in named_leaves(p)} == {"float64"}


@pytest.mark.parametrize(
    "config",
    [
        recurrent(width=32, hidden=64, vocabulary=50),
        recurrent(width=32, hidden=32, vocabulary=50, tied=True),
        window(width=32, hidden=64, vocabulary=50),
        window(width=32, hidden=64, vocabulary=50, direct=True),
        mixed(width=32, hidden=64, vocabulary=50),
    ],
    ids=["LSTM", "LSTM, tied", "NNLM", "NNLM, direct", "hybrid"],
)
def test_an_untrained_model_finds_every_token_about_equally_probable(config: Any) -> None:
    """ln V, and half the variance of the logits more, which is about 1."""
    model, random = model_of(config), numpy.random.default_rng(0)
    ids, targets = random.integers(0, 50, (2, 64, 8))
    p = model.initial(config, generator(0))
    loss, _ = causal_loss(p, model=model, ids=ids, targets=targets, ignore=None, config=config, keep=None)
    assert -0.1 < loss / ids.size - numpy.log(50) < 0.8


@pytest.mark.parametrize("config", [v for v in VARIANTS.values() if model_of(v) is not hybrid], ids=str)
def test_a_state_alone_has_no_context_to_fill(config: Any) -> None:
    p, ids = parameters(config), tokens(1, 3 * S)
    state = store(config, p, batch=1)
    pieces = [logits(p, ids[:, i : i + 5], config, state) for i in range(0, 3 * S, 5)]
    numpy.testing.assert_allclose(numpy.concatenate(pieces, axis=1), logits(p, ids, config), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("make", [recurrent, window, mixed])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vocabulary": 0}, "vocabulary must be a whole number of at least 1, got 0"),
        ({"context": -1}, "context must be a whole number of at least 1, got -1"),
        ({"width": 8.0}, "width must be a whole number"),
        ({"hidden": 0}, "hidden must be"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"dropout": float("nan")}, "dropout must be"),
    ],
)
def test_an_impossible_architecture_is_refused_by_name(make: Any, change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        make(**change)


@pytest.mark.parametrize("model", [recurrent_lm, nnlm, hybrid], ids=lambda m: m.__name__)
def test_choices_are_fields_of_the_configuration(model: Any) -> None:
    fields = {field.name for field in dataclasses.fields(model.Config)}
    assert set(model.CHOICES) < fields
    assert "vocabulary" not in model.CHOICES
    assert "bidirectional" not in model.CHOICES
