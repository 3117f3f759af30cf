"""What is said of a wrong tensor that no known mistake explains: where its numbers come from, and where they begin."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import tolerance
from refllm.verify.kernels.ratios import Scaled
from refllm.verify.kernels.relations import factors, relations, said_of_factors

UNIT = 2.0**-24
GENERATOR = numpy.random.default_rng(0)
TRUTH = GENERATOR.normal(size=(64, 33))
X = GENERATOR.normal(size=(64, 33))


def said(y: Array, truth: Array = TRUTH, **inputs: Array) -> str:
    case: Any = SimpleNamespace(operation="matmul", inputs=inputs or {"x": X}, keywords={}, outputs={}, cotangents={})
    wrong = ~numpy.isclose(y, truth, rtol=1e-7, atol=1e-12)
    return "; ".join(relations(case, "outputs.y", y.astype("float32"), truth, wrong))


def changed(rows: slice, values: Any) -> Array:
    y = TRUTH.copy()
    y[rows] = values
    return y


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (TRUTH / numpy.log(2), "1.4427 times the truth (1 / ln 2)"),
        (TRUTH * 0.3, "0.3 times the truth"),
        (TRUTH + 0.5, "0.5 more"),
        (TRUTH * 3 - 0.25, "3 times the truth and -0.25 more"),
        (changed(slice(32, 64), 0), "every wrong element is 0"),
        (changed(slice(32, 64), numpy.nan), "is NaN"),
        (changed(slice(32, 64), X[32:]), "that of the input x: not renewed"),
        (numpy.roll(TRUTH, 1, axis=0), "wrong rows hold what belongs into the row 1 before them"),
        (changed(slice(5, 9), TRUTH[0]), "wrong rows hold what belongs into row 0"),
        (changed(slice(5, 6), TRUTH[4]), "row 5 holds what belongs into row 4"),
        (changed(slice(32, 64), 0), "the first wrong index of axis 0 is 32 of 64"),
        (TRUTH * (1 + numpy.arange(64)[:, None] / 9), "times a number of its own"),
    ],
)
def test_the_relation_of_wrong_numbers_to_right_ones_is_said(y: Array, words: str) -> None:
    assert words in said(y)


def test_an_error_that_is_a_function_of_the_number_is_called_an_approximation() -> None:
    x = numpy.tile(numpy.linspace(-3, 3, 33), (8, 1))
    assert "a function of the number alone" in said(numpy.tanh(x) + 0.01 * numpy.sin(x) ** 2, numpy.tanh(x), x=x)


@pytest.mark.parametrize("rows", [slice(8, 64), slice(0, 3), slice(0, 57), slice(21, 40)])
def test_where_wrong_rows_begin_and_end_is_said_at_borders_of_tiles_alone(rows: slice) -> None:
    y = TRUTH.copy()
    y[rows] += GENERATOR.normal(size=y[rows].shape)
    assert "wrong index" not in said(y)
    y[32:] += GENERATOR.normal(size=y[32:].shape)
    y[:32] = TRUTH[:32]
    assert "the first wrong index of axis 0 is 32 of 64" in said(y)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_row_that_loses_digits_is_no_other_row_even_in_a_narrow_dtype(dtype: str) -> None:
    truth = X[0] + 0.05 * TRUTH  # rows that are alike, as those that average over many keys
    y = truth.copy()
    y[::9] += 8 * tolerance.UNIT[dtype] * GENERATOR.normal(size=y[::9].shape)
    case: Any = SimpleNamespace(operation="matmul", inputs={"x": X}, keywords={}, outputs={}, cotangents={})
    found = relations(case, "outputs.y", y.astype("float32"), truth, y != truth, tolerance.UNIT[dtype])
    assert not [line for line in found if "what belongs" in line]
    y[20:26] = truth[0]
    found = relations(case, "outputs.y", y.astype("float32"), truth, y != truth, tolerance.UNIT[dtype])
    assert [line for line in found if "what belongs" in line]


def test_noise_has_no_relation() -> None:
    assert said(TRUTH + GENERATOR.normal(size=TRUTH.shape)) == ""


def test_rows_that_are_multiples_of_one_row_are_not_said_to_be_multiples_of_their_truth() -> None:
    """So is the gradient of keys that one query attends, whatever is wrong with it."""
    weights, query = GENERATOR.normal(size=(2, 64, 1)), GENERATOR.normal(size=33)
    assert "times a number of its own" not in said(weights[0] * query, weights[1] * query)


def noted(found: dict[str, tuple[float, int]]) -> dict[str, Scaled]:
    return {name: Scaled(factor, {"rows": 7, "V": 65}, elements) for name, (factor, elements) in found.items()}


def test_factors_that_differ_between_cases_are_said_together() -> None:
    wrong = {"outputs.y": numpy.ones(TRUTH.shape, bool)}
    found = [noted(factors(wrong, {"outputs.y": TRUTH * f}, lambda _: TRUTH, UNIT)) for f in (0.9, 0.95, 0.9)]
    noise = noted(factors(wrong, {"outputs.y": TRUTH + GENERATOR.normal(size=TRUTH.shape)}, lambda _: TRUTH, UNIT))
    assert noise == {}
    [line] = said_of_factors([*found, noise], UNIT)
    assert line == "output y: in 3 of 4 cases that were compared the answer is the truth times a number, 0.9, 0.9, 0.95"
    assert said_of_factors([found[0], found[2]], UNIT) == []
