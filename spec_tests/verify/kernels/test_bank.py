"""The bank of mistakes of kernels: every one is there once, runs, and gets a sized case wrong."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from refllm.numbers import plans
from refllm.verify import corpus
from refllm.verify.kernels import softmaxes, table
from refllm.verify.kernels.bank import OPERATIONS, Mistake, exchanged
from refllm.verify.kernels.mistakes import MISTAKES
from refllm.verify.mutants.bank import edit
from refllm.verify.sized import cases
from refllm.verify.sized.work import work
from spec_tests.verify.kernels.lost_digits import LOST_DIGITS

KNOWN = list(cases.load(corpus.folder(None)).values())
SOFTMAX = softmaxes.softmax
REPORT = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+")
FEW = 4  # mistakes of each operation that are tried without --slow


def deaths(operation: str, dtype: str, most: int | None, plan: str = "eager") -> list[table.Death]:
    bank = [m for m in MISTAKES if m.operation == operation][:most]
    chosen = [case for case in KNOWN if case.operation == operation and not case.slow]
    return table.measure(chosen, plans.plan(plan, dtype), bank)


def test_mistakes_have_names_of_their_own_and_operations_of_the_text() -> None:
    assert [name for name, count in Counter(m.id for m in MISTAKES).items() if count > 1] == []
    assert {m.operation for m in MISTAKES} == set(OPERATIONS)
    assert [m.id for m in MISTAKES if not m.reaches(m.operation)] == []
    assert len(MISTAKES) >= 80


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.id)
def test_a_mistake_is_python_and_its_report_is_public(mistake: Mistake) -> None:
    assert mistake.functions
    assert all(lines for _, lines in mistake.diff)
    assert mistake.issue is None or REPORT.fullmatch(mistake.issue)


@pytest.mark.one_in(18)
@pytest.mark.parametrize("operation", table.KNOWN)
def test_some_mistakes_of_every_operation_die(operation: str) -> None:
    found = deaths(operation, "float32", FEW)
    assert table.survivors(found) == []
    assert [d.mistake.id for d in found if " raised " in d.said] == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("operation", table.KNOWN)
def test_every_mistake_dies(operation: str, dtype: str) -> None:
    found = deaths(operation, dtype, None)
    assert len(found) == sum(m.operation == operation for m in MISTAKES)
    assert table.survivors(found) == []
    assert [d.mistake.id for d in found if " raised " in d.said] == []


@pytest.mark.slow
@pytest.mark.parametrize("plan", list(LOST_DIGITS))
@pytest.mark.parametrize("operation", table.KNOWN)
def test_in_bfloat16_every_mistake_dies_that_loses_more_than_its_digits(operation: str, plan: str) -> None:
    found = deaths(operation, "bfloat16", None, plan)
    assert set(table.survivors(found)) == {id for id in LOST_DIGITS[plan] if id.partition("/")[0] == operation}
    assert [d.mistake.id for d in found if " raised " in d.said] == []


def test_rotary_angles_in_float32_fail_at_far_positions_in_every_precision() -> None:
    [far] = [case for case in KNOWN if case.id == "LONG/kernel-rotary-halves-1x7x256-at-131071"]
    bank = [m for m in MISTAKES if m.id == "rotary_halves/float32-angles"]
    for dtype in table.DTYPES:
        assert [death.case for death in table.killed(far, plans.plan("eager", dtype), bank)] == [far.id]


def test_a_change_that_is_no_mistake_survives() -> None:
    same = Mistake("softmax/none", "softmax", edit(SOFTMAX, "shift, Z = online(rows)", "shift, Z = online(rows + 0)"))
    few = [case for case in KNOWN if case.operation == "softmax" and work(case) < 10_000]
    plan = plans.plan("eager", "float32")
    assert table.survivors(table.measure(few, plan, [same])) == ["softmax/none"]
    assert "SURVIVES" in table.as_text(table.measure(few, plan, [same]))


def test_the_text_is_itself_again_after_a_mistake() -> None:
    mistake = next(m for m in MISTAKES if m.id == "softmax/no-rescale")
    [original] = mistake.functions
    with exchanged(mistake.functions):
        assert softmaxes.online is not original
    assert softmaxes.online is original
