"""How near decisions are to a tie, from what the plain text names: the margins of the golden files."""

from __future__ import annotations

import pytest

from golden import margins
from refllm.numbers import exact
from refllm.verify.case import Case
from spec_tests.spec import exactly
from spec_tests.spec.composed import TEXT, cases, golden

DECIDED = [parameters for parameters in cases(2, 3, 4, 5) if golden().cases[str(parameters.id)].margin is not None]


@pytest.mark.parametrize("case", DECIDED)
def test_the_margins_of_all_decisions_are_in_what_the_text_names(case: Case) -> None:
    with exact.digits(exactly.DIGITS):
        found = exactly.evaluate(case, TEXT[case.operation])
        inputs = [exact.lift(x) for x in case.arguments("float64")]
        outputs = list(found.outputs.values())
        assert float(margins.margin(case.operation, inputs, case.keywords, outputs, found.taps)) == case.margin


def test_most_cases_that_decide_are_looked_at() -> None:
    assert len(DECIDED) > 60
