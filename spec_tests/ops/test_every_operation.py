"""The rules that hold every operation of refllm, found by themselves, and proof that each rule can fail."""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import refllm.ops
from spec_tests import rules
from spec_tests.operations import (
    NEEDS_AN_ELEMENT,
    Case,
    Operation,
    UndeclaredError,
    cases,
    declared,
    operation_functions,
)
from spec_tests.subject import Implementation, Subject

FUNCTIONS = operation_functions()


def _well_declared() -> Any:
    for function in FUNCTIONS:
        try:
            yield declared(function)
        except UndeclaredError:
            continue  # test_an_operation_declares_itself fails for it, with the remedy


OPERATIONS = list(_well_declared())
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
DOUBLE: dict[str, Any] = {"dtypes": ("float64",)}
SINGLE: dict[str, Any] = {"dtypes": ("float32",)}
ORDINARY: dict[str, Any] = {"magnitudes": (1,)}
SMALL: dict[str, Any] = {"letters": (1, 2, 3, 4), "axes": (1, 2), "most_axes": 2}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_an_operation_declares_itself(function: Implementation) -> None:
    declared(function)


def test_every_module_of_operations_is_searched() -> None:
    """But for the parts of attention, which are no operations."""
    modules = {f"refllm.ops.{module.name}" for module in pkgutil.iter_modules(refllm.ops.__path__)}
    parts = {f"refllm.ops.{name}" for name in ("tiles", "masks", "running_softmax", "distance_bias")}
    assert {function.__module__ for function in FUNCTIONS} == modules - parts
    assert len({function.__name__ for function in FUNCTIONS}) == len(FUNCTIONS)


@pytest.mark.one_in(4)
@every_operation
@given(data=st.data())
def test_shapes_and_dtypes_are_kept(operation: Operation, subject: Subject, data: st.DataObject) -> None:
    rules.shapes_and_dtypes_are_kept(subject.operation(operation.name), data.draw(cases(operation)))


@pytest.mark.one_in(4)
@every_operation
@given(data=st.data())
def test_arguments_are_unchanged(operation: Operation, subject: Subject, data: st.DataObject) -> None:
    rules.arguments_are_unchanged(subject.operation(operation.name), data.draw(cases(operation)))


@pytest.mark.one_in(4)
@every_operation
@given(data=st.data())
def test_read_only_arguments_are_accepted(operation: Operation, subject: Subject, data: st.DataObject) -> None:
    rules.read_only_arguments_are_accepted(subject.operation(operation.name), data.draw(cases(operation)))


@pytest.mark.one_in(4)
@every_operation
@given(data=st.data())
def test_results_are_fresh(operation: Operation, subject: Subject, data: st.DataObject) -> None:
    rules.results_are_fresh(subject.operation(operation.name), data.draw(cases(operation)))


@pytest.mark.one_in(4)
@every_operation
@given(data=st.data())
def test_the_pullback_is_pure(operation: Operation, subject: Subject, data: st.DataObject) -> None:
    rules.pullback_is_pure(subject.operation(operation.name), data.draw(cases(operation)))


@pytest.mark.one_in(4)
@every_operation
@given(data=st.data())
def test_the_pullback_is_linear(operation: Operation, subject: Subject, data: st.DataObject) -> None:
    case = data.draw(cases(operation, **DOUBLE, **ORDINARY))
    rules.pullback_is_linear(subject.operation(operation.name), case)


@pytest.mark.one_in(16)
@every_operation
@settings(max_examples=2 * settings().max_examples)
@given(data=st.data())
def test_gradients_agree_with_differences(operation: Operation, subject: Subject, data: st.DataObject) -> None:
    case = data.draw(cases(operation, **DOUBLE, **ORDINARY, **SMALL))
    rules.gradients_agree_with_differences(subject.operation(operation.name), case)


@pytest.mark.one_in(6)
@every_operation
@given(data=st.data())
def test_memory_layout_does_not_matter(operation: Operation, subject: Subject, data: st.DataObject) -> None:
    case = data.draw(cases(operation, **ORDINARY))
    rules.memory_layout_does_not_matter(subject.operation(operation.name), case)


@pytest.mark.one_in(4)
@every_operation
@given(data=st.data())
def test_huge_arguments_give_finite_results(operation: Operation, subject: Subject, data: st.DataObject) -> None:
    case = data.draw(cases(operation, **SINGLE, **ORDINARY))
    rules.huge_arguments_give_finite_results(subject.operation(operation.name), case)


@pytest.mark.one_in(4)
@every_operation
@given(data=st.data())
def test_constant_arguments_give_finite_results(operation: Operation, subject: Subject, data: st.DataObject) -> None:
    rules.constant_arguments_give_finite_results(subject.operation(operation.name), data.draw(cases(operation)))


def test_only_operations_that_exist_are_excused_from_an_empty_batch() -> None:
    assert {operation.name for operation in OPERATIONS} >= NEEDS_AN_ELEMENT


# Tests of the tests: an affine map along the last axis, first right, then wrong in every way that a rule forbids.

DECLARATION = """y = x g + b

Source:  none
Shapes:  x (..., C); g (C,); b (C,) -> y (..., C)
Back:    dx = dy g; dg = Σ dy x; db = Σ dy
"""


def _rows(x: Any) -> Any:
    """Over all axes but the last."""
    return tuple(range(x.ndim - 1))


def right(x: Any, g: Any, b: Any) -> Any:
    return x * g + b, lambda dy: (dy * g, (dy * x).sum(axis=_rows(x)), dy.sum(axis=_rows(x)))


def changes_its_argument(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x.copy(), g, b)
    x *= g
    return y, back


def changes_dy(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)

    def spoil(dy: Any) -> Any:
        gradients = back(dy)
        dy += 1
        return gradients

    return y, spoil


def accumulates(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    total = numpy.zeros_like(g)

    def add(dy: Any) -> Any:
        nonlocal total
        dx, dg, db = back(dy)
        total = total + dg
        return dx, total.copy(), db

    return y, add


_workspace: dict[str, Any] = {}


def shares_a_workspace_between_calls(x: Any, g: Any, b: Any) -> Any:
    _workspace["arguments"] = (x, g, b)
    return right(x, g, b)[0], lambda dy: right(*_workspace["arguments"])[1](dy)  # noqa: PLW0108


def is_right_only_for_ones(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    return y, lambda dy: back(numpy.ones_like(dy))


def forgets_the_gradient_of_b(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    return y, lambda dy: back(dy)[:2]


def gives_b_no_gradient(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    return y, lambda dy: (*back(dy)[:2], numpy.zeros_like(b))


def is_off_by_a_millionth(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    return y, lambda dy: (back(dy)[0] * (1 + 1e-6), *back(dy)[1:])


def is_affine_in_dy(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    return y, lambda dy: (back(dy)[0] + 1, *back(dy)[1:])


def promotes_float32(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    return y * numpy.sqrt(1.0), back


def promotes_gradients(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    return y, lambda dy: (*back(dy)[:2], back(dy)[2] * numpy.sqrt(1.0))


def does_not_sum_over_rows(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    return y, lambda dy: (*back(dy)[:2], dy * 1)


def keeps_an_axis_too_many(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    return y[None], back


def returns_its_argument(x: Any, g: Any, b: Any) -> Any:
    return x, right(x, g, b)[1]


def returns_dy(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    return y, lambda dy: (dy, *back(dy)[1:])


def returns_a_buffer_it_keeps(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    buffer = numpy.empty_like(x)

    def reuse(dy: Any) -> Any:
        dx, dg, db = back(dy)
        buffer[...] = dx
        return buffer, dg, db

    return y, reuse


def gives_one_array_for_two(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)

    def pair(dy: Any) -> Any:
        dx, dg, _ = back(dy)
        return dx, dg, dg

    return y, pair


def returns_none(x: Any, g: Any, b: Any) -> Any:
    return right(x, g, b)[0], lambda dy: None


def returns_none_for_one(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    return y, lambda dy: (*back(dy)[:2], None)


def has_no_pullback(x: Any, g: Any, b: Any) -> Any:
    return x * g + b


def reads_memory_order(x: Any, g: Any, b: Any) -> Any:
    y, back = right(x, g, b)
    return y.ravel(order="K").reshape(y.shape), back


def overflows(x: Any, g: Any, b: Any) -> Any:
    with numpy.errstate(all="ignore"):
        return x * g + b + 0 * (x * x), right(x, g, b)[1]


def loses_digits(x: Any, g: Any, b: Any) -> Any:
    with numpy.errstate(all="ignore"):
        return x * g + b if x.dtype == numpy.float64 else numpy.clip(x, -1e20, 1e20) * g + b, right(x, g, b)[1]


def divides_by_a_deviation(x: Any, g: Any, b: Any) -> Any:
    with numpy.errstate(all="ignore"):
        return (x * g + b) / (x.max(initial=-math.inf) - x.min(initial=math.inf)), right(x, g, b)[1]


DEFECTS = {
    rules.shapes_and_dtypes_are_kept: {
        promotes_float32: "value is float64",
        promotes_gradients: "gradient of b is float64",
        does_not_sum_over_rows: "gradient of b has the shape",
        keeps_an_axis_too_many: "`Shapes:` says",
        forgets_the_gradient_of_b: "got 2 results",
        returns_none: "must return the gradients",
        returns_none_for_one: "gradient of b is no array",
        has_no_pullback: r"returns \(y, back\)",
    },
    rules.arguments_are_unchanged: {
        changes_its_argument: "changed its argument x",
        changes_dy: "pullback changed dy",
    },
    rules.read_only_arguments_are_accepted: {changes_its_argument: "written to", changes_dy: "written to"},
    rules.results_are_fresh: {
        returns_its_argument: "value 0 shares memory with x",
        returns_dy: "gradient of x shares memory with dy",
        returns_a_buffer_it_keeps: "gradient of x shares memory with a second gradient of x",
        gives_one_array_for_two: "gradient of g shares memory with the gradient of b",
    },
    rules.pullback_is_pure: {
        accumulates: "called twice",
        shares_a_workspace_between_calls: "remembers another call",
    },
    rules.pullback_is_linear: {
        is_affine_in_dy: "gradient of x is not linear",
        is_right_only_for_ones: "is not linear",
    },
    rules.gradients_agree_with_differences: {
        is_right_only_for_ones: "gradient of . is off",
        gives_b_no_gradient: "gradient of b is off",
        is_off_by_a_millionth: "gradient of x is off",
    },
    rules.memory_layout_does_not_matter: {reads_memory_order: "transposed arrays change result 0"},
    rules.huge_arguments_give_finite_results: {overflows: "x near 1e\\+30", loses_digits: "value is off"},
    rules.constant_arguments_give_finite_results: {divides_by_a_deviation: "not finite"},
}
NEEDS_DOUBLE = (rules.pullback_is_linear, rules.gradients_agree_with_differences)
PAIRS = [
    pytest.param(rule, toy, message, id=f"{rule.__name__}-{toy.__name__}")
    for rule, toys in DEFECTS.items()
    for toy, message in toys.items()
]


def _examine(rule: Callable[[Implementation, Case], None], toy: Implementation) -> None:
    sizes = SMALL | ORDINARY | (DOUBLE if rule in NEEDS_DOUBLE else SINGLE)
    right.__doc__ = DECLARATION

    @settings(phases=[Phase.generate])
    @given(case=cases(declared(right), **sizes))
    def examine(case: Any) -> None:
        rule(toy, case)

    examine()


@pytest.mark.parametrize(("rule", "defective", "message"), PAIRS)
def test_a_planted_defect_is_caught_by_the_rule_against_it(
    rule: Callable[[Implementation, Case], None], defective: Implementation, message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        _examine(rule, defective)


@pytest.mark.parametrize("rule", DEFECTS, ids=lambda rule: rule.__name__)
def test_a_right_operation_passes_every_rule(rule: Callable[[Implementation, Case], None]) -> None:
    _examine(rule, right)


def test_every_rule_has_a_planted_defect() -> None:
    public = {f for name, f in vars(rules).items() if callable(f) and getattr(f, "__module__", "") == rules.__name__}
    assert {f for f in public if not f.__name__.startswith("_")} == DEFECTS.keys() | {rules.evaluate}


def _declares(docstring: str, signature: str) -> Any:
    namespace: dict[str, Any] = {}
    exec(f"def toy({signature}): pass", namespace)
    namespace["toy"].__doc__ = docstring
    return namespace["toy"]


@pytest.mark.parametrize(
    ("docstring", "signature", "message"),
    [
        ("", "x", "no `Source:` section"),
        ("y = x\n\nSource:  s\nBack:    b", "x", "no `Shapes:` section"),
        ("y = x\n\nSource:  s\nShapes:  x (C,) -> y (C,)", "x", "no `Back:` section"),
        ("y = x\n\nSource:  s\nShapes:  x (C,)\nBack:    b", "x", "no `->`"),
        ("y = x\n\nSource:  s\nShapes:  x of C numbers -> y (C,)\nBack:    b", "x", "not `name .dimensions.`"),
        ("y = x\n\nSource:  s\nShapes:  x (C,) -> y (C,)\nBack:    b", "x, g", "positional parameters are"),
        ("y = x\n\nSource:  s\nShapes:  x (C,); g (C,) -> y (C,)\nBack:    b", "g, x", "positional parameters are"),
        ("y = x\n\nSource:  s\nShapes:  x (C,); g (C,) -> y (C,)\nBack:    b", "x", "positional parameters are"),
        ("y = x\n\nSource:  s\nShapes:  x (C,); ids (C,) in [0, V) -> y (C,)\nBack:    b", "x", "ids, which is no"),
        ("y = x\n\nSource:  s\nShapes:  x (C,) -> y (C,)\nBack:    b", "x, *, fluff", "add a strategy to KEYWORDS"),
        ("y = x\n\nSource:  s\nShapes:  x (C,) -> y (C,)\nBack:    b", "x, *, eps=1e-5", "eps has a default"),
        ("y = x\n\nSource:  s\nShapes:  x (C,) -> y (C,)\nBack:    b", "*x", "name every argument"),
    ],
)
def test_an_incomplete_declaration_is_refused_with_its_remedy(docstring: str, signature: str, message: str) -> None:
    with pytest.raises(UndeclaredError, match=message):
        declared(_declares(docstring, signature))
