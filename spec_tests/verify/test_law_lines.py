"""What a report says of laws and of earlier calls: a line once, with how often; nothing of unknown mistakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy

from refllm.verify import check, corpus, runner
from refllm.verify.adapter import Functions
from refllm.verify.explaining import explained
from refllm.verify.explanation import ALONE


def test_a_law_that_is_broken_in_many_calls_is_said_once() -> None:
    def silu(x: Any) -> Any:
        s = 1 / (1 + numpy.exp(-x))

        def back(dy: Any) -> Any:
            dy *= s * (1 + x * (1 - s))
            return dy

        return x * s, back

    page = repr(check(silu, "silu", dtype="float32", size="kernel", search=0, only="FFN/kernel-silu-1025-normal"))
    assert page.count("the input dy is changed by the pullback") == 1
    assert "; the same in " in page


def test_a_failure_that_its_case_alone_does_not_have_is_said_to_come_of_an_earlier_call(golden: corpus.Corpus) -> None:
    def relu(x: Any) -> Any:
        return numpy.sqrt(numpy.abs(x)) * 0.77 + 0.1

    cases = [case.values_alone() for case in golden.cases.values() if case.operation == "relu"]
    results = list(runner.run(Functions("mine", {"relu": relu}, {}), cases, "float64", golden.C))
    left = [replace(result, alone=True) for result in results]
    found = [result for result in explained(left, "float64", golden.C, 0) if result.wrong]
    assert found
    for result in found:
        assert result.diagnosis[0] == ALONE
        assert not any(line.startswith("explained by no known mistake") for line in result.diagnosis)
