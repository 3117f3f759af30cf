"""Whether a tensor is that of a mistake: what overflows in float32 alone, and errors that are the same or as large."""

from __future__ import annotations

import numpy
import pytest

from refllm.backend import Array
from refllm.numbers import plans
from refllm.verify.kernels.machine import narrow
from refllm.verify.kernels.matching import Given, bits_left, way
from refllm.verify.sized.evaluate import Expected

GENERATOR = numpy.random.default_rng(0)
TRUTH = GENERATOR.normal(size=(16, 32))
PLAN = plans.plan("eager", "float32")


def given(y: Array, truth: Array = TRUTH) -> Given:
    expected = Expected(truth, abs(truth) * 2.0**-24)
    return Given({"outputs.y": y.astype("float32")}, lambda _: expected, "float32", PLAN)


def test_a_number_that_overflows_in_float32_alone_is_no_number_there() -> None:
    """e^z / (1 + e^z) is NaN above 89 in float32, and above 710 in float64."""
    z = GENERATOR.uniform(-80, 400, (8, 32))
    truth, large = 1 / (1 + numpy.exp(-z)), z > 89
    single = numpy.where(large, numpy.nan, truth)
    assert way(given(single, truth), "outputs.y", truth, lambda _: single)
    assert not way(given(numpy.where(large, 7.0, truth), truth), "outputs.y", truth, lambda _: single)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "tf32"])
def test_the_same_roundings_are_told_from_others_as_large(dtype: str) -> None:
    rounded = narrow(TRUTH, dtype)
    others = TRUTH + (rounded - TRUTH)[GENERATOR.permutation(16)]
    found = [
        way(given(y), "outputs.y", rounded * (1 + 2.0**-40), lambda _: rounded, narrows=True) for y in (rounded, others)
    ]
    assert found[0] in ("equal", "roundings")
    assert found[1] in ("digits", "")


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", 8), ("float16", 11)])
def test_the_bits_that_are_left_are_those_of_the_type(dtype: str, bits: int) -> None:
    assert round(bits_left(narrow(TRUTH, dtype), TRUTH)) == bits


@pytest.mark.parametrize("lost", [numpy.nan, numpy.inf, -numpy.inf])
@pytest.mark.parametrize("number", [0.0, 1e-22, 7.0])
def test_no_number_is_equal_to_none(lost: float, number: float) -> None:
    """What a mistake makes NaN or infinite is no finite number, and the other way round, wherever the rest fits."""
    mistake = numpy.where(numpy.arange(32) % 2, TRUTH * 1.5, TRUTH)
    one, other = (numpy.where(numpy.arange(32) % 5, mistake, x) for x in (lost, number))
    assert not way(given(other), "outputs.y", one, lambda _: one)
    assert not way(given(one), "outputs.y", other, lambda _: other)
    assert way(given(one), "outputs.y", one, lambda _: one) == "equal"
