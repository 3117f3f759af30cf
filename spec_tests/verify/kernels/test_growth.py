"""An error that grows with an index is said to; one that is alike everywhere, or begins at a place, is not."""

from __future__ import annotations

import numpy
import pytest

from refllm.backend import Array
from refllm.verify.kernels.growth import growth

UNIT = 2.0**-24
GENERATOR = numpy.random.default_rng(3)
TRUTH = GENERATOR.normal(size=(3, 96, 40))
NOISE = GENERATOR.normal(size=TRUTH.shape)
INDEX = numpy.arange(96)[:, None]


def rotated_step_by_step(dtype: str) -> tuple[Array, Array]:
    """The powers of a rotation, each the one before turned once more."""
    angle, c = 0.3, numpy.ones((200, 64), "complex128")
    turn = numpy.exp(1j * angle * numpy.arange(1, 65) / 64).astype(dtype)
    for t in range(1, 200):
        c[t] = (c[t - 1].astype(dtype) * turn).astype(dtype)
    exact = numpy.exp(1j * angle * numpy.arange(200)[:, None] * numpy.arange(1, 65) / 64)
    return c.real, exact.real


def test_a_recurrence_in_single_precision_grows() -> None:
    said = growth("output y", *rotated_step_by_step("complex64"), UNIT)
    assert "output y: the error grows with the row: from " in said


@pytest.mark.parametrize(("axis", "name"), [(-2, "row"), (-1, "column")])
def test_the_axis_is_named(axis: int, name: str) -> None:
    index = numpy.moveaxis(numpy.arange(TRUTH.shape[axis]).reshape(-1, 1, 1), 0, axis)
    assert f"grows with the {name}:" in growth("output y", TRUTH * (1 + 1e-6 * NOISE * index), TRUTH, UNIT)


@pytest.mark.parametrize(
    "error",
    [
        1e-5 * NOISE,  # everywhere
        1e-4 * NOISE * (INDEX > 64),  # from a place on
        0.3 * NOISE * INDEX,  # no lost digits
        1e-5 * NOISE * (INDEX % 7),  # again and again
        1e-5 * NOISE[:, ::-1] * (96 - INDEX),  # it falls
    ],
)
def test_other_errors_do_not_grow(error: Array) -> None:
    assert growth("output y", TRUTH * (1 + error), TRUTH, UNIT) == ""
