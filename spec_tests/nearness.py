"""How far an operation is from the plain text, counted in standard deviations of the text's own rounding error.

The text is evaluated in float64 on values with a spread (refllm/numbers/spread.py). No number here is chosen for an
operation: what a result may be off by follows from the numbers that the text goes through.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from refllm.backend import Array
from refllm.numbers.spread import Arithmetic, Spread, deviation, lift, plain_numbers_round
from spec_tests.operations import Case
from spec_tests.rules import Implementation, evaluate

U = {"float32": 2.0**-24, "float64": 2.0**-53}
ARITHMETIC = {
    "float32": Arithmetic(),
    "float64": Arithmetic(underflow=2.0**-500),  # its square is still a number
}


def distances(run: Implementation, text: Implementation, case: Case) -> dict[str, Array]:
    """|result - text| / deviation, for every value and every gradient of one call."""
    with numpy.errstate(all="ignore"):
        y, pull = evaluate(run, case)
        found = (*y, *pull(case.cotangents()))
    truth = of_the_text(text, case)
    return {name: counted(a, t, case.dtype.name) for name, a, t in zip(names(case), found, truth, strict=True)}


def names(case: Case) -> list[str]:
    values = [f"value {i}" for i in range(len(case.shapes))] if len(case.shapes) > 1 else ["the value"]
    return values + [f"the gradient of {name}" for name in case.operation.positional]


def of_the_text(text: Callable[..., Any], case: Case) -> list[Any]:
    """The values and the gradients of the text, each with its spread, for the dtype of the case."""
    arithmetic = ARITHMETIC[case.dtype.name]
    with rounding_in(case.dtype.name), numpy.errstate(all="ignore"):
        y, back = text(*lift(case.arrays, arithmetic), **case.keywords)
        gradients = back(*lift(case.cotangents(), arithmetic))
    values = y if case.operation.returns_a_tuple else (y,)
    return [*values, *(gradients if isinstance(gradients, tuple) else (gradients,))]


def rounding_in(dtype: str) -> Any:
    """Plain numbers are Python's, of float64: beside float32 as good as exact, beside float64 rounded like the rest."""
    return plain_numbers_round(ARITHMETIC[dtype]) if dtype == "float64" else contextlib.nullcontext()


def counted(found: Any, truth: Any, dtype: str) -> Array:
    """|found - truth| in deviations. The text is evaluated in float64, and rounds there too: two independent errors."""
    t = truth if isinstance(truth, Spread) else Spread(truth, 0.0, Arithmetic())
    assert found.shape == t.shape, f"the shape is {found.shape}, the text has {t.shape}"
    a = numpy.asarray(found, float)
    with numpy.errstate(all="ignore"):
        error = numpy.where(a == t.value, 0, abs(a - t.value))
        z = numpy.where(error == 0, 0, error / deviation(t, float(numpy.hypot(U[dtype], U["float64"]))))
    same = numpy.isnan(a) & numpy.isnan(t.value)  # as 0 times infinity is in both
    return numpy.where(same, 0, numpy.where(numpy.isnan(z), numpy.inf, z))


def fits(results: Sequence[Any], dtype: str) -> bool:
    """Whether the results of the text, but for those that are infinite on purpose, are far from the end of the type."""
    largest = 1e-4 * float(numpy.finfo(dtype).max)
    values = [numpy.asarray(r.value if isinstance(r, Spread) else r) for r in results]
    return all(bool((numpy.isinf(x) | (abs(x) < largest)).all()) for x in values)


# --- inputs at the edges ---------------------------------------------------------------------------------------------

HUGE, TINY = (1e30, 1e15, 1e8, 1e4), 1e-30
EDGES = ("ordinary", "huge", "tiny", "zero", "equal", "forbidden")


def at_an_edge(case: Case, edge: str, number: int, text: Implementation, docstring: str) -> Case:
    """The case with argument `number` at an edge of its range. The others stay, since the product of two huge ones has
    no float32; and a huge one is as large as the results of the text allow."""
    if edge == "huge":
        for magnitude in HUGE:
            scaled = _scaled(case, number, magnitude)
            if fits(of_the_text(text, scaled), case.dtype.name):
                return scaled
    elif edge == "tiny":
        return _scaled(case, number, TINY)
    elif edge == "zero":
        return _with(case, number, numpy.zeros_like)
    elif edge == "equal":
        return _with(case, number, lambda x: numpy.full_like(x, 0.7))
    elif edge == "forbidden" and "-inf" in docstring:
        return _with_minus_infinity(case, docstring)
    return case


def _scaled(case: Case, number: int, magnitude: float) -> Case:
    return _with(case, number, lambda x: x * x.dtype.type(magnitude))


def _with(case: Case, number: int, change: Callable[[Any], Any]) -> Case:
    changed = numpy.asarray(change(case.arrays[number]), case.dtype)
    return case.with_arrays((*case.arrays[:number], changed, *case.arrays[number + 1 :]))


def _with_minus_infinity(case: Case, docstring: str) -> Case:
    """Some entries, and all of a row, of the argument that the docstring allows it for: "r = -inf"; else the first."""
    named = re.search(r"(\w+) = -inf", docstring)
    position = case.operation.positional
    number = position.index(named[1]) if named and named[1] in position else 0
    random = numpy.random.default_rng(case.seed)

    def forbid(x: Any) -> Any:
        chosen = random.random(x.shape) < 0.3
        if x.ndim > 1 and len(x):
            chosen[0] = True
        return numpy.where(chosen, -numpy.inf, x)

    return _with(case, number, forbid)
