"""How near decisions are to a tie: the margins of the golden files are in what the plain text names.

`require_golden` compares them, case by case, where the text is evaluated on exact numbers (spec/test_composed.py).
"""

from __future__ import annotations

import dataclasses

import pytest

from spec_tests.spec.composed import cases, golden, require_golden, work

DECIDED = [parameters for parameters in cases(2, 3, 4, 5) if golden().cases[str(parameters.id)].margin is not None]


def test_most_cases_that_decide_are_looked_at() -> None:
    assert len(DECIDED) > 60


def test_another_margin_is_noticed() -> None:
    decided = min((golden().cases[str(each.id)] for each in DECIDED), key=work)
    assert decided.margin is not None
    with pytest.raises(AssertionError):
        require_golden(dataclasses.replace(decided, margin=decided.margin * (1 + 2**-52)))
