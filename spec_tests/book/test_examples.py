"""Laws of the examples of a page: a stated number is the computed one, rounded; everything else is told."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from book.examples import Session, agree

NUMBERS = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-4)


@given(NUMBERS, st.integers(1, 8))
def test_a_number_rounded_to_any_digits_agrees(x: float, digits: int) -> None:
    assert agree(f"{x:.{digits}f}", repr(x))


@given(NUMBERS, st.integers(1, 8), st.sampled_from([-1, 1]))
def test_a_number_that_is_off_by_one_in_its_last_digit_does_not(x: float, digits: int, sign: int) -> None:
    assume(abs(x * 10.0**digits % 1 - 0.5) > 1e-3)  # half way between two, both may be written
    assert not agree(f"{round(x, digits) + sign * 1.01 * 10.0**-digits:.{digits}f}", f"{x:.12f}")


@pytest.mark.parametrize(
    ("stated", "computed", "same"),
    [
        ("array([[0.73, 0.27]])", "array([[0.73105858, 0.26894142]])", True),
        ("array([[0.73, 0.28]])", "array([[0.73105858, 0.26894142]])", False),
        ("[1., 2.]", "[1., 2., 3.]", False),
        ("3", "3", True),
        ("3", "3.2", False),
        ("(2, 3)", "(2, 4)", False),
        ("1e-5", "1.04e-05", True),
        ("1e-5", "1.6e-05", False),
        ("nan", "inf", False),
        ("array([0.   , 1.   ])", "array([0., 1.])", True),
        ("array([0.   , 0.5  ])", "array([0.4, 0.5])", False),
        ("array([0.  ])", "array([1e-17])", True),
        ("−0.5", "-0.5", True),  # the sign of the page may be the typographer's
        ("−0.5", "0.5", False),
    ],
)
def test_what_agrees(stated: str, computed: str, same: bool) -> None:
    assert agree(stated, computed) is same


def faults(code: str) -> list[str]:
    return list(Session().faults(code))


def test_a_right_session_has_no_fault() -> None:
    assert faults(">>> import math\n>>> math.pi\n3.14\n>>> x = 2\n>>> x\n2\n") == []


@pytest.mark.parametrize(
    "code",
    [
        ">>> 1 / 3\n0.34\n",
        ">>> 1 + 1\n",  # nothing is stated
        ">>> x = 1\n1\n",  # nothing is computed
        ">>> undefined\n1\n",
        ">>> print(1)\n2\n",
        "1 + 1\n2\n",  # no session at all
    ],
)
def test_a_wrong_session_is_told(code: str) -> None:
    assert len(faults(code)) == 1


def test_a_fault_says_what_is_computed() -> None:
    (fault,) = faults(">>> 1 / 3\n0.34\n")
    assert "0.34" in fault
    assert "0.333333" in fault


def test_an_error_may_be_stated() -> None:
    code = ">>> 1 / 0\nTraceback (most recent call last):\n    ...\nZeroDivisionError: division by zero\n"
    assert faults(code) == []
    assert faults(code.replace("by zero", "by one")) != []


def test_the_examples_of_a_page_share_their_names_and_pages_do_not() -> None:
    session = Session()
    assert list(session.faults(">>> x = 3\n")) == []
    assert list(session.faults(">>> x\n3\n")) == []
    assert faults(">>> x\n3\n") != []


def test_a_shape_is_that_of_what_is_assigned() -> None:
    session = Session()
    session.names.update(numpy=numpy, T=2, C=3)
    assert session.shapes("a = numpy.zeros((2, 9))") == {session.size("T, 3 C")}
    assert session.shapes("a, b = numpy.zeros(3), numpy.zeros((3, 1))") == {(3,), (3, 1)}
    assert session.size("T C, 1") == (6, 1)
    assert session.size("()") == ()
    assert session.shapes(f"a = {math.pi}") == {()}
