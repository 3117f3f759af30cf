"""Every operation and every optimiser is the plain text: value and gradients, in both precisions, at the edges too."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refllm.optim
from refllm import spec
from refllm.backend import Array
from refllm.numbers.spread import Spread, deviation, lift
from spec_tests import nearness
from spec_tests.nearness import EDGES, at_an_edge, counted, distances
from spec_tests.operations import PARTS_OF_CLIPPING, Case, cases, declared, operation_functions
from spec_tests.rules import evaluate
from spec_tests.subject import Subject

# So many deviations an operation may be off. In 600 examples of every operation, a million numbers, the largest was
# 5.1, and 7.0 in larger arrays: gelu_erf, whose erfc is a rational approximation (spec_tests/numbers/test_spread.py).
MOST = 8.0

TEXT = spec.operations()
FUNCTIONS = {function.__name__: function for function in operation_functions()}
every_operation = pytest.mark.parametrize("name", sorted(FUNCTIONS))


def assert_near(found: dict[str, Array]) -> None:
    for what, z in found.items():
        worst = z.max(initial=0)
        assert worst <= MOST, (
            f"{what} is off by {worst:.3g} deviations of the text's rounding error, {MOST} are allowed"
        )


@pytest.mark.one_in(16)
@pytest.mark.own  # others have other conventions at the edges, and round where the text does not
@every_operation
@given(data=st.data())
def test_an_operation_is_its_text(name: str, subject: Subject, data: st.DataObject) -> None:
    assert name in TEXT, f"{name} has no plain text: write its formula and its pullback in refllm/spec"
    operation = declared(FUNCTIONS[name])
    case = data.draw(cases(operation))
    edge, number = data.draw(st.sampled_from(EDGES)), data.draw(st.sampled_from(range(len(case.arrays))))
    case = at_an_edge(case, edge, number, TEXT[name], FUNCTIONS[name].__doc__ or "")
    assert_near(distances(subject.operation(name), TEXT[name], case))


# --- optimisers ------------------------------------------------------------------------------------------------------


def optimiser_functions() -> dict[str, Callable[..., Any]]:
    """Every public function of refllm.optim."""
    found: dict[str, Callable[..., Any]] = {}
    for module in pkgutil.iter_modules(refllm.optim.__path__, "refllm.optim."):
        for name, f in vars(importlib.import_module(module.name)).items():
            if inspect.isfunction(f) and f.__module__ == module.name and not name.startswith("_"):
                found[name] = f
    return {name: f for name, f in found.items() if name not in PARTS_OF_CLIPPING}


OPTIMISERS = optimiser_functions()
UNDER_ANOTHER_NAME = {"clip_factor": "clip_by_global_norm"}  # the text gives the clipped gradients, not their factor
STEPS = [name for name, f in OPTIMISERS.items() if list(inspect.signature(f).parameters)[:2] == ["p", "g"]]
SETTINGS: dict[str, Any] = {
    "step": [1, 2, 10, 1000], "lr": [1e-3, 0.1, 1.0], "momentum": [0.0, 0.9], "beta1": [0.0, 0.9], "eps": [1e-8, 1e-3],
    "beta2": [0.0, 0.95, 0.999], "decay": [0.0, 0.01],
}  # fmt: skip


def test_every_optimiser_has_a_text() -> None:
    assert {UNDER_ANOTHER_NAME.get(name, name) for name in OPTIMISERS} - set(TEXT) == set()
    assert len(STEPS) == 3
    assert set(OPTIMISERS) - set(STEPS) == {"clip_factor", "warmup_cosine"}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", STEPS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_step_of_an_optimiser_is_its_text(name: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(sorted(nearness.U)))
    keywords = _settings(OPTIMISERS[name], data)
    arrays = _state(data, dtype, [n for n in inspect.signature(TEXT[name]).parameters if len(n) == 1])
    found = OPTIMISERS[name](*arrays, **keywords)
    with nearness.rounding_in(dtype), numpy.errstate(all="ignore"):
        truth = _text_of_a_step(name, lift(arrays, nearness.ARITHMETIC[dtype]), keywords)
    assert_near({f"result {i}": counted(a, t, dtype) for i, (a, t) in enumerate(zip(found, truth, strict=True))})


def _settings(f: Callable[..., Any], data: st.DataObject) -> dict[str, Any]:
    keywords = [
        p.name for p in inspect.signature(f).parameters.values() if p.kind is p.KEYWORD_ONLY and p.name != "out"
    ]
    return {name: data.draw(st.sampled_from(SETTINGS[name]), name) for name in keywords}


def _state(data: st.DataObject, dtype: str, names: list[str]) -> tuple[Array, ...]:
    """Arrays of one shape; Adam's v, an average of squares, is not negative. The gradient may be huge, tiny or zero."""
    shape = data.draw(st.sampled_from([(), (1,), (3, 5), (0, 2), (2, 1, 4)]))
    scale = data.draw(st.sampled_from([1.0, 1e15, 1e-15, 0.0]))
    random = numpy.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    state = {name: numpy.asarray(random.standard_normal(shape)) for name in names}
    state["g"] = state["g"] * scale
    if "m" in state:
        state["v"] = state["v"] ** 2
    return tuple(numpy.asarray(x, dtype) for x in state.values())


def _text_of_a_step(name: str, arrays: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Where the text has no `decay`, the penalty's gradient is added to what it is given."""
    p, g, *state = arrays
    known = inspect.signature(TEXT[name]).parameters
    if "decay" not in known:
        g = g + keywords["decay"] * p
    return TEXT[name](p, g, *state, **{n: x for n, x in keywords.items() if n in known})


@settings(max_examples=60)
@given(data=st.data())
def test_clipping_is_its_text(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(sorted(nearness.U)))
    limit = data.draw(st.sampled_from([0.1, 1.0, 100.0, float("inf")]))
    scale = data.draw(st.sampled_from([1.0, 1e-3, 1e4, 1e15, 0.0]))
    random = numpy.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    g = [numpy.asarray(random.standard_normal(shape) * scale, dtype) for shape in [(3, 4), (7,), (2, 0), ()]]
    norm, factor = OPTIMISERS["clip_factor"](g, limit=limit)
    with nearness.rounding_in(dtype), numpy.errstate(all="ignore"):
        true_norm, clipped = TEXT["clip_by_global_norm"](lift(g, nearness.ARITHMETIC[dtype]), clip=limit)
    near = {"the norm": counted(norm, true_norm, dtype)}
    near |= {f"array {i}": counted(x * factor, t, dtype) for i, (x, t) in enumerate(zip(g, clipped, strict=True))}
    assert_near(near)


@given(
    step=st.integers(1, 300), warmup=st.integers(1, 100), more=st.integers(1, 100), max_lr=st.sampled_from([1.0, 3e-4]),
    min_lr=st.sampled_from([0.0, 1e-5]),
)  # fmt: skip
def test_the_schedule_is_its_text(step: int, warmup: int, more: int, max_lr: float, min_lr: float) -> None:
    keywords = {"max_lr": max_lr, "warmup": warmup, "total": warmup + more, "min_lr": min_lr}
    found = OPTIMISERS["warmup_cosine"](step, **keywords)
    with nearness.rounding_in("float64"):
        lifted = {name: lift(numpy.asarray(x)) if isinstance(x, float) else x for name, x in keywords.items()}
        truth = TEXT["warmup_cosine"](step=step, **lifted)
    assert_near({"the learning rate": counted(numpy.asarray(found), truth, "float64")})


# --- tests of the test: what is wrong by little is caught ------------------------------------------------------------


def off_in_one_element(case: Case, name: str, which: int) -> dict[str, Array]:
    """The distances of an answer of which one element of result `which` is off: by twice as many deviations as are
    allowed, or by its last bit where the text does not round."""
    truth = nearness.of_the_text(TEXT[name], case)
    y, pull = evaluate(FUNCTIONS[name], case)
    found = [numpy.array(x) for x in (*y, *pull(case.cotangents()))]
    if found[which].size:
        _spoil(found[which], truth[which])
    near = (counted(a, t, case.dtype.name) for a, t in zip(found, truth, strict=True))
    return dict(zip(nearness.names(case), near, strict=True))


def _spoil(x: Array, truth: Any) -> None:
    u = nearness.U[x.dtype.name]
    deviations = deviation(truth, u) if isinstance(truth, Spread) else numpy.zeros(x.shape)
    i = numpy.unravel_index(int(deviations.argmax()), deviations.shape)
    x[i] = x[i] + 2 * MOST * deviations[i] if deviations[i] else numpy.nextafter(x[i], x.dtype.type(numpy.inf))


ORDINARY: dict[str, Any] = {"magnitudes": (1,), "letters": (2, 3), "axes": (2,)}


@pytest.mark.one_in(4)
@every_operation
@settings(max_examples=4)
@given(data=st.data())
def test_one_element_that_is_off_by_a_few_deviations_is_caught(name: str, data: st.DataObject) -> None:
    operation = declared(FUNCTIONS[name])
    case = data.draw(cases(operation, **ORDINARY))
    results = len(case.shapes) + len(case.arrays)
    which = data.draw(st.sampled_from(range(results)))
    found = off_in_one_element(case, name, which)
    wrong = found.pop(nearness.names(case)[which])
    assert wrong.size == 0 or wrong.max() > MOST
    assert_near(found)


@pytest.mark.one_in(4)
@every_operation
@settings(max_examples=4)
@given(data=st.data())
def test_a_dropped_term_is_caught(name: str, data: st.DataObject) -> None:
    """One number of one argument is taken for 0, so that a term of every sum that it enters is missing."""
    case = data.draw(cases(declared(FUNCTIONS[name]), **ORDINARY))
    number = data.draw(st.sampled_from([i for i, x in enumerate(case.arrays) if x.size] or [0]))
    x = case.arrays[number].copy()
    x[(0,) * x.ndim] = 0

    def drops(*arrays: Array, **keywords: Any) -> Any:
        return FUNCTIONS[name](*arrays[:number], x, *arrays[number + 1 :], **keywords)

    truth = nearness.of_the_text(TEXT[name], case)
    without = nearness.of_the_text(TEXT[name], case.with_arrays((*case.arrays[:number], x, *case.arrays[number + 1 :])))
    changed = any(not numpy.array_equal(_value(a), _value(b)) for a, b in zip(truth, without, strict=True))
    assert not changed or max(z.max(initial=0) for z in distances(drops, TEXT[name], case).values()) > MOST


def _value(x: Any) -> Array:
    return x.value if isinstance(x, Spread) else numpy.asarray(x)


def test_an_operation_without_a_text_is_refused() -> None:
    assert "softmax" in TEXT
    with pytest.raises(AssertionError, match="has no plain text"):
        test_an_operation_is_its_text.hypothesis.inner_test("swish", None, None)
