"""NaN that goes into a row and does not come out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.verify import check, reference
from refllm.verify.laws.swallowed import SWALLOWED

SILU = reference.functions()["silu"]


def nan_swallowed(x: Any) -> Any:
    """As fmaxf and a guard do it."""
    e = numpy.nan_to_num(numpy.exp(x - numpy.fmax.reduce(x, -1, keepdims=True)))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("operation", "function", "breaks"),
    [
        ("softmax", nan_swallowed, [True]),
        ("silu", lambda x: numpy.nan_to_num(SILU(x)[0]), [False]),
        ("silu", SILU, []),
    ],
)
def test_nan_that_comes_out_as_numbers_breaks_a_law_where_a_row_loses_it(
    operation: str, function: Callable[..., Any], breaks: list[bool]
) -> None:
    results = check(function, operation, values=True, search=0).report.results
    said = [law for result in results for law in result.laws if law.name == SWALLOWED]
    assert [law.broken for law in said] == breaks
    assert all("should be NaN, and none is" in law.message for law in said)
