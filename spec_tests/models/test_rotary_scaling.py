"""The angles of scaled positions keep what each form promises for its fastest and its slowest pairs."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from refllm.models.rotary_scaling import (
    dynamic_frequencies,
    linear_frequencies,
    llama3_frequencies,
    trained_frequencies,
    yarn_frequencies,
    yarn_scale,
)
from refllm.spec import rotary_scaling as text
from refllm.verify.ports.published import llama as of_ports

WIDTHS = st.integers(2, 40).map(lambda half: 2 * half)
BASES, FACTORS, LENGTHS = st.floats(2.0, 1e6), st.floats(1.0, 100.0), st.integers(8, 100_000)


@given(width=WIDTHS, base=BASES, factor=FACTORS, original=LENGTHS, rounded=st.booleans())
def test_yarn_keeps_fast_pairs_and_divides_slow_ones(
    width: int, base: float, factor: float, original: int, rounded: bool
) -> None:
    # where even the farthest pair that the code counts, width - 1, turns fast, it divides all of them
    assume(original * base ** (-2 * (width - 1) / width) < 2 * math.pi)
    trained = trained_frequencies(width, base)
    found = yarn_frequencies(
        width=width, base=base, factor=factor, original=original, beta_fast=32.0, beta_slow=1.0, rounded=rounded
    )
    turns = [original * f / (2 * math.pi) for f in trained]
    for f, was, n in zip(found, trained, turns, strict=True):
        assert was / factor * (1 - 1e-9) <= f <= was * (1 + 1e-9)
        if n >= 32 * (1 + 1e-9):
            assert f == pytest.approx(was, rel=1e-9)
        if n <= 1 / base ** (2 / width):  # rounded up to the next pair, it still turns less than once
            assert f == pytest.approx(was / factor, rel=1e-9)
    assert list(found) == sorted(found, reverse=True)


@given(width=WIDTHS, base=BASES, factor=FACTORS, original=LENGTHS, more=st.floats(1.0, 9.0))
def test_the_angles_are_those_of_the_text(width: int, base: float, factor: float, original: int, more: float) -> None:
    sizes: dict[str, Any] = {"width": width, "base": base}
    of_llama3: dict[str, Any] = {**sizes, "factor": factor, "original": original, "low_factor": 1.0, "high_factor": 4.0}
    found = [linear_frequencies(**sizes, factor=factor), llama3_frequencies(**of_llama3)]
    truth = [text.linear_frequencies(**sizes, factor=factor), text.llama3_frequencies(**of_llama3)]
    if width > 2:
        length = int(more * original)
        found.append(dynamic_frequencies(**sizes, factor=factor, original=original, length=length))
        truth.append(text.ntk_frequencies(**sizes, factor=1 + factor * (length / original - 1)))
    for ours, true in zip(found, truth, strict=True):
        assert ours == pytest.approx(true, rel=1e-9)


@given(width=WIDTHS, base=BASES, factor=FACTORS, original=LENGTHS)
def test_yarn_is_that_of_the_text_and_of_the_published_models(
    width: int, base: float, factor: float, original: int
) -> None:
    assume(original * base ** (-2 * (width - 1) / width) < 2 * math.pi)  # as above
    turns = [original * base ** (-2 * i / width) / (2 * math.pi) for i in range(width)]
    assume(
        all(abs(n - border) > 1e-6 for n in turns for border in (1.0, 32.0))
    )  # a pair at the border is on either side
    sizes: dict[str, Any] = {
        "width": width,
        "base": base,
        "factor": factor,
        "original": original,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
    }
    config = {
        "head_width": width, "base": base, "scaling_factor": factor, "scaling_original": original, "scaling_high": 32.0,
        "scaling_low": 1.0,
    }  # fmt: skip
    true, scale = text.yarn_frequencies(**sizes)
    assert yarn_frequencies(**sizes, rounded=True) == pytest.approx(true, rel=1e-9)
    assert yarn_scale(factor) == pytest.approx(scale)
    for rounded in (True, False):
        of_port = of_ports.yarn_frequencies({**config, "scaling_rounded": rounded})
        assert yarn_frequencies(**sizes, rounded=rounded) == pytest.approx(of_port, rel=1e-9)


@given(factor=FACTORS)
def test_the_scale_of_yarn_is_one_where_nothing_is_stretched(factor: float) -> None:
    assert yarn_scale(1.0) == yarn_scale(1 / factor) == 1
    assert yarn_scale(factor) == pytest.approx(1 + math.log(factor) / 10)


@given(width=WIDTHS, base=BASES, factor=FACTORS, original=LENGTHS, more=st.integers(1, 9))
def test_dynamic_scaling_begins_beyond_the_trained_length(
    width: int, base: float, factor: float, original: int, more: int
) -> None:
    trained = trained_frequencies(width, base)

    def at(length: int) -> tuple[float, ...]:
        return dynamic_frequencies(width=width, base=base, factor=factor, original=original, length=length)

    assert at(1) == at(original) == trained
    far = at(more * original)
    assert far[0] == 1
    assert far[-1] == pytest.approx(trained[-1] / (1 + factor * (more - 1)), rel=1e-9)
