"""A sample of a law's subjects is never empty, and of many laws together no subject is left out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from spec_tests.sampling import left_out


class Subject:
    """As much of a pytest item as is asked for."""

    def __init__(self, law: str, number: int, *marks: pytest.Mark) -> None:
        self.nodeid, self.number = f"spec_tests/test_x.py::{law}[{number}]", number
        self.marks = {mark.name: mark for mark in marks}

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return self.marks.get(name)


def law(name: str, count: int, *marks: Any) -> list[Any]:
    return [Subject(name, n, *(mark.mark for mark in marks)) for n in range(count)]


def test_every_kth_subject_is_taken_and_one_at_least() -> None:
    for count, k in itertools.product(range(1, 20), (1, 2, 3, 7)):
        subjects = law("a_law", count, pytest.mark.one_in(k))
        taken = [subject.number for subject in subjects if subject not in left_out(subjects)]
        assert taken
        assert count // k <= len(taken) <= -(-count // k)
        assert {b - a for a, b in itertools.pairwise(taken)} <= {k}


def test_of_many_laws_no_subject_is_left_out() -> None:
    laws = [law(f"law_{i}", 40, pytest.mark.one_in(3)) for i in range(12)]
    missing = left_out(subject for subjects in laws for subject in subjects)
    assert {s.number for subjects in laws for s in subjects if s not in missing} == set(range(40))


def test_what_is_not_sampled_and_what_is_skipped_anyway_stays() -> None:
    plain, slow = law("plain", 5), law("slow", 5, pytest.mark.one_in(2), pytest.mark.skip("slow"))
    assert left_out([*plain, *slow]) == set()


def test_what_is_marked_every_is_left_out_of_a_sample() -> None:
    plain, dear = law("plain", 2), law("dear", 2, pytest.mark.every)
    assert left_out([*plain, *dear]) == set(dear)
