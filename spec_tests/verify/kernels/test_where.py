"""A mistake that right answers contradict is named with the condition that tells the cases apart, or not as the
explanation; one with a number in it, with that number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.adapter import Functions
from refllm.verify.explanation import Elsewhere, Explanation, causes_of
from refllm.verify.runner import Result
from spec_tests.verify.kernels.test_diagnosis import told

TEXT = plain.operations()


def without_tail(loses: Callable[[Array, Array], bool]) -> Callable[..., Any]:
    """A product without the last places of the inner axis that are no whole part of 4, in some cases."""

    def matmul(x: Array, W: Array) -> Any:
        K = len(W) // 4 * 4 if loses(x, W) else len(W)
        return x[..., :K] @ W[:K], TEXT["matmul"](x, W)[1]

    return matmul


def found(operation: str, function: Callable[..., Any]) -> list[Result]:
    wrong = told(Functions("mine", {operation: function}, {}, ("float64", "float32")), operation, "float32")
    assert wrong
    return wrong


@pytest.mark.every
def test_where_a_condition_separates_the_cases_it_is_said_with_its_limits() -> None:
    for result in found("matmul", without_tail(lambda x, W: len(W) > 100)):
        line = result.diagnosis[0]
        assert "matmul/product-tail-of-long-lost), in the cases where I > " in line
        assert "some of the cases" not in line


@pytest.mark.every
def test_where_none_separates_them_the_mistake_stands_below_and_explains_nothing() -> None:
    results = found("matmul", without_tail(lambda x, W: (x.size * 7 + W.size) % 5 < 2))
    for result in results:
        assert not causes_of(result.diagnosis), result.diagnosis
    lines = [line for result in results for line in result.diagnosis if isinstance(line, Elsewhere)]
    assert lines
    assert all(line.startswith("nearly: ") and "right answer" in line for line in lines)


def sorted_blocks(size: int) -> Callable[..., Any]:
    """The gradient of a table, sorted, in which a row over the border of two blocks keeps its last part alone."""

    def embedding(E: Array, *, ids: Array) -> Any:
        def back(dy: Array) -> Array:
            flat, given, dE = ids.reshape(-1), dy.reshape(-1, E.shape[-1]), numpy.zeros_like(E)
            order = numpy.argsort(flat, kind="stable")
            for begin in range(0, len(order), size):
                part = order[begin : begin + size]
                rows, starts = numpy.unique(flat[part], return_index=True)
                dE[rows] = numpy.add.reduceat(given[part], starts, axis=0)
            return dE

        return E[ids], back

    return embedding


@pytest.mark.every
@pytest.mark.parametrize("size", [64, 512])
def test_the_number_in_a_mistake_is_that_of_the_answers(size: int) -> None:
    for result in found("embedding", sorted_blocks(size)):
        [line] = result.diagnosis
        assert isinstance(line, Explanation)
        assert f"two blocks of {size} keeps" in line
        assert ", all of row" not in line
