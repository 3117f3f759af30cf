"""The number of a layer is that of the part of the text that asks for it, and nothing outlives an evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from refllm.spec.array import part
from refllm.verify import numbered, words


def test_layers_are_counted_from_one() -> None:
    for n in range(3):
        with part(f"layers.{n}"):
            assert numbered.layer_number() == n + 1


def test_outside_of_layers_there_is_no_number() -> None:
    with pytest.raises(LookupError):
        numbered.layer_number()


def test_a_layer_finds_what_that_of_the_same_number_gave() -> None:
    words.begin()
    last = np.zeros(1)
    for n in range(2):
        with part("encoder"), part(f"layers.{n}"):
            numbered.noted(np.full(1, n + 1.0))
    for n, expected in enumerate((1.0, 2.0, 0.0)):
        with part("decoder"), part(f"layers.{n}"):
            assert numbered.of_same_number("encoder", last) == expected
    words.begin()
    with part("decoder"), part("layers.0"):
        assert numbered.of_same_number("encoder", last) == 0
