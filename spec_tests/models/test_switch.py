"""Laws of the Switch Transformer as a whole. (SWITCH)"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.backend import generator
from refllm.blocks.switch_layer import switch_layer_shapes
from refllm.errors import UserError
from refllm.generation.cache import KeyValueCache
from refllm.generation.generate import generate
from refllm.models import encoder_decoder, gpt, switch
from refllm.parameters import Tree, count, map_leaves, named_leaves
from spec_tests.gradients import assert_gradients_agree, assert_pure, random_tree

TINY: dict[str, Any] = {
    "vocabulary": 7, "context": 8, "layers": 2, "heads": 2, "width": 8, "hidden": 12, "experts": 3,
    "capacity_factor": 1.0,
}  # fmt: skip


def tiny(**changes: Any) -> switch.Config:
    return switch.Config(**{**TINY, **changes})


VARIANTS = {
    "every second layer": tiny(layers=4),
    "every layer, one head": tiny(every=1, heads=1),
    "one expert": tiny(experts=1, capacity_factor=0.5),
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def parameters(config: switch.Config, *, dtype: str = "float64", seed: int = 0) -> Tree:
    p = random_tree(switch.shapes(config), seed)
    for layer in p["layers"]:
        if "switch" in layer:
            layer["switch"]["Wr"] *= 4  # probabilities far from 1 / E
    return map_leaves(lambda leaf: leaf.astype(dtype), p)


def tokens(B: int, T: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).integers(0, TINY["vocabulary"], (B, T))


def logits(p: Tree, ids: Any, config: switch.Config, cache: Any = None) -> Any:
    return switch.forward(p, ids=ids, config=config, keep=None, cache=cache)[0]


def trained(p: Tree, ids: Any, config: switch.Config) -> tuple[Any, Any]:
    return switch.balanced_states(p, ids=ids, config=config, keep=None)[0]


def store(config: switch.Config, p: Tree, *, batch: int, padding: Any = None) -> KeyValueCache:
    layers, heads, head_width = switch.cache_shape(config)
    return KeyValueCache(
        batch=batch, layers=layers, heads=heads, room=config.context, head_width=head_width, padding=padding,
        like=p["token"],
    )  # fmt: skip


SMALLER = {"width": 4, "hidden": 3, "vocabulary": 4, "context": 4}
SEED = 4  # with it no token is so undecided that the steps of a difference change its expert
IN_MINIATURE = pytest.mark.parametrize(
    "config",
    [
        tiny(**SMALLER, experts=2, dropout=0.3),
        tiny(**SMALLER, experts=3, every=1, layers=1, capacity_factor=1.0, activation="gelu_erf"),
        tiny(**{**SMALLER, "context": 1}, experts=1, layers=1, every=1),
    ],
    ids=["every second, dropout", "every", "a length of 1"],
)


def draws(config: switch.Config, ids: Any) -> Any:
    shape = (len(switch.dropout_widths(config)), *ids.shape, config.width)
    return list(numpy.random.default_rng(1).random(shape) < 0.7) if config.dropout else None


@IN_MINIATURE
def test_every_parameters_gradient_agrees_with_differences_in_use(config: switch.Config) -> None:
    ids = tokens(2, config.context) % config.vocabulary
    keep = draws(config, ids)
    assert_gradients_agree(
        lambda p: switch.forward(p, ids=ids, config=config, keep=keep, cache=None),
        parameters(config, seed=SEED),
    )


@IN_MINIATURE
def test_every_parameters_gradient_agrees_with_differences_in_training(config: switch.Config) -> None:
    """Tokens are dropped where there is more than one, and both values have a gradient."""
    ids = tokens(2, config.context) % config.vocabulary
    keep = draws(config, ids)

    def model(p: Tree) -> tuple[Any, Callable[[Any], Tree]]:
        (h, balance), back = switch.balanced_states(p, ids=ids, config=config, keep=keep)
        return numpy.append(h, balance), lambda d: back(d[:-1].reshape(h.shape), d[-1])

    p = parameters(config, seed=SEED)
    in_use, _ = switch.hidden_states(p, ids=ids, config=config, keep=keep, cache=None)
    assert numpy.allclose(model(p)[0][:-1], in_use.reshape(-1)) == (config.context == 1)
    assert_gradients_agree(model, p)


@every_variant
def test_arguments_are_only_read_and_back_repeats_itself(config: switch.Config) -> None:
    ids = tokens(2, 3)
    ids.setflags(write=False)
    assert_pure(lambda p: switch.forward(p, ids=ids, config=config, keep=None, cache=None), parameters(config))


@every_variant
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients_keep_the_dtype_of_the_parameters(config: switch.Config, dtype: str) -> None:
    p = parameters(config, dtype=dtype)
    y, back = switch.forward(p, ids=tokens(2, 3), config=config, keep=None, cache=None)
    (h, balance), back_balanced = switch.balanced_states(p, ids=tokens(2, 8), config=config, keep=None)
    gradients = [back(numpy.ones_like(y)), back_balanced(numpy.ones_like(h), numpy.ones_like(balance))]
    assert {y.dtype.name, h.dtype.name, balance.dtype.name} == {dtype}
    assert {leaf.dtype.name for _, leaf in named_leaves(gradients)} == {dtype}


@every_variant
@given(t=st.integers(1, 7), seed=st.integers(0, 9))
def test_future_tokens_do_not_change_the_past(config: switch.Config, t: int, seed: int) -> None:
    """Neither in use nor in training, where they compete for places: to the bit."""
    p, ids = parameters(config), tokens(2, 8)
    other = ids.copy()
    other[:, t] = (ids[:, t] + 1) % config.vocabulary
    other[:, t + 1 :] = tokens(2, 8, seed)[:, t + 1 :]
    for read in (logits, lambda *a: trained(*a)[0]):
        y, z = read(p, ids, config), read(p, other, config)
        assert numpy.array_equal(y[:, :t], z[:, :t])
        assert (y[:, t] != z[:, t]).any(axis=-1).all()


@every_variant
def test_a_text_does_not_depend_on_its_neighbours_in_the_batch(config: switch.Config) -> None:
    """So a batch may be cut into shards: the balance of the whole is the mean of theirs, weighted by their texts."""
    p, ids = parameters(config), tokens(3, 8)
    y, (h, balance) = logits(p, ids, config), trained(p, ids, config)
    balances = []
    for row in range(3):
        one = ids[row : row + 1]
        alone, (states, share) = logits(p, one, config), trained(p, one, config)
        numpy.testing.assert_allclose(alone[0], y[row], rtol=1e-11, atol=1e-12)
        numpy.testing.assert_allclose(states[0], h[row], rtol=1e-11, atol=1e-12)
        balances.append(share)
    assert balance == pytest.approx(sum(balances) / 3, rel=1e-13)


@every_variant
@settings(max_examples=10)
@given(chunks=st.lists(st.integers(1, 4), min_size=1, max_size=8).filter(lambda c: sum(c) <= 8) | st.just([1] * 8))
def test_decoding_with_the_cache_is_the_full_forward_whatever_the_chunks(
    config: switch.Config, chunks: list[int]
) -> None:
    """Because no token is dropped in use."""
    p, ids = parameters(config), tokens(2, sum(chunks))
    cache, ends = store(config, p, batch=2), list(itertools.accumulate(chunks))
    pieces = [logits(p, ids[:, end - n : end], config, cache) for n, end in zip(chunks, ends, strict=True)]
    numpy.testing.assert_allclose(numpy.concatenate(pieces, axis=1), logits(p, ids, config), rtol=1e-11, atol=1e-12)


@every_variant
@settings(max_examples=10)
@given(padding=st.lists(st.integers(0, 5), min_size=2, max_size=2), pad=st.integers(0, 6))
def test_padding_on_the_left_changes_nothing_through_the_cache(
    config: switch.Config, padding: list[int], pad: int
) -> None:
    p, ids, further = parameters(config), tokens(2, 6), tokens(2, 2, seed=1)
    for row, n in enumerate(padding):
        ids[row, :n] = pad
    cache = store(config, p, batch=2, padding=numpy.array(padding))
    padded = numpy.concatenate([logits(p, ids, config, cache), logits(p, further, config, cache)], axis=1)
    for row, n in enumerate(padding):
        alone = logits(p, numpy.concatenate([ids, further], axis=1)[row : row + 1, n:], config)
        numpy.testing.assert_allclose(padded[row, n:], alone[0], rtol=1e-11, atol=1e-12)


def test_generation_writes_the_same_with_and_without_the_cache() -> None:
    config = tiny()
    p = parameters(config)
    written = [
        [
            step[0].tolist()
            for step in generate(
                p, model=switch, ids=tokens(2, 3), padding=None, config=config, new_tokens=9, temperature=1.0,
                top_k=None, top_p=None, uniforms=None, cache=cache,
            )
        ]
        for cache in (True, False)
    ]  # fmt: skip
    assert written[0] == written[1]


def test_training_and_use_are_the_same_where_no_expert_overflows() -> None:
    config = tiny(capacity_factor=3.0)
    p, ids = parameters(config), tokens(2, 8)
    h, _ = switch.hidden_states(p, ids=ids, config=config, keep=None, cache=None)
    assert numpy.array_equal(trained(p, ids, config)[0], h)
    assert not numpy.allclose(trained(p, ids, tiny())[0], h)


def test_the_balance_is_the_sum_over_the_layers_with_experts() -> None:
    """1 for each when the router is undecided: then P is uniform, whatever f."""
    config = tiny(layers=5, every=2)
    p = parameters(config)
    for layer in p["layers"]:
        if "switch" in layer:
            layer["switch"]["Wr"][...] = 0
    assert trained(p, tokens(2, 8), config)[1] == pytest.approx(2, rel=1e-14)


def test_one_expert_alone_is_a_gpt() -> None:
    config = tiny(experts=1)
    p, ids = parameters(config), tokens(2, 8)
    dense = {**p, "layers": [dict(layer) for layer in p["layers"]]}
    for layer in dense["layers"]:
        if "switch" in layer:
            layer["feed_forward"] = {name: leaf[0] for name, leaf in layer.pop("switch").items() if name != "Wr"}
    same = gpt.Config(**{name: TINY[name] for name in ("vocabulary", "context", "layers", "heads", "width", "hidden")})
    expected, _ = gpt.forward(dense, ids=ids, config=same, keep=None, cache=None)
    numpy.testing.assert_allclose(logits(p, ids, config), expected, rtol=1e-12, atol=1e-13)


def test_every_layer_that_its_number_names_has_experts() -> None:
    for every, numbers in ((1, [1, 2, 3, 4, 5]), (2, [2, 4]), (3, [3]), (5, [5])):
        layers = switch.shapes(tiny(layers=5, every=every))["layers"]
        assert [i for i, layer in enumerate(layers, start=1) if "switch" in layer] == numbers


@pytest.mark.parametrize(
    ("tokens", "experts", "factor", "places"),
    [(64, 4, 1.0, 16), (64, 4, 1.25, 20), (10, 4, 1.0, 2), (100, 1, 0.29, 29), (8, 3, 1.0, 2), (8, 2, 5.0, 8)],
)
def test_the_capacity_is_rounded_down_and_never_more_than_there_is(
    tokens: int, experts: int, factor: float, places: int
) -> None:
    """0.29 is 29 hundredths, although 0.29 * 100 is 28.999999999999996."""
    config = tiny(context=128, experts=experts, capacity_factor=factor)
    assert switch.capacity(tokens, config) == places


@every_variant
def test_initial_parameters_have_the_structure_of_the_shapes_and_of_the_gradient(config: switch.Config) -> None:
    p = switch.initial(config, generator(0))
    y, back = switch.forward(p, ids=tokens(1, 2), config=config, keep=None, cache=None)
    wanted = list(named_leaves(switch.shapes(config)))
    assert [(name, leaf.shape) for name, leaf in named_leaves(p)] == wanted
    assert [(name, leaf.shape) for name, leaf in named_leaves(back(numpy.ones_like(y)))] == wanted


def test_initial_matrices_are_normal_and_those_into_the_residual_stream_are_smaller() -> None:
    layers, normal = 8, 0.02 * math.sqrt(768 / 32)
    p = switch.initial(tiny(layers=layers, width=32, hidden=128, vocabulary=50, context=50), generator(0))
    for path, leaf in named_leaves(p):
        name = path.rpartition(".")[2]
        if name == "g" or name.startswith("b"):
            assert (leaf == (1 if name == "g" else 0)).all(), path
        else:
            wanted = normal / math.sqrt(2 * layers) if name in ("Wo", "W2") else normal
            assert leaf.std() == pytest.approx(wanted, rel=4 / math.sqrt(2 * leaf.size)), path


def test_switch_base_8_has_the_published_number_of_parameters() -> None:
    """T5-base with every second feed-forward layer, of encoder and decoder, a switch layer of 8 experts.

    619 339 008 is what transformers counts for google/switch-base-8's configuration.
    """
    config = encoder_decoder.t5("base")
    tree = encoder_decoder.shapes(config)
    sparse = switch_layer_shapes(config.width, config.hidden, 8, biases=False)
    for stack in ("encoder", "decoder"):
        tree[stack]["layers"] = [
            {**layer, "feed_forward": sparse if i % 2 else layer["feed_forward"]}
            for i, layer in enumerate(tree[stack]["layers"])
        ]
    assert count(tree) == 619_339_008


def test_more_tokens_than_the_context_are_refused() -> None:
    p = parameters(tiny())
    for read in (logits, trained):
        with pytest.raises(ValueError, match="switch: 9 tokens do not fit the context of 8; give fewer"):
            read(p, tokens(1, 9), tiny())
    cache = store(tiny(), p, batch=1)
    logits(p, tokens(1, 6), tiny(), cache)
    with pytest.raises(ValueError, match="no room for 3 more"):
        logits(p, tokens(1, 3), tiny(), cache)


def test_a_text_so_short_that_an_expert_has_no_place_is_refused_in_training() -> None:
    with pytest.raises(UserError, match=r"1\.0 \* 2 tokens / 3 experts is below 1; raise capacity_factor or lower"):
        trained(parameters(tiny()), tokens(1, 2), tiny())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"capacity_factor": 0.0}, "capacity_factor must be a number above 0, or no expert takes a token; got 0.0"),
        ({"capacity_factor": -1.0}, "capacity_factor must be a number above 0"),
        ({"capacity_factor": math.nan}, "capacity_factor must be a number above 0"),
        ({"capacity_factor": math.inf}, "capacity_factor must be a number above 0"),
        ({"capacity_factor": 0.3}, "an expert would take no token of a text: capacity_factor 0.3 . 8 tokens / 3 exp"),
        ({"experts": 9}, "9 experts is below 1; raise capacity_factor or lower experts"),
        ({"experts": 0}, "experts must be a whole number of at least 1, got 0"),
        ({"every": 0}, "every must be a whole number"),
        ({"every": 3}, "every must be at most the number of layers, 2, or none has experts; got 3"),
        ({"balance": -0.01}, "balance must be a number of at least 0"),
        ({"balance": math.nan}, "balance must be"),
        ({"heads": 3}, "heads must divide the width: 8 / 3"),
        ({"layers": 0}, "layers must be"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"activation": "gelu"}, "activation must be one of"),
    ],
)
def test_an_impossible_architecture_is_refused_by_name(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        tiny(**change)
