"""The line below the first failure counts what it says: each wrong answer is explained by what is printed, or not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refllm.verify import corpus, mutants
from refllm.verify.explanation import ALONE, NOT_COMPARED, OF_CALLS, Elsewhere, Explanation
from refllm.verify.runner import Result
from refllm.verify.summary import summary

NOTHING = "explained by no known mistake of softmax"


@pytest.fixture(scope="module")
def five(golden: corpus.Corpus) -> list[Result]:
    cases = [case for case in golden.cases.values() if case.operation == "softmax"][:5]
    return [Result(case, "fail", "", diagnosis=[NOTHING]) for case in cases]


def known() -> Explanation:
    mutant = next(m for m in mutants.MUTANTS if m.id.startswith("SMX/") and m.diff)
    return Explanation.of(f"equal to {mutant.about} ({mutant.id})", mutant)


def test_where_nothing_is_explained_no_answer_is_counted_out(five: list[Result]) -> None:
    assert summary(five, five[0].diagnosis) == ["none of the 5 wrong answers is explained by a known mistake"]


def test_the_first_is_named_among_those_that_nothing_explains(five: list[Result]) -> None:
    results = [five[0], replace(five[1], diagnosis=[known()]), *five[2:]]
    one, other = summary(results, five[0].diagnosis)
    assert one.startswith("1 of 5 wrong answers are explained by ")
    ids = ", ".join(result.case.id for result in five[2:])
    assert other == f"4 of 5 wrong answers are explained by no known mistake, the first among them ({ids})"


def test_what_the_first_diagnosis_explains_is_not_among_the_unknown(five: list[Result]) -> None:
    results = [replace(five[0], diagnosis=[known()]), replace(five[1], diagnosis=[known()]), *five[2:]]
    [line] = summary(results, results[0].diagnosis)
    assert line.startswith("3 of 5 wrong answers are explained by no known mistake (")


@pytest.mark.parametrize("said", [ALONE, f"{OF_CALLS}: called a second time", "breaks a law, inputs unchanged, which"])
def test_what_is_said_without_a_mistake_is_said(five: list[Result], said: str) -> None:
    assert summary([replace(result, diagnosis=[said]) for result in five], [said]) == []
    [line] = summary([replace(five[0], diagnosis=[said]), *five[1:]], [said])
    assert line.startswith("4 of 5 wrong answers are explained by no known mistake (")


def test_what_is_seen_of_one_answer_is_not_said_of_the_others(five: list[Result]) -> None:
    results = [replace(r, diagnosis=[NOTHING, f"output y is 0.{n} times the truth"]) for n, r in enumerate(five, 1)]
    assert summary(results, results[0].diagnosis)[0].endswith("is explained by a known mistake")
    alike = [replace(r, diagnosis=[NOTHING, "output y is all zeros"]) for r in five[1:]]
    assert summary([five[0], *alike], five[0].diagnosis)[0].endswith("known mistake: output y is all zeros")


def test_answers_that_were_held_against_nothing_are_not_called_unexplained(five: list[Result]) -> None:
    assert summary([replace(result, diagnosis=[]) for result in five], []) == []


def test_answers_that_were_not_compared_are_counted_apart(five: list[Result]) -> None:
    results = [replace(five[0], diagnosis=[known()]), *(replace(r, diagnosis=[NOT_COMPARED]) for r in five[1:3])]
    [line] = summary(results, results[0].diagnosis)
    assert line.startswith("2 of 3 wrong answers were not compared")
    assert f"({five[1].case.id}, {five[2].case.id})" in line


def test_what_comes_near_explains_nothing(five: list[Result]) -> None:
    near = Elsewhere.of("nearly: another", known().cause)
    results = [replace(result, diagnosis=[NOTHING, near]) for result in five]
    assert summary(results, results[0].diagnosis)[0].startswith("none of the 5 wrong answers is explained")
