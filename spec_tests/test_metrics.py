"""Laws of perplexity and bits per character. (PPL)"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.metrics import bits_per_character, perplexity


@given(V=st.integers(1, 10**6), T=st.integers(1, 10**4))
def test_the_perplexity_of_guessing_evenly_is_the_size_of_the_vocabulary(V: int, T: int) -> None:
    assert perplexity(T * math.log(V), T) == pytest.approx(V, rel=1e-12)


@given(V=st.integers(2, 10**6), n=st.integers(1, 10**4))
def test_guessing_evenly_costs_the_binary_logarithm_of_the_vocabulary_a_character(V: int, n: int) -> None:
    assert bits_per_character(n * math.log(V), n) == pytest.approx(math.log2(V), rel=1e-12)


def test_certainty_has_perplexity_one_and_no_bits() -> None:
    assert perplexity(0.0, 5) == 1
    assert bits_per_character(0.0, 5) == 0


@pytest.mark.parametrize("nll", [math.inf, 1e6])
def test_a_perplexity_beyond_the_numbers_is_infinite(nll: float) -> None:
    assert perplexity(nll, 1) == math.inf


@pytest.mark.parametrize("measure", [perplexity, bits_per_character])
def test_nothing_has_no_measure(measure: object) -> None:
    with pytest.raises(ValueError, match=r"no token|empty"):
        measure(1.0, 0)  # type: ignore[operator]
