"""What the language models that carry a state have beyond the laws of all: recurrent_lm, nnlm, and hybrid."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.models import hybrid, nnlm, recurrent_lm
from spec_tests.language_models import (
    WITH_STATE,
    S,
    logits,
    model_of,
    parameters,
    store,
    tiny_hybrid,
    tiny_nnlm,
    tiny_recurrent,
    tokens,
)


@pytest.mark.parametrize("config", [v for v in WITH_STATE.values() if model_of(v) is not hybrid], ids=str)
def test_a_state_alone_has_no_context_to_fill(config: Any) -> None:
    p, ids = parameters(config), tokens(1, 3 * S)
    state = store(config, p, batch=1)
    pieces = [logits(p, ids[:, i : i + 5], config, state) for i in range(0, 3 * S, 5)]
    numpy.testing.assert_allclose(numpy.concatenate(pieces, axis=1), logits(p, ids, config), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("make", [tiny_recurrent, tiny_nnlm, tiny_hybrid])
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
