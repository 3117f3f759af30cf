"""What the Switch Transformer has beyond the laws of every language model: its training. (SWITCH)"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.blocks.switch_layer import switch_layer_shapes
from refllm.errors import UserError
from refllm.models import encoder_decoder, gpt, published, switch
from refllm.parameters import Tree, count, named_leaves
from spec_tests.gradients import assert_gradients_agree
from spec_tests.language_models import SWITCH, draws, logits, parameters, tiny_gpt, tokens
from spec_tests.language_models import tiny_switch as tiny

every_variant = pytest.mark.parametrize("config", SWITCH.values(), ids=SWITCH)


def trained(p: Tree, ids: Any, config: switch.Config) -> tuple[Any, Any]:
    return switch.balanced_states(p, ids=ids, config=config, dropout_mask=None)[0]


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


@pytest.mark.one_in(4)
@IN_MINIATURE
def test_in_training_every_parameters_gradient_agrees_with_differences(config: switch.Config) -> None:
    """Tokens are dropped where there is more than one, and both values have a gradient."""
    ids = tokens(2, config.context) % config.vocabulary
    dropout_mask = draws(config, *ids.shape) if config.dropout else None

    def model(p: Tree) -> tuple[Any, Callable[[Any], Tree]]:
        (h, balance), back = switch.balanced_states(p, ids=ids, config=config, dropout_mask=dropout_mask)
        return numpy.append(h, balance), lambda d: back(d[:-1].reshape(h.shape), d[-1])

    p = parameters(config, seed=SEED)
    in_use, _ = switch.hidden_states(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=None)
    assert numpy.allclose(model(p)[0][:-1], in_use.reshape(-1)) == (config.context == 1)
    assert_gradients_agree(model, p)


@every_variant
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_in_training_values_and_gradients_keep_the_dtype_of_the_parameters(config: switch.Config, dtype: str) -> None:
    p = parameters(config, dtype=dtype)
    (h, balance), back = switch.balanced_states(p, ids=tokens(2, 8), config=config, dropout_mask=None)
    assert {h.dtype.name, balance.dtype.name} == {dtype}
    assert {x.dtype.name for _, x in named_leaves(back(numpy.ones_like(h), numpy.ones_like(balance)))} == {dtype}


@every_variant
@given(t=st.integers(1, 7), seed=st.integers(0, 9))
def test_in_training_future_tokens_do_not_change_the_past(config: switch.Config, t: int, seed: int) -> None:
    """Where they compete for places: to the bit."""
    p, ids = parameters(config), tokens(2, 8)
    other = ids.copy()
    other[:, t] = (ids[:, t] + 1) % config.vocabulary
    other[:, t + 1 :] = tokens(2, 8, seed)[:, t + 1 :]
    y, z = trained(p, ids, config)[0], trained(p, other, config)[0]
    assert numpy.array_equal(y[:, :t], z[:, :t])
    assert (y[:, t] != z[:, t]).any(axis=-1).all()


@every_variant
def test_in_training_a_text_does_not_depend_on_its_neighbours_in_the_batch(config: switch.Config) -> None:
    """So a batch may be cut into shards: the balance of the whole is the mean of theirs, weighted by their texts."""
    p, ids = parameters(config), tokens(3, 8)
    h, balance = trained(p, ids, config)
    balances = []
    for row in range(3):
        states, share = trained(p, ids[row : row + 1], config)
        numpy.testing.assert_allclose(states[0], h[row], rtol=1e-11, atol=1e-12)
        balances.append(share)
    assert balance == pytest.approx(sum(balances) / 3, rel=1e-13)


def test_training_and_use_are_the_same_where_no_expert_overflows() -> None:
    config = tiny(capacity_factor=3.0)
    p, ids = parameters(config), tokens(2, 8)
    h, _ = switch.hidden_states(p, ids=ids, config=config, dropout_mask=None, cache=None)
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
    same = tiny_gpt()
    expected, _ = gpt.forward(dense, ids=ids, config=same, dropout_mask=None, cache=None)
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


def test_switch_base_8_has_the_published_number_of_parameters() -> None:
    """T5-base with every second feed-forward layer, of encoder and decoder, a switch layer of 8 experts.

    619 339 008 is what transformers counts for google/switch-base-8's configuration.
    """
    config = published.t5("base")
    tree = encoder_decoder.shapes(config)
    sparse = switch_layer_shapes(config.width, config.hidden, 8, biases=False)
    for stack in ("encoder", "decoder"):
        tree[stack]["layers"] = [
            {**layer, "feed_forward": sparse if i % 2 else layer["feed_forward"]}
            for i, layer in enumerate(tree[stack]["layers"])
        ]
    assert count(tree) == 619_339_008


def test_in_training_more_tokens_than_the_context_are_refused() -> None:
    p = parameters(tiny())
    with pytest.raises(ValueError, match="switch: 9 tokens do not fit the context of 8; give fewer"):
        trained(p, tokens(1, 9), tiny())


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
