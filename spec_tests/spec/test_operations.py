"""The operations of the plain text: on exact numbers they give the golden values, and their pullbacks the gradient."""

from __future__ import annotations

import functools

import numpy
import pytest

from refllm import spec
from refllm.numbers import exact
from refllm.verify import corpus, keywords, runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Case
from spec_tests.spec import exactly

OPERATIONS = keywords.as_golden(spec.operations())
LARGE = 250


@functools.cache
def golden() -> corpus.Corpus:
    return corpus.load(corpus.folder(None))


@functools.cache
def cases() -> dict[str, list[Case]]:
    """The cases of level 1, by operation."""
    found: dict[str, list[Case]] = {}
    for case in golden().cases.values():
        if case.level == 1:
            found.setdefault(case.operation, []).append(case)
    return found


def test_the_text_has_every_operation_of_the_golden_files() -> None:
    assert set(cases()) - set(OPERATIONS) == set()


def numbers(case: Case) -> int:
    """How many a case takes and gives, the scores of attention among them."""
    held = [*case.inputs.values(), *(truth.value for truth in [*case.outputs.values(), *case.taps.values()])]
    return int(sum(x.size for x in held))


@pytest.mark.one_in(8)
@pytest.mark.parametrize("operation", sorted(cases()))
def test_the_pullback_by_hand_is_the_exact_gradient(operation: str) -> None:
    for case in cases()[operation]:
        if numbers(case) <= LARGE:
            require_exact(operation, case)


def test_most_cases_are_not_large_and_some_are_of_every_operation() -> None:
    small = {operation: [case for case in own if numbers(case) <= LARGE] for operation, own in cases().items()}
    assert all(small.values())
    assert sum(map(len, small.values())) > 0.95 * sum(map(len, cases().values()))


@pytest.mark.slow
@pytest.mark.parametrize("operation", sorted(cases()))
def test_the_pullback_by_hand_is_the_exact_gradient_in_large_cases(operation: str) -> None:
    for case in cases()[operation]:
        if numbers(case) > LARGE:
            require_exact(operation, case)


def require_exact(operation: str, case: Case) -> None:
    """To 300 digits, and value and gradient are the very doubles of the golden file."""
    with exact.digits(exactly.DIGITS):
        found = exactly.evaluate(case, OPERATIONS[operation])
        for name, truth in case.outputs.items():
            numpy.testing.assert_array_equal(exactly.rounded(found.outputs[name]), truth.value, case.id)
        for name, gradient in found.by_hand.items():
            assert exactly.furthest(gradient, found.by_tape[name]) < -300, (case.id, name)
            numpy.testing.assert_array_equal(exactly.rounded(gradient), case.gradients[name].value, case.id)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("operation", sorted(cases()))
def test_on_floats_the_text_keeps_the_dtype_and_is_near_the_truth(operation: str, dtype: str) -> None:
    subject, C = Functions("the text", OPERATIONS, {}), golden().C
    for result in runner.run(subject, cases()[operation], dtype, C):
        # the text may give back what it was given, as clipping does below the limit: that is a law of fast code
        assert result.status in ("pass", "skip", "law"), (result.case.id, result.reason, result.verdicts)
