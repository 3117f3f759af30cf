"""What a GPT has beyond the laws of every language model (test_language_models.py)."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.models import gpt
from refllm.models.published import gpt2
from refllm.parameters import count
from spec_tests.language_models import GPT, parameters, tiny_gpt, tokens


@pytest.mark.parametrize(
    ("size", "published"),
    [("small", 124_439_808), ("medium", 354_823_168), ("large", 774_030_080), ("xl", 1_557_611_200)],
)
def test_the_published_models_have_the_published_number_of_parameters(size: str, published: int) -> None:
    """By the shapes, and by the formula V C + S C + L (12 C² + 13 C) + 2 C; no array is made."""
    config = gpt2(size)
    V, S, L, C = config.vocabulary, config.context, config.layers, config.width
    assert count(gpt.shapes(config)) == published
    assert V * C + S * C + L * (12 * C**2 + 13 * C) + 2 * C == published


@pytest.mark.parametrize("config", GPT.values(), ids=GPT)
def test_the_gradient_of_the_keys_bias_is_zero(config: gpt.Config) -> None:
    """It shifts all scores of a query by the same amount."""
    C = config.width
    y, back = gpt.forward(parameters(config), ids=tokens(2, 8), config=config, dropout_mask=None, cache=None)
    for layer in back(numpy.random.default_rng(0).standard_normal(y.shape))["layers"]:
        query, key, value = numpy.split(layer["attention"]["bqkv"], 3)
        assert abs(key).max() <= 1e-12 * max(abs(query).max(), abs(value).max())
        assert key.shape == (C,)


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
        tiny_gpt(**change)
