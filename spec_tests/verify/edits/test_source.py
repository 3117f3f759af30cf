"""Two changes of one source: beside each other, one within the other, or none of both."""

from __future__ import annotations

import pytest

from refllm.verify.edits.source import Changes, changed, is_atom, tight, together

SOURCE = "r = 1 / sqrt(mean(c * c) + eps)"


def change(old: str, new: str) -> Changes:
    first = SOURCE.index(old)
    return ((first, first + len(old), new),)


OUTSIDE = change("sqrt(mean(c * c) + eps)", "(sqrt(mean(c * c)) + eps)")
WITHIN = change("mean(c * c)", "(total(c * c) / (n - 1))")


@pytest.mark.parametrize("order", [1, -1])
def test_an_edit_within_another_is_made_in_its_words(order: int) -> None:
    both = together(SOURCE, *(OUTSIDE, WITHIN)[::order])
    assert both is not None
    assert changed(SOURCE, both) == "r = 1 / (sqrt((total(c * c) / (n - 1))) + eps)"


def test_edits_apart_are_both_made() -> None:
    both = together(SOURCE, change("1", "2"), change("eps", "0"))
    assert both is not None
    assert changed(SOURCE, both) == "r = 2 / sqrt(mean(c * c) + 0)"


@pytest.mark.parametrize(
    "other",
    [
        change("sqrt(mean(c * c) + eps)", "mean(c)"),  # the same place twice
        change("sqrt(mean(c", "sqrt(mean(d"),  # overlaps
        change("c * c", "c"),  # what is within is gone: (sqrt(x) + eps) has none of it
    ],
)
def test_edits_that_touch_each_other_otherwise_are_none(other: Changes) -> None:
    assert together(SOURCE, change("sqrt(mean(c * c) + eps)", "(sqrt(x) + eps)"), other) is None


def test_parentheses_are_not_doubled() -> None:
    assert tight("(a + b)") == "(a + b)"
    assert tight("(a) + (b)") == "((a) + (b))"
    assert is_atom("f(a)(b)")
    assert not is_atom("(a) + (b)")
