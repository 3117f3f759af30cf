"""A report is never lost for want of an explanation: a fault in looking for one is a line, and the verdicts stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from refllm.verify import check, reference, search
from refllm.verify.kernels.diagnosis import Recogniser

SAID = "no explanation: looking for one failed (ZeroDivisionError: planted). The verdicts stand."


def fails(*_: object, **__: object) -> object:
    raise ZeroDivisionError("planted\nand more")


def halved(x: Any) -> tuple[Any, Callable[[Any], tuple[None]]]:
    """With a pullback that gives nothing."""
    return reference.functions()["softmax"](x)[0] / 2, lambda dy: (None,)


def test_a_fault_in_the_search_costs_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "explained", fails)
    found = check(halved, "softmax")
    assert {line for result in found.failures for line in result.diagnosis} == {SAID}
    assert "softmax: " in repr(found)


@pytest.mark.parametrize("broken", ["look", "explained"])
def test_a_fault_in_recognising_a_kernels_mistake_costs_no_verdict(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recogniser, broken, fails)
    found = check(halved, "softmax", dtype="float32", size="kernel", only="SMX/kernel-softmax-5x31", laws=False)
    assert found.failures
    assert {line for result in found.failures for line in result.diagnosis} == {SAID}


def test_a_gradient_that_is_none_at_size_is_missing_and_the_value_is_judged() -> None:
    found = check(halved, "softmax", dtype="float32", size="kernel", only="SMX/kernel-softmax-5x31", laws=False)
    assert "is missing (None)" in repr(found)
    assert "looking for one failed" not in repr(found)
