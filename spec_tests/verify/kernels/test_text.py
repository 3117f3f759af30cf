"""The text with loops is the plain text: it passes the sized cases of its operations."""

from __future__ import annotations

import pytest

from refllm.numbers import plans
from refllm.verify import corpus
from refllm.verify.kernels.bank import MODULES, OPERATIONS, implementation
from refllm.verify.sized import cases, judge
from refllm.verify.sized.work import work

KNOWN = sorted(cases.load(corpus.folder(None)).values(), key=work)
FEW = 3  # cases of each operation without --slow


def wrong(operation: str, dtype: str, most: int | None) -> dict[str, list[str]]:
    chosen = [case for case in KNOWN if case.operation == operation and not case.slow][:most]
    assert chosen
    found = judge.run(implementation(), chosen, dtype, plans.plan("eager", dtype))
    return {r.case.id: [r.reason, *(v.message for v in r.verdicts if v.wrong)] for r in found if r.status != "pass"}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_text_with_loops_passes_small_cases(operation: str) -> None:
    assert wrong(operation, "float32", FEW) == {}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_text_with_loops_passes_all_cases(operation: str, dtype: str) -> None:
    assert wrong(operation, dtype, None) == {}


def test_every_operation_is_of_one_module() -> None:
    assert {f.__module__ for f in OPERATIONS.values()} == {module.__name__ for module in MODULES}
