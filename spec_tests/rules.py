"""The rules that hold every operation. A rule takes an implementation and a case, and fails with what is broken.

Ownership in one sentence: an array that an operation or a pullback receives belongs to its giver and is only read;
an array that it returns belongs to its caller, who may write into a gradient at once and into a value once its
pullback is no longer needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy

from spec_tests.gradients import directions
from spec_tests.layouts import LAYOUTS, relaid, relaid_tree
from spec_tests.operations import Case

Implementation = Callable[..., Any]
Arrays = tuple[Any, ...]
Pull = Callable[[Arrays], Arrays]

# The derivative of f at 0 from f(±h), f(±2h), f(±3h), over h: exact for polynomials of degree 6.
STENCIL = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
STEP = 1e-3
RTOL, ATOL = 1e-7, 1e-10  # ATOL: the rounding of a value near 1, divided by STEP, and a margin


def evaluate(run: Implementation, case: Case) -> tuple[Arrays, Pull]:
    """The values and the pullback of one call, both as functions of tuples, their structure checked."""
    result = run(*case.arrays, **case.keywords)
    pair = isinstance(result, tuple) and len(result) == 2
    assert pair, f"an operation returns (y, back), got {type(result)}"
    y, back = result
    if not case.operation.returns_a_tuple:
        y = (y,)
    as_declared = isinstance(y, tuple) and len(y) == len(case.shapes)
    assert as_declared, f"expected {len(case.shapes)} values, got {y!r}"

    def pull(dy: Arrays) -> Arrays:
        gradients = back(*dy)
        names = case.operation.positional
        if len(names) == 1:
            gradients = (gradients,)
        assert isinstance(gradients, tuple), f"back must return the gradients of {names}, got {type(gradients)}"
        assert len(gradients) == len(names), f"back must return the gradients of {names}, got {len(gradients)} results"
        for name, d in zip(names, gradients, strict=True):
            assert isinstance(d, numpy.ndarray | numpy.generic), f"the gradient of {name} is no array: {type(d)}"
        return gradients

    return y, pull


def shapes_and_dtypes_are_kept(run: Implementation, case: Case) -> None:
    y, pull = evaluate(run, case)
    for value, shape in zip(y, case.shapes, strict=True):
        assert isinstance(value, numpy.ndarray | numpy.generic), f"the value is no array: {type(value)}"
        assert value.shape == shape, f"the value has the shape {value.shape}, `Shapes:` says {shape}"
        assert value.dtype == case.dtype, f"the value is {value.dtype}, the arguments are {case.dtype}"
    for name, x, d in zip(case.operation.positional, case.arrays, pull(case.cotangents()), strict=True):
        assert d.shape == x.shape, f"the gradient of {name} has the shape {d.shape}, {name} has {x.shape}"
        assert d.dtype == x.dtype, f"the gradient of {name} is {d.dtype}, {name} is {x.dtype}"


def arguments_are_unchanged(run: Implementation, case: Case) -> None:
    dy = case.cotangents()
    owned = _named(case, dy)
    before = {name: x.tobytes() for name, x in owned.items()}
    _, pull = evaluate(run, case)
    for name, x in owned.items():
        assert x.tobytes() == before[name], f"the operation changed its argument {name}"
    pull(dy)
    for name, x in owned.items():
        assert x.tobytes() == before[name], f"the pullback changed {name}"


def read_only_arguments_are_accepted(run: Implementation, case: Case) -> None:
    dy = case.cotangents()
    for x in _named(case, dy).values():
        x.setflags(write=False)
    try:
        _, pull = evaluate(run, case)
        pull(dy)
    except ValueError as error:
        raise AssertionError(f"an argument was written to: {error}") from error


def results_are_fresh(run: Implementation, case: Case) -> None:
    dy = case.cotangents()
    y, pull = evaluate(run, case)
    first, second = pull(dy), pull(dy)
    names = case.operation.positional
    results = [(f"value {i}", value) for i, value in enumerate(y)]
    results += [(f"the gradient of {name}", d) for name, d in zip(names, first, strict=True)]
    results += [(f"a second gradient of {name}", d) for name, d in zip(names, second, strict=True)]
    for result, a in results:
        for name, b in _named(case, dy).items():
            assert not numpy.shares_memory(a, b), f"{result} shares memory with {name}"
    for (one, a), (other, b) in itertools.combinations(results, 2):
        assert not numpy.shares_memory(a, b), f"{one} shares memory with {other}"


def pullback_is_pure(run: Implementation, case: Case) -> None:
    """The same dy gives the same bits: at once, after another dy, after another call of the operation, and after the
    caller has written into the gradients."""
    dy, other = case.cotangents(0), case.cotangents(1)
    _, pull = evaluate(run, case)
    gradients = pull(dy)
    first = [d.tobytes() for d in gradients]
    assert [d.tobytes() for d in pull(dy)] == first, "back called twice gives two results"
    pull(other)
    assert [d.tobytes() for d in pull(dy)] == first, "back remembers another dy"
    evaluate(run, case.with_arrays(tuple(-x for x in case.arrays)))[1](other)
    assert [d.tobytes() for d in pull(dy)] == first, "back remembers another call of the operation"
    for d in gradients:
        if isinstance(d, numpy.ndarray):
            d[...] = 7
    assert [d.tobytes() for d in pull(dy)] == first, "back reads the gradients that it gave away"


def pullback_is_linear(run: Implementation, case: Case) -> None:
    assert case.dtype == numpy.float64
    _, pull = evaluate(run, case)
    one, other = case.cotangents(0), case.cotangents(1)
    a, b = 0.75, -3.0
    combined = pull(tuple(numpy.asarray(a * x + b * y) for x, y in zip(one, other, strict=True)))
    for name, d, x, y in zip(case.operation.positional, combined, pull(one), pull(other), strict=True):
        tolerance = 1e-12 * (1 + _largest(a * x) + _largest(b * y))
        assert _largest(d - (a * x + b * y)) <= tolerance, f"the gradient of {name} is not linear in dy"


def gradients_agree_with_differences(run: Implementation, case: Case) -> None:
    """Each gradient tensor against differences of Σ y dy along `directions`: max|a - b| <= 1e-7 max|b| + 1e-10."""
    assert case.dtype == numpy.float64
    dy = case.cotangents()
    gradients = evaluate(run, case)[1](dy)
    for number, (name, d) in enumerate(zip(case.operation.positional, gradients, strict=True)):
        along = directions(d.size).reshape(-1 if d.size else 0, *d.shape)
        expected = _differences(run, case, dy, number, along)
        found = numpy.array([numpy.sum(d * v) for v in along])
        error, bound = _largest(found - expected), RTOL * _largest(expected) + ATOL
        assert error <= bound, f"the gradient of {name} is off by {error:.3g}, at most {bound:.3g} is rounding"


def _differences(run: Implementation, case: Case, dy: Arrays, number: int, along: Any) -> Any:
    x = case.arrays[number].copy()
    shifted = case.with_arrays((*case.arrays[:number], x, *case.arrays[number + 1 :]))

    start = x.copy()

    def rise(step: Any) -> float:
        """Σ (y(x + step) - y(x - step)) dy: the difference first, so that large values of y do not drown it."""
        x[...] = start + step
        above = [numpy.array(value) for value in evaluate(run, shifted)[0]]
        x[...] = start - step
        below = evaluate(run, shifted)[0]
        x[...] = start
        return sum(float(numpy.sum((a - b) * d)) for a, b, d in zip(above, below, dy, strict=True))

    return numpy.array([sum(weight * rise(n * STEP * v) for n, weight in STENCIL.items()) / STEP for v in along])


def memory_layout_does_not_matter(run: Implementation, case: Case) -> None:
    """Arrays in every layout (spec_tests/layouts.py) give what contiguous ones give, to rounding."""
    dy = case.cotangents()
    y, pull = evaluate(run, case)
    expected = (*y, *pull(dy))
    tolerance = 1e-11 if case.dtype == numpy.float64 else 1e-3
    for layout in LAYOUTS:
        keywords = relaid_tree(case.keywords, layout)
        arrays = tuple(relaid(x, layout) for x in case.arrays)
        again, pull = evaluate(run, Case(case.operation, arrays, keywords, case.shapes, case.seed))
        gradients = pull(tuple(relaid(d, layout) for d in dy))
        for number, (a, b) in enumerate(zip(expected, (*again, *gradients), strict=True)):
            error = _largest(a - b)
            assert error <= tolerance * (1 + _largest(a)), f"{layout} arrays change result {number} by {error:.3g}"


def huge_arguments_give_finite_results(run: Implementation, case: Case) -> None:
    """One argument of numbers near ±1e30: nothing is NaN or infinite, and float32 values agree with float64.

    Only one argument is huge, since the product of two has no float32; and where a value grows with the square of the
    argument, the numbers are near ±1e15 instead. Gradients are held to be finite alone: their terms may cancel.
    """
    assert case.dtype == numpy.float32
    for number in range(len(case.arrays)):
        for magnitude in (1e30, 1e15):
            huge = (case.arrays[number] * numpy.float32(magnitude)).astype(numpy.float32)
            single = case.with_arrays((*case.arrays[:number], huge, *case.arrays[number + 1 :]))
            double = case.with_arrays(tuple(x.astype(numpy.float64) for x in single.arrays))
            truth, pull = evaluate(run, double)
            gradients = pull(double.cotangents())
            if all(_largest(value) < 1e38 for value in (*truth, *gradients)):
                break
        values, pull = evaluate(run, single)
        name = case.operation.positional[number]
        for value, exact in zip(values, truth, strict=True):
            error = _largest(value - exact)
            assert error <= 1e-3 * _largest(exact) + 1e-30, f"{name} near {magnitude}: the value is off by {error:.3g}"
        for result in (*truth, *gradients, *pull(single.cotangents())):
            assert numpy.isfinite(result).all(), f"{name} near {magnitude}: not finite: {result}"


def constant_arguments_give_finite_results(run: Implementation, case: Case) -> None:
    for constant in (0, 1, -1e15):
        for number, x in enumerate(case.arrays):
            arrays = (*case.arrays[:number], numpy.full_like(x, constant), *case.arrays[number + 1 :])
            values, pull = evaluate(run, case.with_arrays(arrays))
            for result in (*values, *pull(case.cotangents())):
                name = case.operation.positional[number]
                assert numpy.isfinite(result).all(), f"{name} = {constant} everywhere: not finite: {result}"


def _named(case: Case, dy: Arrays) -> dict[str, Any]:
    """Every array that the caller owns, by name."""
    named = dict(zip(case.operation.positional, case.arrays, strict=True))
    named |= {name: x for name, x in case.keywords.items() if isinstance(x, numpy.ndarray)}
    return named | {"dy" if len(dy) == 1 else f"dy {i}": d for i, d in enumerate(dy)}


def _largest(x: Any) -> float:
    """max|x|; NaN if there is one, which no bound holds."""
    return float(numpy.max(numpy.abs(x), initial=0))
