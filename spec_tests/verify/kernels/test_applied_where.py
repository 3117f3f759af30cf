"""A mistake that is made in some places alone is named with these places: a tail, every so many rows, a head."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.kernels.tails import words
from spec_tests.verify.kernels.noted import Noted

TEXT = plain.operations()
KERNELS = Noted()
wrong = KERNELS.wrong


@wrong("adamw", "(ADAMW/decay-ignored), in the last n % 4 of the n elements alone")
def tail_without_decay(p: Array, g: Array, m: Array, v: Array, *, decay: float, **how: Any) -> Any:
    new, *moments = TEXT["adamw"](p, g, m, v, decay=decay, **how)
    other = TEXT["adamw"](p, g, m, v, decay=0.0, **how)[0]
    made, whole = new.reshape(-1).copy(), p.size // 4 * 4
    made[whole:] = other.reshape(-1)[whole:]
    return made.reshape(p.shape), *moments


@wrong("dropout", "in the last n % 16")
def tail_without_scale(x: Array, *, keep: Array, rate: float) -> Any:
    def scaled(x: Array) -> Array:
        y, whole = (x * keep / (1 - rate)).astype(x.dtype).reshape(-1), x.size // 16 * 16
        y[whole:] = (x * keep).reshape(-1)[whole:]
        return y.reshape(x.shape)

    return scaled(x), scaled


@wrong("silu", "in the last n % 8 of the n elements alone")
def tail_by_another_function(x: Array) -> Any:
    y, back = TEXT["silu"](x)
    other, other_back = TEXT["gelu_tanh"](x)
    whole = x.size // 8 * 8

    def with_tail(one: Array, two: Array) -> Array:
        made = one.reshape(-1).copy()
        made[whole:] = two.reshape(-1)[whole:]
        return made.reshape(x.shape)

    return with_tail(y, other), lambda dy: with_tail(back(dy), other_back(dy))


@wrong("layer_norm", "every 4th row, from 3 on")
def fourth_rows_without_shift(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    y, back = TEXT["layer_norm"](x, g, b, eps=eps)
    rows = y.reshape(-1, y.shape[-1])
    rows[3::4] -= b
    return rows.reshape(y.shape), back


@wrong("attention", "head 1 of")
def second_head_not_scaled(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
    scale = numpy.ones((*q.shape[:-2], 1, 1), q.dtype)
    if q.ndim > 3:
        scale[:, 1] = q.shape[-1] ** 0.5
    return TEXT["attention"](q * scale, k, v, causal=causal, allowed=allowed)[0]


@wrong(
    "layer_norm", "found by search, no listed mistake (1 other edit gives the same), all of every second row, from 1 on"
)
def second_rows_less_the_shift(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    """No listed mistake: the search finds it in the rows that are wrong."""
    y, back = TEXT["layer_norm"](x, g, b, eps=eps)
    rows = y.reshape(-1, y.shape[-1])
    rows[1::2] = rows[1::2] - 2 * b
    return rows.reshape(y.shape), back


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", KERNELS)
def test_the_places_of_a_mistake_are_named_with_it(name: str) -> None:
    KERNELS.is_named(name)


def test_a_tail_of_the_whole_array_is_said_in_elements() -> None:
    of_vectors = [{"index": (33, 32)}, {"element": (31, 24)}, {"index": (7, 0)}, {"index": (1025, 1024)}]
    assert words(of_vectors) == "in the last n % 8 of the n elements alone"
    mixed = [*of_vectors, {"row": (65, 64), "number of the whole array": (65 * 31, 65 * 31 - 7)}]
    assert words(mixed) == "in the last n % 8 of the n elements alone, all axes counted through"
