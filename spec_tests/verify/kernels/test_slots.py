"""Tokens that take the slot of another one, or none, are named with what becomes of them and where."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.addresses import other_slots
from spec_tests.verify.kernels.noted import Noted

TEXT = plain.operations()
KERNELS = Noted()
wrong = KERNELS.wrong


def clamped(slots: Array, size: int) -> Array:
    return numpy.minimum(slots, size - 1)


@wrong("dispatch", "whose gradient takes _taken(dy.reshape(y.shape), index) as if a token without a slot has the last")
def gradient_of_dropped_tokens(x: Array, *, slots: Array, experts: int, capacity: int) -> Any:
    y, _ = TEXT["dispatch"](x, slots=slots, experts=experts, capacity=capacity)
    at = clamped(slots, experts * capacity)[..., None]

    def back(dy: Array) -> Array:
        rows = dy.reshape(*dy.shape[:-3], -1, dy.shape[-1])
        return numpy.take_along_axis(rows, at, axis=-2)

    return y, back


@wrong("dispatch", "in which it is as if a token in the last place of an expert has no slot")
def capacity_of_one_less(x: Array, *, slots: Array, experts: int, capacity: int) -> Any:
    size = experts * capacity
    fewer = numpy.where((slots < size) & (slots % capacity == capacity - 1), size, slots)
    return TEXT["dispatch"](x, slots=fewer, experts=experts, capacity=capacity)


@wrong("combine", "whose gradient reads taken as if a token without a slot has the last one")
def gate_gradient_of_dropped_tokens(z: Array, g: Array, *, slots: Array) -> Any:
    y, right = TEXT["combine"](z, g, slots=slots)
    rows = z.reshape(*z.shape[:-3], -1, z.shape[-1])
    taken = numpy.take_along_axis(rows, clamped(slots, rows.shape[-2])[..., None], axis=-2)
    return y, lambda dy: (right(dy)[0], (dy * taken).sum(axis=-1))


@wrong("combine", "in which it is as if numbers by place before expert are read as slots")
def places_before_experts(z: Array, g: Array, *, slots: Array) -> Any:
    turned = numpy.ascontiguousarray(z.swapaxes(-2, -3))
    y, right = TEXT["combine"](turned.reshape(z.shape), g, slots=slots)

    def back(dy: Array) -> Any:
        dz, dg = right(dy)
        return dz.reshape(turned.shape).swapaxes(-2, -3), dg

    return y, back


@pytest.mark.parametrize("name", KERNELS)
def test_a_slot_that_is_not_its_own_is_named(name: str) -> None:
    KERNELS.is_named(name)


def test_the_slots_of_others_are_those_of_the_words() -> None:
    slots, none = numpy.array([[0, 5, 6], [3, 6, 2]]), 12  # two texts of three experts with two places
    assert other_slots(slots, 6, 2, "last").tolist() == [[0, 5, 5], [9, 11, 8]]
    assert other_slots(slots, 6, 2, "last of all").tolist() == [[0, 5, 11], [9, 11, 8]]
    assert other_slots(slots, 6, 2, "next").tolist() == [[0, 5, 6], [9, 0, 8]]
    assert other_slots(slots, 6, 2, "less").tolist() == [[0, none, none], [none, none, 8]]
    assert other_slots(slots, 6, 2, "places first").tolist() == [[0, 5, none], [10, none, 7]]
    assert other_slots(slots, 6, 2, "experts first").tolist() == [[0, 5, none], [7, none, 10]]
