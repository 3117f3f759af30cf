"""Where nothing explains wrong answers to sized cases, their tiny cases are asked."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.verify.case import Case
from refllm.verify.checking import check
from refllm.verify.explanation import Elsewhere, causes_of
from refllm.verify.runner import Result
from refllm.verify.sized.beside import beside_tiny


def softmax(x: Any) -> Any:
    """Off in all of its numbers, by no rule."""
    e = numpy.exp(x - x.max(axis=-1, keepdims=True, initial=-numpy.inf))
    noise = numpy.random.default_rng(x.size).random(x.shape) if x.shape[-1] > softmax.above else 0  # type: ignore[attr-defined]
    return (e / e.sum(axis=-1, keepdims=True) * (1 + noise)).astype(x.dtype)


def lines(above: int) -> list[list[str]]:
    softmax.above = above  # type: ignore[attr-defined]
    found = check(
        softmax, dtype="float32", size="kernel", only="SMX/kernel-softmax-3x1025-normal", values=True, laws=False,
        search=1,
    )  # fmt: skip
    assert found.failures
    return [result.diagnosis for result in found.failures]


def test_that_the_tiny_cases_fail_as_well_is_said() -> None:
    for diagnosis in lines(above=0):
        assert "tiny cases fail as well (--size all shows them)" in diagnosis[1]


def test_that_the_tiny_cases_pass_is_said() -> None:
    for diagnosis in lines(above=100):
        assert diagnosis[1].endswith("tiny cases pass: it is wrong at larger sizes alone")


class Never:
    name, conventions = "never", dict[str, str]()

    def respond(self, case: Case, dtype: str) -> Any:
        pytest.fail(f"{case.id} was asked in {dtype}")


def test_nothing_is_asked_where_all_is_right() -> None:
    case = check(lambda x: x, "relu", only="FFN/relu-grid", search=0, laws=False).report.results[0].case
    right = [Result(case, "pass", "")]
    assert beside_tiny(Never(), right, [case], "float32", 8.0, 1.0, lambda *_: True) == right


def test_what_the_tiny_cases_name_is_no_explanation_of_the_sized_ones() -> None:
    line = Elsewhere.of("5 of its 9 tiny cases fail as well: equal to another", _Cause())  # type: ignore[arg-type]
    assert causes_of([line]) == set()


class _Cause:
    def __init__(self) -> None:
        self.diff = list[Any]()
