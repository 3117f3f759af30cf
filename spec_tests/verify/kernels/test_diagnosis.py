"""A wrong answer to sized cases is named by the mistake whose answer it is, and by no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.numbers import plans
from refllm.verify import corpus
from refllm.verify.adapter import Functions
from refllm.verify.explanation import Explanation
from refllm.verify.kernels import bank
from refllm.verify.kernels.mistakes import MISTAKES
from refllm.verify.runner import Implementation, Result
from refllm.verify.sized import cases, judge
from refllm.verify.sized.recognised import Recognised
from refllm.verify.sized.work import work

KNOWN = sorted(cases.load(corpus.folder(None)).values(), key=work)
SMALL, LARGEST = 60_000, 700_000  # the work of cases that are asked
SEARCHED = ["softmax/tail-not-summed", "layer_norm/unbiased", "embedding/tail-lost", "matmul/bfloat16-accumulator"]


def told(implementation: Implementation, operation: str, dtype: str, seconds: float = 20) -> list[Result]:
    most = LARGEST if operation.endswith("attention") else SMALL
    chosen = [case for case in KNOWN if case.operation == operation and work(case) < most]
    plan = plans.plan("eager", dtype)
    watched = Recognised(dtype, plan, seconds)
    found = list(judge.run(implementation, chosen, dtype, plan, seen=watched.look))
    return [result for result in watched.explained(found) if result.wrong]


@pytest.mark.one_in(8)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", SEARCHED)
def test_a_mistake_of_the_bank_is_named_with_its_lines(name: str, dtype: str) -> None:
    mistake = next(m for m in MISTAKES if m.id == name)
    found = told(bank.implementation(mistake), mistake.operation, dtype)
    assert found
    assert all(f"({name})" in line for result in found for line in result.diagnosis)
    assert any(result.diagnosis for result in found)


def test_a_mistake_in_larger_blocks_is_named_with_their_size() -> None:
    mistake = next(m for m in MISTAKES if m.id == "softmax/no-rescale")
    found = told(bank.implementation(mistake, BLOCK=64), "softmax", "float32")
    assert any("with blocks of 64 (softmax/no-rescale)" in line for result in found for line in result.diagnosis)


def with_noise(x: Any) -> Any:
    e = numpy.exp(x - x.max(axis=-1, keepdims=True, initial=-numpy.inf))
    generator = numpy.random.default_rng(x.size)
    return (e / e.sum(axis=-1, keepdims=True) * (1 + 0.5 * generator.random(x.shape))).astype(x.dtype)


def zeros(x: Any) -> Any:
    return numpy.zeros_like(x)


@pytest.mark.parametrize("function", [with_noise, zeros])
def test_what_is_no_known_mistake_is_not_named(function: Callable[..., Any]) -> None:
    found = told(Functions("mine", {"softmax": function}, {}, ("float64", "float32")), "softmax", "float32")
    assert found
    assert [line for result in found for line in result.diagnosis if isinstance(line, Explanation)] == []
    looked_at = [result.diagnosis for result in found if result.diagnosis]
    assert looked_at
    assert all(lines[0].startswith("explained by no known mistake") for lines in looked_at)


@pytest.mark.every
def test_a_small_number_is_not_taken_for_one_that_is_none() -> None:
    """Masked places of 1e-22: mistakes that make NaN of them say nothing of it."""

    def softmax(x: Any) -> Any:
        y = bank.OPERATIONS["softmax"](x)[0]
        return numpy.where(numpy.isneginf(x), 1e-22, y).astype(x.dtype)

    found = told(Functions("mine", {"softmax": softmax}, {}, ("float64", "float32")), "softmax", "float32")
    assert found
    assert not any("NaN" in line for result in found for line in result.diagnosis)


def test_no_time_is_no_explanation() -> None:
    mistake = next(m for m in MISTAKES if m.id == "layer_norm/unbiased")
    found = told(bank.implementation(mistake), "layer_norm", "float32", seconds=0)
    assert found
    assert [line for result in found for line in result.diagnosis] == []


def test_a_right_implementation_loads_no_bank() -> None:
    watched = Recognised("float32", plans.plan("eager", "float32"), 10)
    few = [case for case in KNOWN if case.operation == "softmax"][:3]
    list(judge.run(bank.implementation(), few, "float32", plans.plan("eager", "float32"), seen=watched.look))
    assert watched._recogniser is None


@pytest.mark.every
def test_what_nothing_explains_is_said_to_be_wrong_where_one_condition_holds() -> None:
    """Softmax that is off, without a pattern, in rows of more than 100 numbers alone."""

    def softmax(x: Any) -> Any:
        right = bank.OPERATIONS["softmax"](x)
        return (with_noise(x), right[1]) if x.shape[-1] > 100 else right

    found = told(Functions("mine", {"softmax": softmax}, {}, ("float64", "float32")), "softmax", "float32", seconds=2)
    assert found
    said = [line for result in found for line in result.diagnosis]
    assert any(line.startswith("wrong in the cases where N > ") and "and in no others" in line for line in said), said
