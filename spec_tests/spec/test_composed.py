"""Blocks, models, losses, training and generation of the plain text: on exact numbers they give the golden values, and
their hand-written pullbacks the gradient; on floats they are near the truth and keep the dtype."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.numbers import exact, nodes
from refllm.parameters import named_leaves
from refllm.verify import runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Case
from spec_tests.spec import exactly
from spec_tests.spec.composed import TEXT, cases, golden, require_golden, structure


def test_the_text_composes_everything_that_the_golden_files_ask_for() -> None:
    wanted = {case.operation for case in golden().cases.values() if case.level >= 2}
    assert wanted - TEXT.keys() == {"resume"}  # a law of files, not a formula


@pytest.mark.one_in(18)
@pytest.mark.parametrize("case", cases(2))
def test_a_block_and_its_pullback_are_exact(case: Case) -> None:
    require_golden(case)


@pytest.mark.one_in(16)
@pytest.mark.parametrize("case", cases(3))
def test_a_model_its_loss_and_their_pullbacks_are_exact(case: Case) -> None:
    require_golden(case)


@pytest.mark.parametrize("case", cases(4))
def test_a_trace_of_training_is_exact(case: Case) -> None:
    require_golden(case)


@pytest.mark.one_in(8)
@pytest.mark.parametrize("case", cases(5))
def test_what_is_generated_is_exact(case: Case) -> None:
    require_golden(case)


@pytest.mark.parametrize("case", cases(7))
def test_what_a_rank_computes_is_exact(case: Case) -> None:
    require_golden(case)


@pytest.mark.parametrize("case", [*cases(2), *cases(3), *(param for param in cases(7) if param.values[0].gradients)])
def test_a_pullback_gives_every_parameter_its_gradient_and_nothing_else(case: Case) -> None:
    arguments = case.arguments("float32")
    y, back = TEXT[case.operation](*arguments, **case.keyword_arguments())
    cotangents = case.pull("float32") if case.cotangents else [numpy.ones_like(x) for x in outputs(y)]
    gradients = back(*cotangents)
    by_argument = list(gradients) if isinstance(gradients, tuple) else [gradients]
    assert structure(by_argument) == structure(arguments)
    assert {leaf.dtype for _, leaf in named_leaves([*outputs(y), *by_argument])} == {numpy.dtype("float32")}


def outputs(y: Any) -> tuple[Any, ...]:
    return y if isinstance(y, tuple) else (y,)


@pytest.mark.one_in(8)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "operation", sorted({c.operation for c in golden().cases.values() if c.level in (2, 3, 4, 5, 7)})
)
def test_on_floats_the_text_keeps_the_dtype_and_is_near_the_truth(operation: str, dtype: str) -> None:
    subject, C = Functions("the text", TEXT, {}), golden().C
    own = [case for case in golden().cases.values() if case.operation == operation]
    for result in runner.run(subject, own, dtype, C):
        assert result.status in ("pass", "skip"), (result.case.id, result.reason, result.verdicts)


def test_every_number_of_a_training_step_has_a_condition() -> None:
    """The gradient of the keys' bias is zero, and the root of its square in Adam is no reason for an infinite one."""
    case = golden().cases["ADAMW/step-1"]
    with exact.digits(exactly.DIGITS):
        found = exactly.evaluate(case, TEXT[case.operation])
        numbers = [n for x in found.outputs.values() for n in x.nodes.flat]
        assert numpy.isfinite(nodes.conditions(numbers)).all()
