"""Tiles of keys that are counted as if no cache held the first of them are named for every causal operation."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.backend import Array
from refllm.numbers import plans
from refllm.verify import corpus, plain
from refllm.verify.adapter import Functions
from refllm.verify.case import Case
from refllm.verify.kernels.cached_keys import without_offset
from refllm.verify.sized import cases, judge
from refllm.verify.sized.recognised import Recognised

TEXT = plain.operations()
TILES = st.sampled_from([4, 8, 16])


def read(T: int, S: int, rows: int, keys: int) -> Array:
    """Tile by tile, as a kernel goes through them."""
    there = numpy.zeros((T, S), bool)
    for first in range(0, T, rows):
        last = min(T, first + rows)
        for begin in range(0, min(S, last), keys):
            there[first:last, begin : begin + keys] = True
    return there


@given(st.integers(1, 40), st.integers(0, 40), TILES, TILES)
def test_the_keys_are_those_up_to_the_tile_of_the_query(T: int, cached: int, rows: int, keys: int) -> None:
    S = T + cached
    inputs = {"q": numpy.zeros((T, 2)), "k": numpy.zeros((S, 2)), "v": numpy.zeros((S, 2))}
    case = Case("X/x", "X", "", "attention", 1, "", (), inputs, {"causal": True, "allowed": None})
    found = without_offset(rows, keys)(case)
    there, causal = read(T, S, rows, keys), numpy.tri(T, S, cached, dtype=bool)
    if found is None:
        assert cached == 0 or (there | ~causal).all()
    else:
        assert numpy.array_equal(found.keywords["allowed"] & causal, there & causal)


def sink_attention(q: Array, k: Array, v: Array, sink: Array, *, causal: bool, allowed: Array | None) -> Any:
    there = read(q.shape[-2], k.shape[-2], 32, 256) | (not causal)
    return TEXT["sink_attention"](q, k, v, sink, causal=causal, allowed=there if allowed is None else allowed & there)


@pytest.mark.slow
def test_they_are_named_of_an_operation_without_lines_of_its_own() -> None:
    known = [case for case in cases.load(corpus.folder(None)).values() if case.operation == "sink_attention"]
    plan = plans.plan("eager", "float32")
    watched = Recognised("float32", plan, 10)
    mine = Functions("mine", {"sink_attention": sink_attention}, {}, ("float64", "float32"))
    found = watched.explained(list(judge.run(mine, known, "float32", plan, seen=watched.look)))
    said = [line for result in found for line in result.diagnosis]
    assert any("counts its tiles of keys without S - T" in line and "256 keys" in line for line in said), said
