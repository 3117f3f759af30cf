"""Answers that are their truth times a number: what that is of what the cases have, and nothing where it is chance."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.adapter import Functions
from refllm.verify.case import Case
from refllm.verify.kernels import quantities
from refllm.verify.kernels.ratios import Scaled, fitting, said
from spec_tests.verify.kernels.test_diagnosis import told

UNIT = 2.0**-24
TEXT = plain.operations()


def has(**more: float) -> dict[str, float]:
    return {"targets that count": 19, "all targets": 21, "V": 65, "C": 40, "rate": 0.3, **more}


OTHER = has(**{"targets that count": 7, "all targets": 9, "V": 1000, "C": 96, "rate": 0.45})
FORMULAS: list[tuple[str, Any]] = [
    ("targets that count / all targets", lambda q: q["targets that count"] / q["all targets"]),
    ("all targets / V", lambda q: q["all targets"] / q["V"]),
    ("1 / √C", lambda q: 1 / math.sqrt(q["C"])),
    ("1 / (1 - rate)", lambda q: 1 / (1 - q["rate"])),
    ("V / (V - 1)", lambda q: q["V"] / (q["V"] - 1)),
    ("√(C / V)", lambda q: math.sqrt(q["C"] / q["V"])),
    ("1 / (V · C)", lambda q: 1 / (q["V"] * q["C"])),
]


@pytest.mark.parametrize(("words", "of"), FORMULAS)
def test_the_number_is_the_formula_that_holds_in_all_cases(words: str, of: Any) -> None:
    cases = [Scaled(of(q) * (1 + 8 * UNIT), q, 100) for q in (has(), OTHER)]
    found = fitting(cases, UNIT)
    assert found is not None
    assert found.words == words
    wrong = [cases[0], cases[1]._replace(factor=cases[1].factor * 1.001)]
    assert fitting(wrong, UNIT) is None


def test_what_a_number_of_counted_places_means_is_said() -> None:
    cases = [Scaled(q["targets that count"] / q["all targets"], q, 100) for q in (has(), OTHER)]
    assert said(cases, UNIT) == (
        "targets that count / all targets (19/21, 7/9): divided by all 21 targets instead of the 19 that count"
    )
    assert said([Scaled(19.0, has(), 9), Scaled(7.0, OTHER, 9)], UNIT).endswith(
        "not divided by the 19 targets that count"
    )


@given(st.floats(0.2, 5), st.floats(0.2, 5))
def test_numbers_of_chance_have_no_formula_in_bfloat16_nor_of_one_element(one: float, other: float) -> None:
    assert fitting([Scaled(one, has(), 1000)], 2.0**-8) is None
    assert fitting([Scaled(19 / 21, has(), 1)], UNIT) is None
    found = fitting([Scaled(one, has(), 1000), Scaled(other, OTHER, 1000)], UNIT)
    exact = {of(has()): of(OTHER) for _, of in FORMULAS}
    assert found is None or any(abs(one / a - 1) < 1e-4 and abs(other / b - 1) < 1e-4 for a, b in exact.items())


def test_what_counts_is_counted() -> None:
    how = {"targets": numpy.array([3, -1, 2]), "ignore": -1, "chosen": numpy.array([0, 5, 5]), "rate": 0.5}
    how["valid"] = numpy.array([[True, False, True, True]])
    case = Case("X/x", "X", "", "x", 1, "", (), {"x": numpy.zeros((4, 5))}, how)
    found = quantities.of(case)
    assert (found["targets that count"], found["all targets"]) == (2, 3)
    assert (found["different numbers in chosen"], found["numbers in chosen"], found["rate"]) == (2, 3, 0.5)
    assert [found[name] for name in quantities.counted(found)[1][:2]] == [3, 4]


def of_smoothed(logits: Array, *, targets: Array, ignore: int | None, **how: Any) -> Any:
    """The value is divided by all places, the gradient by those that count."""
    y, back = TEXT["smoothed_cross_entropy"](logits, targets=targets, ignore=ignore, **how)
    share = float((targets != ignore).mean()) if ignore is not None and how["reduction"] == "mean" else 1.0
    return numpy.asarray(y * share, logits.dtype), back


def of_balance(p: Array, *, chosen: Array, valid: Array) -> Any:
    """The gradient of each text is divided by all of its places."""
    y, back = TEXT["load_balance"](p, chosen=chosen, valid=valid)
    return y, lambda dy: (back(dy) * valid.mean(axis=-1)[:, None, None]).astype(p.dtype)


def of_rows(x: Array) -> Any:
    """The gradient is a mean over the rows, which it should not be."""
    y, back = TEXT["relu"](x)
    return y, lambda dy: (back(dy) / max(1, x.size // x.shape[-1])).astype(x.dtype)


@pytest.mark.parametrize(
    ("operation", "function", "words"),
    [
        ("smoothed_cross_entropy", of_smoothed, "divided by all places, ignored ones too, and whose gradient is not"),
        ("load_balance", of_balance, "whose gradient is divided by all places, not by those that count"),
        ("relu", of_rows, "gradient of x: the answer is the truth times 1 / rows ("),
    ],
)
def test_a_mean_of_other_places_is_named_as_it_is(operation: str, function: Any, words: str) -> None:
    found = told(Functions("mine", {operation: function}, {}, ("float64", "float32")), operation, "float32")
    lines = [line for result in found for line in result.diagnosis]
    assert found
    assert any(words in line for line in lines), lines


def test_a_gradient_without_what_the_pullback_was_called_with_is_the_truth_over_it() -> None:
    cases = [Scaled(1 / dy, has(dy=dy), 100) for dy in (-8.0, 0.375, 1.28)]
    assert said(cases, UNIT).startswith("1 / dy (")
    assert said(cases, UNIT).endswith(": dy is not multiplied")
    twice = [Scaled(dy, has(dy=dy), 100) for dy in (-8.0, 0.375, 1.28)]
    assert said(twice, UNIT).endswith(": dy is multiplied once more")


@pytest.mark.every
def test_a_loss_whose_gradient_forgets_dy_is_explained_by_that_in_all_cases() -> None:
    def cross_entropy(logits: Any, **how: Any) -> Any:
        loss, back = TEXT["cross_entropy"](logits, **how)
        forgets = how["reduction"] != "none"
        return loss, lambda dy: back(numpy.ones_like(dy) if forgets else dy)

    functions = {"cross_entropy": cross_entropy}
    found = told(Functions("mine", functions, {}, ("float64", "float32")), "cross_entropy", "float32", seconds=2)
    assert found
    for result in found:
        assert result.diagnosis[0].startswith("gradient of logits: the answer is the truth times 1 / dy (")
        assert result.diagnosis[0].endswith("dy is not multiplied")
