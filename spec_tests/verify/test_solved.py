"""A number of the text that is another one is found from the answer, and told if it is one that people write."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from refllm.verify import plain, solved
from refllm.verify.runner import Result
from spec_tests.verify.test_search import results


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (3.0, "3"), (0.07, "0.07"), (0.0447, "0.0447"), (math.sqrt(2), "sqrt(2)"), (-math.sqrt(0.5), "-sqrt(1 / 2)"),
        (2 / 3, "(2 / 3)"), (2 * math.pi, "(2 * pi())"), (1.0 / 7, "(1 / 7)"),
    ],
)  # fmt: skip
def test_a_number_is_written_as_people_write_it(number: float, words: str) -> None:
    assert solved.written(number) == words
    known = {"sqrt": math.sqrt, "pi": lambda: math.pi}
    assert eval(words, known) == pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize("number", [0.0, math.inf, math.nan, 0.123456789, math.e, 17.0 / 31])
def test_a_number_that_nobody_writes_is_none(number: float) -> None:
    assert solved.written(number) is None


def test_fewer_digits_are_told_where_the_answer_has_fewer() -> None:
    assert solved.written(0.0447) == "0.0447"
    assert solved.written(0.0447, "float32") is None
    assert solved.written(0.07 * (1 + 1e-6), "float32") == "0.07"


def _scaled(number: float) -> Result:
    def mistaken(**how: Any) -> Any:
        frequencies, _ = plain.operations()["yarn_frequencies"](**how)
        return frequencies, np.array(1 + number * math.log(max(how["factor"], 1.0)))

    return next(result for result in results("yarn_frequencies", mistaken) if result.wrong)


def _told(number: float) -> list[str]:
    found = solved.numbers_solved(_scaled(number), [plain.text()["yarn_frequencies"]], values=True, dtype="float64")
    return [line for edit in found for line in edit.diff() if line.startswith("+")]


def test_the_number_that_was_taken_is_found() -> None:
    assert any("* 0.07" in line for line in _told(0.07))
    assert any("/ 8" in line or "* 0.125" in line for line in _told(0.125))


def test_a_number_that_nobody_writes_is_not_told() -> None:
    assert not any("log(max(factor, 1.0)) *" in line for line in _told(0.0712345678))
