"""Laws of the encoder-decoder as a whole, in its three published forms."""

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
from refllm.generation.decoder_cache import DecoderCache
from refllm.models import encoder_decoder
from refllm.models.encoder_decoder import Config
from refllm.models.published import bart, t5, t5_1_1, vaswani
from refllm.parameters import Tree, count, map_leaves, named_leaves
from spec_tests.gradients import assert_gradients_agree, assert_pure, random_tree

TINY: dict[str, Any] = {
    "vocabulary": 7, "context": 8, "encoder_layers": 2, "decoder_layers": 2, "heads": 2, "head_width": 3, "width": 4,
    "hidden": 5,
}  # fmt: skip
T5: dict[str, Any] = {
    **TINY, "norm": "pre", "rms": True, "positions": "relative", "biases": False, "buckets": 4, "farthest": 5,
    "eps": 0.1,
}  # fmt: skip


VARIANTS = {
    "2017": Config(**TINY, scaled_embedding=True),
    "BART": Config(**TINY, positions="learned", activation="gelu_erf", embedding_norm=True),
    "T5": Config(**{**T5, "encoder_layers": 1}, scaled_output=True),
    "T5 1.1": Config(**{**T5, "decoder_layers": 1}, activation="gelu_tanh", gated=True, tied=False),
    "pre-norm, learned, untied": Config(**{**TINY, "heads": 1}, norm="pre", positions="learned", tied=False),
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def parameters(config: Config, *, dtype: str = "float64", seed: int = 0) -> Tree:
    """Random ones; the units of a ReLU with biases are far from the kink, every other one on."""
    p = random_tree(encoder_decoder.shapes(config), seed)
    if config.activation == "relu" and config.biases:
        for layer in p["encoder"]["layers"] + p["decoder"]["layers"]:
            layer["feed_forward"]["W1"] *= 0.1
            layer["feed_forward"]["b1"][...] = 3 * (-1.0) ** numpy.arange(config.hidden)
    return map_leaves(lambda leaf: leaf.astype(dtype), p)


def tokens(B: int, T: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).integers(0, TINY["vocabulary"], (B, T))


SOURCE, TARGET = tokens(2, 5), tokens(2, 6, seed=1)
ALLOWED = numpy.arange(5) < numpy.array([[5], [3]])


def logits(p: Tree, config: Config, *, source: Any = SOURCE, attention_mask: Any = ALLOWED, ids: Any = TARGET) -> Any:
    return encoder_decoder.forward(
        p, source=source, attention_mask=attention_mask, ids=ids, config=config, dropout_mask=None
    )[0]


def draws(config: Config, source: tuple[int, int], target: tuple[int, int]) -> Tree:
    random, widths = numpy.random.default_rng(1), encoder_decoder.dropout_widths(config)
    texts = {"encoder": source, "decoder": target}
    return {h: map_leaves(lambda width, h=h: random.random((*texts[h], width)) < 0.7, widths[h]) for h in texts}


SMALLER: dict[str, Any] = {"vocabulary": 5, "context": 3, "head_width": 2, "width": 3, "hidden": 2}


@pytest.mark.one_in(6)
@pytest.mark.parametrize(
    ("name", "drop"), [*((name, True) for name in VARIANTS), ("2017", False)], ids=[*VARIANTS, "2017 without dropout"]
)
def test_every_parameters_gradient_agrees_with_differences(name: str, drop: bool) -> None:
    decoder_layers = 2 if name == "T5" else 1  # two of them share a bias of the distance, and its gradient
    config = dataclasses.replace(
        VARIANTS[name], **SMALLER, encoder_layers=1, decoder_layers=decoder_layers, dropout=0.3
    )
    if config.activation == "relu" and not config.biases:
        config = dataclasses.replace(config, activation="gelu_erf")  # no bias keeps these units from the kink

    def model(p: Tree) -> tuple[Any, Callable[[Any], Tree]]:
        dropout_mask = draws(config, (2, 3), (2, 2)) if drop else None
        return encoder_decoder.forward(
            p,
            source=SOURCE[:, :3] % 5,
            attention_mask=ALLOWED[:, 1:4],
            ids=TARGET[:, :2] % 5,
            config=config,
            dropout_mask=dropout_mask,
        )

    p = parameters(config)
    p["token"] *= 4  # away from the sharp bend of a norm at 0, which the difference quotient would cut
    assert_gradients_agree(model, p)


@every_variant
def test_arguments_are_only_read_and_back_repeats_itself(config: Config) -> None:
    arrays = [a.copy() for a in (SOURCE, ALLOWED, TARGET)]
    for a in arrays:
        a.setflags(write=False)
    source, attention_mask, ids = arrays
    assert_pure(
        lambda p: encoder_decoder.forward(
            p, source=source, attention_mask=attention_mask, ids=ids, config=config, dropout_mask=None
        ),
        parameters(config),
    )


@every_variant
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_and_gradients_keep_the_dtype_of_the_parameters(config: Config, dtype: str) -> None:
    p = parameters(config, dtype=dtype)
    y, back = encoder_decoder.forward(
        p, source=SOURCE, attention_mask=ALLOWED, ids=TARGET, config=config, dropout_mask=None
    )
    assert y.dtype == dtype
    assert y.shape == (2, 6, 7)
    assert {leaf.dtype.name for _, leaf in named_leaves(back(numpy.ones_like(y)))} == {dtype}


@pytest.mark.one_in(4)
@every_variant
@given(t=st.integers(1, 5), seed=st.integers(0, 9))
def test_later_tokens_of_the_target_do_not_change_the_earlier_places(config: Config, t: int, seed: int) -> None:
    p, other = parameters(config), TARGET.copy()
    other[:, t] = (TARGET[:, t] + 1) % config.vocabulary
    other[:, t + 1 :] = tokens(2, 6, seed)[:, t + 1 :]
    y, z = logits(p, config), logits(p, config, ids=other)
    assert numpy.array_equal(y[:, :t], z[:, :t])  # to the bit
    assert (y[:, t] != z[:, t]).any(axis=-1).all()


@every_variant
@pytest.mark.parametrize("place", range(3))
def test_every_token_of_the_source_changes_every_place_of_the_target(config: Config, place: int) -> None:
    """Both ways: also the last token of the source reaches the first place."""
    p, other = parameters(config), SOURCE.copy()
    other[:, place] = (SOURCE[:, place] + 1) % config.vocabulary
    assert (logits(p, config) != logits(p, config, source=other)).any(axis=-1).all()


@every_variant
def test_what_stands_in_the_padding_of_the_source_does_not_reach_the_target(config: Config) -> None:
    p, other = parameters(config), SOURCE.copy()
    other[1, 3:] = 6 - SOURCE[1, 3:]
    assert numpy.array_equal(logits(p, config), logits(p, config, source=other))
    assert not numpy.allclose(
        logits(p, config, attention_mask=None), logits(p, config, source=other, attention_mask=None)
    )


@every_variant
def test_a_padded_source_is_the_source_alone(config: Config) -> None:
    p = parameters(config)
    alone = logits(p, config, source=SOURCE[1:, :3], attention_mask=None, ids=TARGET[1:])
    numpy.testing.assert_allclose(logits(p, config)[1:], alone, rtol=1e-11, atol=1e-12)


@every_variant
def test_a_text_does_not_depend_on_its_neighbours_in_the_batch(config: Config) -> None:
    p = parameters(config)
    turned = logits(p, config, source=SOURCE[::-1], attention_mask=ALLOWED[::-1], ids=TARGET[::-1])
    numpy.testing.assert_allclose(turned[::-1], logits(p, config), rtol=1e-11, atol=1e-12)


@every_variant
def test_a_length_of_one_works_on_both_sides(config: Config) -> None:
    p = parameters(config)
    assert numpy.isfinite(logits(p, config, source=SOURCE[:, :1], attention_mask=None, ids=TARGET[:, :1])).all()


@every_variant
@settings(max_examples=10)
@given(chunks=st.lists(st.integers(1, 4), min_size=1, max_size=6).filter(lambda c: sum(c) <= 6) | st.just([1] * 6))
def test_decoding_with_the_cache_is_the_full_forward_whatever_the_chunks(config: Config, chunks: list[int]) -> None:
    p, ends = parameters(config), list(itertools.accumulate(chunks))
    memory, _ = encoder_decoder.encode(p, ids=SOURCE, attention_mask=ALLOWED, config=config, dropout_mask=None)
    cache = store(config, p, rows=2)
    pieces = [
        encoder_decoder.decode(
            p, memory, ids=TARGET[:, end - n : end], memory_mask=ALLOWED, config=config, dropout_mask=None, cache=cache
        )[0]
        for n, end in zip(chunks, ends, strict=True)
    ]
    full = encoder_decoder.hidden_states(
        p, source=SOURCE, attention_mask=ALLOWED, ids=TARGET[:, : ends[-1]], config=config, dropout_mask=None
    )[0]
    numpy.testing.assert_allclose(numpy.concatenate(pieces, axis=1), full, rtol=1e-11, atol=1e-12)


def store(config: Config, p: Tree, *, rows: int) -> DecoderCache:
    layers, heads, head_width = encoder_decoder.cache_shape(config)
    return DecoderCache(
        KeyValueCache(
            batch=rows, layers=layers, heads=heads, room=config.context, head_width=head_width, padding=None,
            like=p["token"],
        )
    )  # fmt: skip


@every_variant
def test_rows_that_share_a_memory_decode_as_with_a_memory_each(config: Config) -> None:
    p, ids = parameters(config), tokens(6, 4)
    memory, _ = encoder_decoder.encode(p, ids=SOURCE, attention_mask=ALLOWED, config=config, dropout_mask=None)
    shared, back = encoder_decoder.decode(
        p, memory, ids=ids, memory_mask=ALLOWED, config=config, dropout_mask=None, cache=None
    )
    each, back_each = encoder_decoder.decode(
        p, memory.repeat(3, axis=0), ids=ids, memory_mask=ALLOWED.repeat(3, axis=0), config=config, dropout_mask=None,
        cache=None,
    )  # fmt: skip
    numpy.testing.assert_allclose(shared, each, rtol=1e-11, atol=1e-12)
    dy = numpy.random.default_rng(0).standard_normal(shared.shape)
    (dp, dmemory), (dp_each, dmemory_each) = back(dy), back_each(dy)
    numpy.testing.assert_allclose(dmemory, dmemory_each.reshape(2, 3, *memory.shape[1:]).sum(axis=1), atol=1e-11)
    for (_, one), (_, other) in zip(named_leaves(dp), named_leaves(dp_each), strict=True):
        numpy.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


@every_variant
def test_the_draws_of_dropout_are_used_in_their_order_each_at_its_place(config: Config) -> None:
    """The first after the embedding, then for each layer one after each of its sublayers: with all dropped there, what
    the sublayer would have put out does not matter."""
    config = dataclasses.replace(config, dropout=0.5)
    p = parameters(config)
    sublayers = {"encoder": ["attention", "feed_forward"], "decoder": ["attention", "cross_attention", "feed_forward"]}
    for half, stack in enumerate(("encoder", "decoder")):
        places = [(layer, name) for layer in range(len(p[stack]["layers"])) for name in sublayers[stack]]
        for site, (layer, name) in enumerate(places, start=1):
            last = "W2" if name == "feed_forward" else "Wo"
            other = map_leaves(lambda leaf: leaf.copy(), p)
            other[stack]["layers"][layer][name][last] *= 2
            assert not numpy.allclose(dropped(p, config, half, None), dropped(other, config, half, None))
            assert numpy.array_equal(dropped(p, config, half, site), dropped(other, config, half, site))
    other = SOURCE.copy()
    other[:, 0] = (SOURCE[:, 0] + 1) % config.vocabulary
    assert numpy.array_equal(dropped(p, config, 0, 0), dropped(p, config, 0, 0, source=other))


def dropped(p: Tree, config: Config, half: int, site: int | None, source: Any = SOURCE) -> Any:
    """Logits where all is dropped at one use of dropout in the encoder (half 0) or the decoder (half 1)."""
    dropout_mask = draws(config, (2, 5), (2, 6))
    for _, draw in named_leaves(dropout_mask):
        draw[...] = True
    if site is not None:
        named_leaves(dropout_mask[("encoder", "decoder")[half]])[site][1][...] = False
    return encoder_decoder.forward(
        p, source=source, attention_mask=ALLOWED, ids=TARGET, config=config, dropout_mask=dropout_mask
    )[0]


@every_variant
def test_initial_parameters_have_the_structure_of_the_shapes_and_of_the_gradient(config: Config) -> None:
    p = encoder_decoder.initial(config, generator(0))
    y, back = encoder_decoder.forward(
        p, source=SOURCE, attention_mask=None, ids=TARGET, config=config, dropout_mask=None
    )
    wanted = list(named_leaves(encoder_decoder.shapes(config)))
    assert [(name, leaf.shape) for name, leaf in named_leaves(p)] == wanted
    assert [(name, leaf.shape) for name, leaf in named_leaves(back(numpy.ones_like(y)))] == wanted


WIDE: dict[str, Any] = {"vocabulary": 50, "width": 64, "head_width": 16, "heads": 4, "hidden": 128}


@pytest.mark.parametrize("name", ["2017", "BART", "T5"])
def test_an_untrained_model_finds_every_token_about_equally_probable(name: str) -> None:
    """Tokens of deviation 1/√C, or 1 and 1/√C after them, make logits of about 1 of states of unit size."""
    config = dataclasses.replace(VARIANTS[name], **WIDE, eps=1e-5)
    random = numpy.random.default_rng(0)
    source, ids = random.integers(0, 50, (2, 32, 8))
    y = logits(encoder_decoder.initial(config, generator(0)), config, source=source, attention_mask=None, ids=ids)
    assert 0.3 < y.std() < 1.5


def test_initial_queries_of_t5_make_up_for_the_scale_that_its_attention_lacks() -> None:
    config = dataclasses.replace(VARIANTS["T5"], **WIDE)
    layer = encoder_decoder.initial(config, generator(0))["decoder"]["layers"][0]
    q, k, v = numpy.split(layer["attention"]["Wqkv"], 3, axis=1)
    for matrix, deviation in ((q, 1 / 8 / 4), (k, 1 / 8), (v, 1 / 8), (layer["cross_attention"]["Wq"], 1 / 8 / 4)):
        assert matrix.std() == pytest.approx(deviation, rel=4 / math.sqrt(2 * matrix.size))


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (t5("small"), 60_506_624),
        (t5("base"), 222_903_552),
        (t5("large"), 737_668_096),
        (t5("3b"), 2_851_598_336),
        (t5_1_1("small"), 76_961_152),
        (t5_1_1("base"), 247_577_856),
    ],
    ids=["small", "base", "large", "3b", "1.1 small", "1.1 base"],
)
def test_t5_has_the_published_number_of_parameters(config: Config, published: int) -> None:
    """By the shapes, and by a formula; no array is made."""
    V, C, F, I = config.vocabulary, config.width, config.hidden, config.heads * config.head_width
    attention, feed = 4 * C * I, (3 if config.gated else 2) * C * F
    encoder = config.encoder_layers * (attention + feed + 2 * C)
    decoder = config.decoder_layers * (2 * attention + feed + 3 * C)
    around = (1 if config.tied else 2) * V * C + 2 * (config.buckets * config.heads + C)
    assert count(encoder_decoder.shapes(config)) == encoder + decoder + around == published


@pytest.mark.parametrize(("size", "published"), [("base", 139_420_416), ("large", 406_291_456)])
def test_bart_has_the_published_number_of_parameters(size: str, published: int) -> None:
    """But for two rows in each table of positions, which no position uses: the ids of padding there took the first."""
    config = bart(size)
    assert count(encoder_decoder.shapes(config)) + 2 * 2 * config.width == published


@pytest.mark.parametrize(("size", "millions", "off"), [("base", 65, 0.03), ("big", 213, 0.006)])
def test_the_transformer_of_2017_has_about_the_parameters_of_its_table(size: str, millions: int, off: float) -> None:
    """63.1 and 214.2 million with ONE matrix of 37000 tokens for source, target and head; table 3 has 65 and 213, which
    no one vocabulary gives: 40 750 tokens would make 65, 35 780 would make 213."""
    config = vaswani(size)
    V, C, F = config.vocabulary, config.width, config.hidden
    layer = 4 * (C * C + C) + 2 * C * F + F + C
    exact = V * C + 6 * (layer + 2 * 2 * C) + 6 * (layer + 4 * (C * C + C) + 3 * 2 * C)
    found = count(encoder_decoder.shapes(config))
    assert found == exact
    assert abs(found / 1e6 - millions) < off * millions


@every_variant
def test_more_tokens_than_the_context_are_refused_in_one_line(config: Config) -> None:
    p = parameters(config)
    with pytest.raises(UserError, match=r"a source of 9 tokens does not fit the 8 positions; cut it, or raise context"):
        logits(p, config, source=tokens(2, 9), attention_mask=None)
    with pytest.raises(UserError, match=r"a target of 9 tokens does not fit the 8 positions"):
        logits(p, config, ids=tokens(2, 9))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"heads": 0}, "heads must be a whole number of at least 1, got 0"),
        ({"head_width": 1.5}, "head_width must be a whole number"),
        ({"decoder_layers": 0}, "decoder_layers must be"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"eps": 0.0}, "eps must be a positive number"),
        ({"norm": "middle"}, "norm must be one of pre, post"),
        ({"activation": "silu"}, "activation must be one of"),
        ({"positions": "rotary"}, "positions must be one of sinusoidal, learned, relative"),
        ({"gated": True}, "a gated feed-forward layer has no biases"),
        ({"buckets": 5}, "buckets must be an even number"),
        ({"farthest": 16}, "farthest above half of it"),
    ],
)
def test_an_impossible_architecture_is_refused_by_name(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Config(**{**TINY, **change})


def test_a_configuration_survives_json() -> None:
    for config in (*VARIANTS.values(), vaswani("base"), bart("base"), t5("small"), t5_1_1("small")):
        assert Config(**config.as_dict()) == config
