"""What Llama has beyond the laws of every language model, with every scheme of positions."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.models import llama, published
from refllm.objectives.causal import causal_loss
from refllm.parameters import count
from spec_tests.language_models import LLAMA, logits, parameters, store, tiny_llama, tokens

every_scheme = pytest.mark.parametrize("positions", llama.POSITIONS)


@every_scheme
def test_the_order_of_earlier_tokens_matters_with_every_scheme_but_none(positions: str) -> None:
    """With one layer: in a second the causal mask alone tells the order."""
    config = tiny_llama(positions=positions, layers=1)
    p, ids = parameters(config), numpy.array([[1, 2, 3, 4]])
    y, z = (logits(p, a, config)[:, -1] for a in (ids, ids[:, [2, 0, 1, 3]]))
    assert numpy.allclose(y, z, rtol=1e-12) == (positions == "none")


@every_scheme
@given(shift=st.integers(1, 5))
def test_a_place_counts_from_the_query_and_not_from_the_beginning(positions: str, shift: int) -> None:
    """A text behind padding that no token attends has its own logits, wherever it then stands."""
    config = tiny_llama(positions=positions, context=16)
    p, ids = parameters(config), tokens(1, 6)
    cache = store(config, p, batch=1)
    cache.padding = numpy.array([shift])
    behind = numpy.concatenate([tokens(1, shift, seed=1), ids], axis=1)
    numpy.testing.assert_allclose(logits(p, behind, config, cache)[:, shift:], logits(p, ids, config), rtol=1e-11)


@pytest.mark.parametrize("config", LLAMA.values(), ids=LLAMA)
def test_a_larger_context_changes_nothing_and_lets_the_same_parameters_read_on(config: llama.Config) -> None:
    """No scheme has a table of positions: what was trained at one length is evaluated beyond it."""
    p, ids = parameters(config), tokens(2, 40)
    longer = dataclasses.replace(config, context=40)
    assert llama.shapes(longer) == llama.shapes(config)
    numpy.testing.assert_allclose(logits(p, ids, longer)[:, :8], logits(p, ids[:, :8], config), rtol=1e-11, atol=1e-12)


def test_one_head_of_keys_for_all_is_a_head_of_keys_each_that_are_all_the_same() -> None:
    few, many = tiny_llama(kv_heads=2), tiny_llama(kv_heads=4)
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
        (published.llama2("7b"), 6_738_415_616),
        (published.llama2("13b"), 13_015_864_320),
        (published.llama2("70b"), 68_976_648_192),
        (published.tinyllama(), 1_100_048_384),
    ],
    ids=["7b", "13b", "70b", "TinyLlama"],
)
def test_the_published_models_have_the_published_number_of_parameters(config: llama.Config, published: int) -> None:
    """By the shapes, and by the formula 2 V C + L (2 C² + 2 C G D + 3 C F + 2 C) + C; no array is made."""
    V, L, C, F = config.vocabulary, config.layers, config.width, config.hidden
    shared = config.kv_heads * config.head_width
    assert count(llama.shapes(config)) == published
    assert 2 * V * C + L * (2 * C * C + 2 * C * shared + 3 * C * F + 2 * C) + C == published


@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_memory_of_a_training_step_grows_linearly_with_the_context(positions: str) -> None:
    """Four times the length takes at most five times the memory, where the square would take sixteen."""
    config = tiny_llama(positions=positions, context=4096, layers=1, heads=1, width=16)
    p = parameters(config, dtype="float32")

    def peak(T: int) -> int:
        ids = tokens(1, T)
        tracemalloc.start()
        _, back = causal_loss(p, model=llama, ids=ids, targets=ids, ignore=None, config=config, dropout_mask=None)
        back(numpy.asarray(1, "float32"))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(2560) <= 5 * peak(640)


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
        tiny_llama(**change)


def test_what_is_left_open_is_filled_in_and_said() -> None:
    config = tiny_llama()
    assert (config.kv_heads, config.head_width) == (4, 2)
    assert llama.Config(**config.as_dict()) == config
    assert config.as_dict()["kv_heads"] == 4
