"""Laws of the last places side by side. (NNLM)"""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_tests.subject import Subject


def arrays(places: int, T: int = 5, seed: int = 0) -> tuple[Any, Any]:
    random = numpy.random.default_rng(seed)
    return random.standard_normal((2, T, 3)), random.standard_normal((2, places - 1, 3))


def window(subject: Subject, x: Any, past: Any, *, places: int, token_mask: Any = None) -> Any:
    return subject.operation("window")(x, past, places=places, token_mask=token_mask)[0]


@given(places=st.integers(1, 7), T=st.integers(1, 5))
def test_the_newest_place_is_first_and_the_past_stands_before_the_first(places: int, T: int, subject: Subject) -> None:
    x, past = arrays(places, T)
    text = numpy.concatenate([past, x], axis=1)
    y = window(subject, x, past, places=places).reshape(2, T, places, 3)
    for t in range(T):
        for k in range(places):
            assert numpy.array_equal(y[:, t, k], text[:, t + places - 1 - k])


@given(places=st.integers(1, 4), cut=st.integers(1, 4))
def test_two_pieces_are_the_whole(places: int, cut: int, subject: Subject) -> None:
    x, past = arrays(places)
    before = numpy.concatenate([past, x[:, :cut]], axis=1)[:, cut:]
    pieces = [window(subject, x[:, :cut], past, places=places), window(subject, x[:, cut:], before, places=places)]
    assert numpy.array_equal(numpy.concatenate(pieces, axis=1), window(subject, x, past, places=places))


def test_padding_before_a_text_is_as_if_the_text_began_there(subject: Subject) -> None:
    x, _ = arrays(3)
    nothing = numpy.zeros((2, 2, 3))
    token_mask = numpy.arange(5) >= numpy.array([[2], [0]])
    y = window(subject, x, nothing, places=3, token_mask=token_mask)
    assert numpy.array_equal(y[:1, 2:], window(subject, x[:1, 2:], nothing[:1], places=3))
    assert numpy.array_equal(y[1:], window(subject, x[1:], nothing[1:], places=3))


@pytest.mark.own
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"places": 0}, "window: places must be at least 1, got 0"),
        ({"places": 4}, r"window: past must be \(B, places-1, C\) = \(2, 3, 3\) to match x .*; got \(2, 2, 3\)"),
        (
            {"token_mask": numpy.ones((2, 4), bool)},
            r"window: token_mask must be \(B, T\) = \(2, 5\) to match x .*; got \(2, 4\)",
        ),
        ({"token_mask": numpy.ones((2, 5))}, "window: token_mask must be boolean, got float64"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], says: str, subject: Subject) -> None:
    x, past = arrays(3)
    with pytest.raises(ValueError, match=says):
        window(subject, x, past, **{"places": 3, **change})
