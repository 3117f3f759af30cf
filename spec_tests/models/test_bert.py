"""Laws of BERT as a whole."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.backend import generator
from refllm.errors import UserError
from refllm.models import bert
from refllm.models.published import bert as published_bert
from refllm.parameters import Tree, count, map_leaves, named_leaves
from spec_tests.gradients import assert_gradients_agree, assert_pure, random_tree

ALL = bert.OUTPUTS
TINY = {"vocabulary": 7, "context": 8, "layers": 2, "heads": 2, "width": 8, "hidden": 12, "eps": 1e-5, "outputs": ALL}
SMALLER = {"vocabulary": 5, "context": 4, "width": 4, "hidden": 5}


def tiny(**changes: Any) -> bert.Config:
    return bert.Config(**{**TINY, **changes})


VARIANTS = {
    "BERT": tiny(labels=3),
    "one head, tanh GELU, three segments": tiny(heads=1, activation="gelu_tanh", segments=3),
    "a length of 1": tiny(context=1, heads=4, layers=1),
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def parameters(config: bert.Config, *, dtype: str = "float64", seed: int = 0) -> Tree:
    return map_leaves(lambda leaf: leaf.astype(dtype), random_tree(bert.shapes(config), seed))


def texts(config: bert.Config, B: int = 2, T: int | None = None, seed: int = 0) -> tuple[Any, Any]:
    random = numpy.random.default_rng(seed)
    shape = B, config.context if T is None else T
    return random.integers(0, config.vocabulary, shape), random.integers(0, config.segments, shape)


def keys(lengths: list[int], T: int) -> Any:
    return (numpy.arange(T) < numpy.array(lengths)[:, None])[:, None, None, :]


def states(p: Tree, ids: Any, segments: Any, config: bert.Config, attention_mask: Any = None) -> Any:
    return bert.encode(p, ids=ids, segments=segments, attention_mask=attention_mask, config=config, dropout_mask=None)[
        0
    ]


def everything(
    config: bert.Config, ids: Any, segments: Any, attention_mask: Any, dropout_mask: Any = None
) -> Callable[[Tree], tuple[Any, Callable[[Any], Tree]]]:
    """The outputs of all heads as one row of numbers, a function of the parameters."""

    def model(p: Tree) -> tuple[Any, Callable[[Any], Tree]]:
        encoder_dropout_mask, pooled_dropout_mask = (None, None) if dropout_mask is None else dropout_mask
        h, back_h = bert.encode(
            p,
            ids=ids,
            segments=segments,
            attention_mask=attention_mask,
            config=config,
            dropout_mask=encoder_dropout_mask,
        )
        heads = [
            bert.masked_logits(h, p, config=config),
            bert.pair_logits(h, p),
            bert.class_logits(h, p, dropout_mask=pooled_dropout_mask, rate=config.dropout),
            bert.span_logits(h, p),
        ]
        ends = numpy.cumsum([y.size for y, _ in heads])

        def back(dy: Any) -> Tree:
            parts = [
                pull(part.reshape(y.shape)) for part, (y, pull) in zip(numpy.split(dy, ends[:-1]), heads, strict=True)
            ]
            return bert.whole_gradient(p, back_h(numpy.sum([dh for dh, _ in parts], axis=0)), *(dp for _, dp in parts))

        return numpy.concatenate([y.reshape(-1) for y, _ in heads]), back

    return model


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    "config",
    [
        tiny(**SMALLER, dropout=0.3, labels=3),
        tiny(**SMALLER, activation="gelu_tanh", heads=1, segments=1, layers=1),
        tiny(**{**SMALLER, "context": 1, "width": 6}, heads=3, layers=1),
    ],
    ids=["dropout and padding", "one head, tanh GELU, one segment", "a length of 1"],
)
def test_every_parameters_gradient_agrees_with_differences(config: bert.Config) -> None:
    ids, segments = texts(config)
    attention_mask = keys([config.context, (config.context + 1) // 2], config.context)
    random = numpy.random.default_rng(1)
    within = map_leaves(lambda width: random.random((*ids.shape, width)) < 0.7, bert.dropout_widths(config))
    dropout_mask = (within, random.random((len(ids), config.width)) < 0.7) if config.dropout else None
    assert_gradients_agree(everything(config, ids, segments, attention_mask, dropout_mask), parameters(config))


@every_variant
def test_arguments_are_only_read_and_back_repeats_itself(config: bert.Config) -> None:
    ids, segments = texts(config)
    attention_mask = keys([config.context, 1], config.context)
    for array in (ids, segments, attention_mask):
        array.setflags(write=False)
    assert_pure(everything(config, ids, segments, attention_mask), parameters(config))


@every_variant
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outputs_and_gradients_keep_the_dtype_of_the_parameters(config: bert.Config, dtype: str) -> None:
    y, back = everything(config, *texts(config), None)(parameters(config, dtype=dtype))
    assert y.dtype == dtype
    assert {leaf.dtype.name for _, leaf in named_leaves(back(numpy.ones_like(y)))} == {dtype}


@pytest.mark.parametrize(("size", "published"), [("base", 109_482_240), ("large", 335_141_888)])
def test_the_published_models_have_the_published_number_of_parameters(size: str, published: int) -> None:
    """By the shapes, and by the formula: tables and norm, L (12 C² + 13 C), the pooler; no array is made."""
    config = published_bert(size)
    V, S, L, C = config.vocabulary, config.context, config.layers, config.width
    assert count(bert.shapes(config)) == published
    assert (V + S + 2) * C + 2 * C + L * (12 * C**2 + 13 * C) + C**2 + C == published


def test_the_heads_of_the_published_pretraining_add_their_own_parameters_and_no_second_token_table() -> None:
    config = published_bert("base", outputs=("masked", "pair"))
    transform, bias, pair = 768 * 768 + 3 * 768, 30522, 2 * 768 + 2
    assert count(bert.shapes(config)) == 109_482_240 + transform + bias + pair


@every_variant
def test_initial_parameters_have_the_structure_of_the_shapes_and_of_the_gradient(config: bert.Config) -> None:
    p = bert.initial(config, generator(0))
    y, back = everything(config, *texts(config), None)(p)
    wanted = list(named_leaves(bert.shapes(config)))
    assert [(name, leaf.shape) for name, leaf in named_leaves(p)] == wanted
    assert [(name, leaf.shape) for name, leaf in named_leaves(back(numpy.ones_like(y)))] == wanted


def test_initial_matrices_are_normal_gains_1_and_biases_0() -> None:
    normal = 0.02 * math.sqrt(768 / 32)
    p = bert.initial(tiny(width=32, hidden=128, vocabulary=50, context=50, labels=40), generator(0))
    for path, leaf in named_leaves(p):
        if leaf.ndim == 1:
            assert (leaf == (1 if path.endswith(".g") else 0)).all(), path
        else:
            assert leaf.std() == pytest.approx(normal, rel=4 / math.sqrt(2 * leaf.size)), path


@every_variant
@settings(max_examples=10)
@given(data=st.data())
def test_padding_changes_nothing_whatever_stands_in_it(config: bert.Config, data: st.DataObject) -> None:
    T = config.context
    lengths = data.draw(st.lists(st.integers(1, T), min_size=2, max_size=2))
    p, (ids, segments), (other, elsewhere) = parameters(config), texts(config), texts(config, seed=1)
    h = states(p, ids, segments, config, keys(lengths, T))
    for row, n in enumerate(lengths):
        other[row, :n], elsewhere[row, :n] = ids[row, :n], segments[row, :n]
        alone = states(p, ids[row : row + 1, :n], segments[row : row + 1, :n], config)
        numpy.testing.assert_allclose(h[row, :n], alone[0], rtol=1e-11, atol=1e-12)
    z = states(p, other, elsewhere, config, keys(lengths, T))
    for row, n in enumerate(lengths):
        assert numpy.array_equal(h[row, :n], z[row, :n])  # to the bit


def test_every_token_reaches_every_state_before_and_after_it() -> None:
    config = tiny(layers=1)
    p, (ids, segments) = parameters(config), texts(config, B=1)
    h = states(p, ids, segments, config)
    for t in range(8):
        other = ids.copy()
        other[0, t] = (ids[0, t] + 1) % 7
        assert (h != states(p, other, segments, config)).any(axis=-1).all()


def test_a_text_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    config = tiny()
    p, (ids, segments) = parameters(config), texts(config, B=3)
    h = states(p, ids, segments, config)
    for row in range(3):
        one = slice(row, row + 1)
        numpy.testing.assert_allclose(states(p, ids[one], segments[one], config)[0], h[row], rtol=1e-11, atol=1e-12)


def test_tokens_that_swap_places_and_segments_swap_states_once_positions_are_all_alike() -> None:
    """Position and segment are the only things that tell two places apart."""
    config = tiny()
    p, (ids, segments) = parameters(config), texts(config)
    order = numpy.array([3, 1, 7, 0, 2, 6, 4, 5])
    apart = states(p, ids[:, order], segments[:, order], config) - states(p, ids, segments, config)[:, order]
    assert abs(apart).max() > 0.01
    p["position"][...] = p["position"][0]
    h = states(p, ids, segments, config)
    numpy.testing.assert_allclose(
        states(p, ids[:, order], segments[:, order], config), h[:, order], rtol=1e-11, atol=1e-12
    )
    other = segments.copy()
    other[0, 3] = 1 - other[0, 3]
    assert not numpy.allclose(states(p, ids, other, config)[0], h[0])


def dropped(p: Tree, config: bert.Config, ids: Any, segments: Any, sites: list[int]) -> Any:
    """Hidden states where all is dropped at some of the uses of dropout, and nothing at the others."""
    dropout_mask = map_leaves(lambda width: numpy.ones((*ids.shape, width), bool), bert.dropout_widths(config))
    for site in sites:
        named_leaves(dropout_mask)[site][1][...] = False
    return bert.encode(p, ids=ids, segments=segments, attention_mask=None, config=config, dropout_mask=dropout_mask)[0]


def test_the_draws_of_dropout_are_used_in_their_order_each_at_its_place() -> None:
    """The first after the embeddings' norm, then for each layer one after the attention and one after the other map."""
    config = tiny(dropout=0.5)
    p, (ids, segments), (other, elsewhere) = parameters(config), texts(config), texts(config, seed=1)
    no_words = dropped(p, config, ids, segments, [0])
    assert numpy.array_equal(no_words, dropped(p, config, other, elsewhere, [0]))
    other[:, 5], elsewhere[:, 5] = ids[:, 5], segments[:, 5]
    alone = dropped(p, config, ids, segments, [1, 3])[:, 5]
    assert numpy.array_equal(alone, dropped(p, config, other, elsewhere, [1, 3])[:, 5])
    no_feed_forward = dropped(p, config, ids, segments, [2, 4])
    for layer in p["layers"]:
        layer["feed_forward"]["W1"] += 1
    assert numpy.array_equal(dropped(p, config, ids, segments, [2, 4]), no_feed_forward)
    assert not numpy.allclose(dropped(p, config, ids, segments, [2]), no_feed_forward)


def test_without_draws_the_rate_of_dropout_does_not_matter() -> None:
    config = tiny()
    p, (ids, segments) = parameters(config), texts(config)
    again = states(p, ids, segments, dataclasses.replace(config, dropout=0.5))
    assert numpy.array_equal(states(p, ids, segments, config), again)


def test_only_the_state_at_cls_reaches_the_pooled_heads() -> None:
    config = tiny()
    p = parameters(config)
    h = numpy.random.default_rng(0).standard_normal((2, 8, 8))
    for y, back in (bert.pair_logits(h, p), bert.class_logits(h, p, dropout_mask=None, rate=0.0), bert.pooled(h, p)):
        dh, _ = back(numpy.ones_like(y))
        assert (dh[:, 0] != 0).any()
        assert (dh[:, 1:] == 0).all()


def test_the_gradient_of_a_head_that_was_not_used_is_zero_and_the_tied_table_sums_its_uses() -> None:
    config = tiny()
    p, (ids, segments) = parameters(config), texts(config)
    h, back_h = bert.encode(p, ids=ids, segments=segments, attention_mask=None, config=config, dropout_mask=None)
    y, back_masked = bert.masked_logits(h, p, config=config)
    dh, dmasked = back_masked(numpy.ones_like(y))
    inside = back_h(dh)
    whole = bert.whole_gradient(p, inside, dmasked)
    assert list(whole) == list(p)
    for name in ("pooler", "pair", "classes", "span"):
        assert all((leaf == 0).all() for _, leaf in named_leaves(whole[name])), name
    assert numpy.array_equal(whole["token"], inside["token"] + dmasked["token"])
    assert (dmasked["token"] != 0).any()


def test_the_gradient_of_the_keys_bias_is_zero() -> None:
    """It shifts all scores of a query by the same amount."""
    config = tiny()
    y, back = everything(config, *texts(config), keys([8, 5], 8))(parameters(config))
    for layer in back(numpy.random.default_rng(0).standard_normal(y.shape))["layers"]:
        query, key, value = numpy.split(layer["attention"]["bqkv"], 3)
        assert abs(key).max() <= 1e-12 * max(abs(query).max(), abs(value).max())


def test_a_text_longer_than_the_positions_is_refused_in_one_line() -> None:
    config = tiny()
    with pytest.raises(UserError, match="9 tokens do not fit the 8 positions; cut the text") as caught:
        states(parameters(config), *texts(config, T=9), config)
    assert len(str(caught.value).splitlines()) == 1


def test_ids_and_segments_outside_their_tables_are_refused() -> None:
    config = tiny()
    p, (ids, segments) = parameters(config), texts(config)
    with pytest.raises(IndexError, match=r"ids must be in \[0, 7\)"):
        states(p, ids + 7, segments, config)
    with pytest.raises(IndexError, match=r"positions must be in \[0, 2\)"):
        states(p, ids, segments + 2, config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be a whole number"),
        ({"segments": 0}, "segments must be a whole number"),
        ({"labels": 1.5}, "labels must be a whole number"),
        ({"heads": 3}, "heads must divide the width"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"eps": 0.0}, "eps must be"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"outputs": ("masked", "sorted")}, "outputs must be different ones of masked, pair, classes, span"),
        ({"outputs": ("masked", "masked")}, "outputs must be different ones"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        tiny(**change)
    assert len(str(caught.value).splitlines()) == 1


@every_variant
def test_a_configuration_survives_json(config: bert.Config) -> None:
    assert bert.Config(**json.loads(json.dumps(config.as_dict()))) == config
