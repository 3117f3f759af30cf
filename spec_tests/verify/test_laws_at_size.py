"""Laws at the sizes of kernels: a mistake that shows beyond one tile alone is found, and right functions break none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.numbers import plans
from refllm.verify import corpus, reference
from refllm.verify.adapter import Functions
from refllm.verify.laws.at_size import LEAST, held_at_size
from refllm.verify.runner import Result
from refllm.verify.sized import judge
from refllm.verify.sized.cases import SizedCase, load
from spec_tests.verify.folder import GOLDEN

RIGHT = reference.functions()["softmax"]
Function = Callable[..., Any]


@pytest.fixture(scope="module")
def cases() -> list[SizedCase]:
    """The smallest cases of softmax that are of a size."""
    found = [case for case in load(GOLDEN).values() if case.operation == "softmax" and not case.slow]
    found = [
        case for case in found if LEAST <= numpy.prod(next(iter(case.outputs.values()))) and len(case.outputs) == 1
    ]
    return sorted(found, key=lambda case: int(numpy.prod(next(iter(case.outputs.values())))))[:3]


def verified(function: Function, cases: list[SizedCase]) -> list[Result]:
    mine, plan = Functions("mine", {"softmax": function}, {}), plans.plan("eager", "float32")
    results = list(judge.run(mine, cases, "float32", plan))
    return list(held_at_size(mine, cases, results, "float32", plan, 1e3))


def second_call() -> Function:
    seen = set[bytes]()

    def softmax(x: Any) -> Any:
        y, back = RIGHT(x)
        known = x.tobytes() in seen
        seen.add(x.tobytes())
        y.reshape(-1)[900:] *= 1.25 if known else 1
        return y, back

    return softmax


def input_changed() -> Function:
    def softmax(x: Any) -> Any:
        found = RIGHT(x.copy())
        x.reshape(-1)[900:] = 0
        return found

    return softmax


def strides_beyond_a_tile() -> Function:
    def softmax(x: Any) -> Any:
        if not x.flags["C_CONTIGUOUS"] and x.size > 900:
            return RIGHT(numpy.zeros_like(x))
        return RIGHT(x)

    return softmax


def unwritten() -> Function:
    def softmax(x: Any) -> Any:
        y, back = RIGHT(x)
        scratch = numpy.empty_like(y)
        return (y if (numpy.abs(scratch) < 1e30).all() else y + scratch), back

    return softmax


@pytest.mark.parametrize(
    ("mistake", "law"),
    [
        (second_call, "a second call"), (input_changed, "inputs unchanged"),
        (strides_beyond_a_tile, "layout of memory"), (unwritten, "memory that was never written"),
    ],
)  # fmt: skip
def test_a_mistake_at_size_breaks_a_law(mistake: Callable[[], Function], law: str, cases: list[SizedCase]) -> None:
    results = verified(mistake(), cases)
    assert law in [each.name for result in results for each in result.broken]
    assert any(result.status == "law" for result in results)


def test_a_right_function_breaks_none_at_size(cases: list[SizedCase]) -> None:
    results = verified(RIGHT, cases)
    assert {result.status for result in results} == {"pass"}
    assert not any(result.broken for result in results)


def test_the_golden_files_are_those_of_the_tests(golden: corpus.Corpus, cases: list[SizedCase]) -> None:
    assert len(cases) == 3
    assert golden.folder == GOLDEN
