"""What a wrong value has to do with the right one is said where it is true of every input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify.ports.judged import judged
from refllm.verify.ports.relation import relation

RANDOM = numpy.random.default_rng(2)
ORDER = RANDOM.permutation(24)
VECTOR = RANDOM.normal(size=24)
HEADS = RANDOM.normal(size=(3, 1, 8))
Way = Callable[[Any, Array], Array]


def given(model: Any, name: str, way: Way) -> str:
    """What is said of a port that gives this in the place of a value."""
    answers = [
        judged(model.program, one, {}, {name: way(one, one.values[name].value).astype("float32")})
        for one in model.truths
    ]
    return relation(answers, name)


@pytest.mark.parametrize(
    ("name", "way", "said"),
    [
        ("layers.1", lambda one, x: -x, "with the other sign"), ("layers.1", lambda one, x: 0.25 * x, "0.25 times"),
        ("layers.1", lambda one, x: x[..., ORDER], f"another order: {', '.join(map(str, ORDER[:3]))}"),
        ("layers.1", lambda one, x: x + VECTOR, "the same vector more at every place"),
        ("layers.1.q", lambda one, x: x + HEADS, "the same vector more at every place"),
        ("layers.1.q", lambda one, x: one.values["layers.1.k"].value, "what layers.1.k should be"),
        ("layers.1", lambda one, x: x * x, ""), ("layers.1", lambda one, x: x, ""),
        ("layers.1", lambda one, x: x + numpy.arange(x.shape[-2])[:, None], ""),
        ("layers.1", lambda one, x: x[..., ORDER] if x.shape[-2] > 2 else 2 * x, ""),
    ],
)  # fmt: skip
def test_a_plain_relation_is_said_and_no_other(published: Any, name: str, way: Way, said: str) -> None:
    found = given(published("gpt2"), name, way)
    assert said in found
    assert bool(found) == bool(said)
