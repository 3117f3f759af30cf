"""An edit of the plain text is searched for wrong answers to sized cases that no listed mistake explains."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.verify.adapter import Functions
from refllm.verify.explanation import Explanation
from refllm.verify.kernels.searched import BySearch
from spec_tests.verify.kernels.test_diagnosis import told


def adamw_with(exponent: int) -> Any:
    """AdamW as the text has it, whose second moment is corrected as at another step."""

    def adamw(p: Any, g: Any, m: Any, v: Any, *, lr: float, beta1: float, beta2: float, eps: float, decay: float,
              step: int) -> Any:  # fmt: skip
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        direction = (m / (1 - beta1**step)) / (numpy.sqrt(v / (1 - beta2 ** (step + exponent))) + eps)
        return p - lr * decay * p - lr * direction, m, v

    return adamw


def lines(function: Any, operation: str, seconds: float = 20) -> list[str]:
    found = told(Functions("mine", {operation: function}, {}, ("float64", "float32")), operation, "float32", seconds)
    assert found
    return [line for result in found for line in result.diagnosis]


@pytest.mark.every
def test_one_edit_of_the_text_that_no_list_has_is_named_with_its_lines() -> None:
    found = lines(adamw_with(1), "adamw")
    assert found
    for line in found:
        assert isinstance(line, Explanation)
        assert isinstance(line.cause, BySearch)
        assert "found by search, no listed mistake" in line
        assert any("step + 1" in each for _, pair in line.diff for each in pair)
