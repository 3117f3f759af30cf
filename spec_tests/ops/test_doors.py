"""Every operation refuses what its `Shapes:` line does not allow, forward and back, and what does not count is nothing.

Operations are found by themselves, as in test_every_operation.py.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_tests.operations import Case, Operation, cases
from spec_tests.ops.test_every_operation import OPERATIONS, every_operation
from spec_tests.rules import evaluate
from spec_tests.subject import Implementation, Subject
from spec_tests.test_every_pullback import wrong_gradients

pytestmark = pytest.mark.own
REFUSALS = (ValueError, TypeError)
DOUBLE: dict[str, Any] = {"dtypes": ("float64",), "magnitudes": (1,)}


def line_of(run: Implementation, *arrays: Any, what: str, **keywords: Any) -> str:
    """The line with which a call is refused."""
    try:
        run(*arrays, **keywords)
    except REFUSALS as error:
        return str(error)
    raise AssertionError(f"{what}: accepted")


@pytest.mark.one_in(4)
@every_operation
@pytest.mark.host
@given(data=st.data())
def test_a_gradient_that_is_not_one_of_the_value_is_refused(
    operation: Operation, subject: Subject, data: st.DataObject
) -> None:
    case = data.draw(cases(operation, **DOUBLE))
    _, back = subject.operation(operation.name)(*case.arrays, **case.keywords)
    dy = case.cotangents()
    for i, one in enumerate(dy):
        for what, wrong in wrong_gradients(one):
            line = line_of(back, *dy[:i], wrong, *dy[i + 1 :], what=what)
            assert re.match(rf"{operation.name}: dy\b[^\n]*(the shape of |give both|convert it first|mask)", line), line
    for count in (dy[1:], (*dy, dy[0])):
        line = line_of(back, *count, what=f"{len(count)} gradients")
        assert re.match(rf"{operation.name}: back takes {len(dy)} gradients?, of [^\n]*; got {len(count)}$", line), line
    back(*dy)


def _wrong_arrays(case: Case, number: int) -> Iterator[tuple[str, Any]]:
    x, array = case.arrays[number], case.operation.inputs
    declared = next(a for a in array if a.name == case.operation.positional[number])
    for dtype in ("int64", "bool", "complex128", "object"):
        yield dtype, x.astype(dtype)
    yield from {"a list": x.tolist(), "None": None, "a number": 1.0, "masked": numpy.ma.masked_array(x)}.items()
    if len(case.arrays) > 1:
        yield "float32", x.astype("float32")
    if not declared.batched:
        yield "an axis more", x[None]
        if x.ndim and x.shape[0]:
            yield "an axis less", x[0]


@pytest.mark.one_in(4)
@every_operation
@pytest.mark.host
@given(data=st.data())
def test_an_array_that_is_not_the_declared_one_is_refused(
    operation: Operation, subject: Subject, data: st.DataObject
) -> None:
    case, run = data.draw(cases(operation, **DOUBLE)), subject.operation(operation.name)
    for number, name in enumerate(operation.positional):
        for what, wrong in _wrong_arrays(case, number):
            arrays = (*case.arrays[:number], wrong, *case.arrays[number + 1 :])
            line = line_of(run, *arrays, **case.keywords, what=f"{name}: {what}")
            assert re.match(rf"{operation.name}: \w+ (must |is )[^\n]*$", line), line
    for array in operation.inputs:
        if isinstance(x := case.keywords.get(array.name), numpy.ndarray):
            for wrong in (x.astype("float64"), x.astype(object), x.tolist(), numpy.ma.masked_array(x)):
                line = line_of(run, *case.arrays, **case.keywords | {array.name: wrong}, what=array.name)
                assert re.match(rf"{operation.name}: {array.name} (must |is )[^\n]*$", line), line


@pytest.mark.one_in(4)
@every_operation
@pytest.mark.host
@given(data=st.data())
def test_a_size_that_two_arrays_share_is_one_size(operation: Operation, subject: Subject, data: st.DataObject) -> None:
    """An array with a longer axis whose letter, or whose leading axes, another array has too is refused."""
    case, run = data.draw(cases(operation, **DOUBLE)), subject.operation(operation.name)
    given_ = dict(zip(operation.positional, case.arrays, strict=True)) | case.keywords
    present = [a for a in operation.inputs if isinstance(given_[a.name], numpy.ndarray) and not a.how]
    for array, other in itertools.permutations(present, 2):
        x, leading = (
            given_[array.name],
            len(given_[array.name].shape) - len([d for d in array.dimensions if d != "..."]),
        )
        for axis in range(x.ndim):
            letter = "..." if axis < leading else array.dimensions[axis - leading + array.batched]
            if letter in other.dimensions and (letter == "..." or letter.isalpha()):
                longer = numpy.concatenate([x, numpy.ones_like(x.take(range(1), axis) if x.shape[axis] else x)], axis)
                if longer.shape == x.shape:
                    continue
                changed = given_ | {array.name: longer}
                line = line_of(
                    run,
                    *[changed[name] for name in operation.positional],
                    **{name: changed[name] for name in operation.keywords},
                    what=f"{array.name} {longer.shape} beside {other.name}",
                )
                assert re.match(rf"{operation.name}: \w+ must [^\n]*; got [^\n]*$", line), line


WITH_PLACES = [op for op in OPERATIONS if {"token_mask", "ignore"} & set(op.keywords)]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("operation", WITH_PLACES, ids=lambda operation: operation.name)
@pytest.mark.parametrize("nothing", [numpy.nan, numpy.inf, -numpy.inf])
@given(data=st.data())
def test_what_does_not_count_contributes_exactly_nothing(
    operation: Operation, nothing: float, subject: Subject, data: st.DataObject
) -> None:
    """Forward and back, whatever stands there: the same bits as with zeros, and a gradient of exactly 0."""
    case, run = data.draw(cases(operation, **DOUBLE)), subject.operation(operation.name)
    counts = _counts(case)
    if counts is None:
        return
    x = case.arrays[0]
    results = []
    for what in (0, nothing):
        filled = numpy.where(counts[(...,) + (None,) * (x.ndim - counts.ndim)], x, what)
        y, pull = evaluate(run, case.with_arrays((filled, *case.arrays[1:])))
        results.append([*y, *pull(case.cotangents())])
    for a, b in zip(*results, strict=True):
        assert numpy.array_equal(a, b)
    assert not results[1][len(case.shapes)][~counts].any()


def _counts(case: Case) -> Any:
    """Which places of the first array count; None if all do."""
    if "token_mask" in case.keywords:
        return case.keywords["token_mask"]
    ignore = case.keywords["ignore"]
    return None if ignore is None else case.keywords["targets"] != ignore


def test_what_is_accepted_is_caught() -> None:
    def careless(x: Any) -> Any:
        return x, lambda dy: dy

    _, back = careless(numpy.zeros(3))
    for what, wrong in wrong_gradients(numpy.zeros(3)):
        with pytest.raises(AssertionError, match=f"{re.escape(what)}: accepted"):
            line_of(back, wrong, what=what)


def test_operations_with_places_that_do_not_count_are_found() -> None:
    names = {operation.name for operation in WITH_PLACES}
    assert {"cross_entropy", "smoothed_cross_entropy", "rnn", "lstm", "window", "mean_pool", "load_balance"} <= names
