"""Faults of capped, biased and sunk attention in tiles, and of one that gives its log-sum-exp, are named by the edits
that name those of plain attention; right loops of each kind are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import corpus, plain
from refllm.verify.explanation import Explanation
from refllm.verify.kernels import attention_kinds, causes, flash, loops, tiled
from refllm.verify.kernels.bank import Mistake
from refllm.verify.sized import cases
from refllm.verify.sized.work import work
from spec_tests.verify.kernels.test_tiled import told

KNOWN = sorted(cases.load(corpus.folder(None)).values(), key=work)
TEXT = plain.operations()
SMALL = {
    "capped_attention": ("3x65x65x64-peaked", "2x3x65x33x40-padded"),
    "relative_attention": ("1x3x65x65x40-causal", "2x3x33x129x64"),
    "sink_attention": ("1x3x65x65x64", "2x3x65x33x40-padded"),
    "attention_with_lse": ("3x1x65x65x64-peaked", "2x3x65x33x40-padded"),
}
Fault = Callable[[Array, Array, int], Array]  # of a factor, how far the maximum rises, and the number of the tile


def right(factor: Array, rise: Array, number: int) -> Array:
    return factor


def never(factor: Array, rise: Array, number: int) -> Array:
    return numpy.ones_like(factor)


def of_kind(operation: str, size: int = 32, fault: Fault = right, lost: str = "") -> Callable[..., Any]:
    """Values in tiles of keys, in float64; the gradients are those of the text."""

    def attention(q: Array, k: Array, v: Array, *more: Array, causal: bool, allowed: Any, cap: float = 0.0) -> Any:
        how = {"causal": causal, "allowed": allowed} | ({"cap": cap} if cap else {})
        _, back = TEXT[operation](q, k, v, *more, **how)
        T, S = q.shape[-2], k.shape[-2]
        s = q.astype("float64") @ k.astype("float64").swapaxes(-1, -2) / numpy.sqrt(q.shape[-1])
        s = cap * numpy.tanh(s / cap) if cap else s
        if operation == "relative_attention":
            s = s + more[0][:, numpy.arange(S) - numpy.arange(T)[:, None] + T - 1]
        may = numpy.tri(T, S, S - T, dtype=bool) if causal else numpy.ones((T, S), bool)
        s = numpy.where(may if allowed is None else may & allowed, s, -numpy.inf)
        top, Z = numpy.full((*s.shape[:-1], 1), -numpy.inf), numpy.zeros((*s.shape[:-1], 1))
        if operation == "sink_attention":
            top, Z = numpy.broadcast_to(more[0][:, None, None], top.shape), Z + 1
        y = numpy.zeros((*s.shape[:-1], v.shape[-1]))
        for number, first in enumerate(range(0, S, size)):
            part = s[..., first : first + size]
            if lost == "tail" and part.shape[-1] < size < S:
                continue
            new = numpy.maximum(top, part.max(axis=-1, keepdims=True))
            shift = numpy.where(numpy.isinf(new), 0, new)
            factor, P = fault(numpy.exp(top - shift), new - top, number), numpy.exp(part - shift)
            Z, y = Z * factor + P.sum(axis=-1, keepdims=True), y * factor + P @ v[..., first : first + size, :]
            top = new
        y = (y / numpy.where(Z == 0, 1, Z)).astype(q.dtype)
        if operation != "attention_with_lse":
            return y, back
        with numpy.errstate(all="ignore"):
            return (y, (shift + numpy.log(Z))[..., 0].astype(q.dtype)), back

    return attention


@pytest.mark.parametrize("operation", SMALL)
def test_right_loops_of_every_kind_pass(operation: str) -> None:
    assert told(operation, of_kind(operation, 48), SMALL[operation]) == []


@pytest.mark.every
@pytest.mark.parametrize("operation", SMALL)
def test_a_missing_rescaling_is_named(operation: str) -> None:
    found = told(operation, of_kind(operation, 32, never), SMALL[operation])
    lines = [result.diagnosis[0] for result in found if result.diagnosis]
    assert lines
    assert all(isinstance(line, Explanation) and "rescaled" in line for line in lines), lines


@pytest.mark.every
@pytest.mark.parametrize("operation", SMALL)
def test_keys_of_a_partial_tile_that_are_lost_are_named(operation: str) -> None:
    found = told(operation, of_kind(operation, 32, lost="tail"), SMALL[operation])
    lines = [result.diagnosis[0] for result in found if result.diagnosis]
    assert lines
    assert all(isinstance(line, Explanation) and "the keys after the last whole tile" in line for line in lines), lines


@pytest.mark.every
@pytest.mark.parametrize("operation", SMALL)
def test_a_gradient_of_some_tiles_is_named(operation: str) -> None:
    """The text with loops in tiles of 16, each key gradient that of all tiles of queries but the last."""
    mistake = next(m for m in tiled.edits() if "a key gradient of all tiles of queries but the last" in m.about)

    def attention(*arrays: Array, **how: Any) -> Any:
        return loops._names(mistake, (("TILE", 16), ("ROWS", 16)))[operation](*arrays, **how)

    found = told(operation, attention, SMALL[operation][:1])
    lines = [result.diagnosis[0] for result in found if result.diagnosis]
    assert lines
    assert all("a key gradient of all tiles of queries but the last" in line for line in lines), lines


def test_every_family_of_edits_is_tried_for_every_kind() -> None:
    of_attention = {m for m in tiled.edits() if m.operation == "attention"}
    for operation in SMALL:
        tried = {c.mistake for c in causes.causes(operation) if isinstance(c, causes.OfBank)}
        assert of_attention <= tried
        others = {m.operation for m in tried if isinstance(m, Mistake)}
        assert others <= {"attention", "repeat_heads", operation}


def test_parts_of_keys_merge_to_the_whole_of_every_kind() -> None:
    """Merged by their log-sum-exp, the parts of every kind are what it gives for all keys."""
    for operation in SMALL:
        sized = next(c for c in KNOWN if c.operation == operation and c.id.endswith(SMALL[operation][1]))
        case = sized.case()
        q, k, v, *more = case.arguments("float64")
        keywords = case.keyword_arguments()
        how = attention_kinds.asked(operation, more, q.shape[-2], keywords, [])
        Y, M, _, _ = flash.in_parts(q, k, v, how.causal, how.allowed, how.kind, 16)
        w = numpy.exp(M - numpy.where(numpy.isinf(M.max(axis=0)), 0, M.max(axis=0)))
        merged = (Y * w).sum(axis=0) / numpy.where(w.sum(axis=0) == 0, 1, w.sum(axis=0))
        y = TEXT[operation](q, k, v, *more, **keywords)[0]
        assert numpy.allclose(merged, y[0] if isinstance(y, tuple) else y)
