"""Every operation on a device: NumPy's numbers, no transfer, no waiting; and the rules hold there too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm import backend
from spec_tests import rules
from spec_tests import subject as subjects
from spec_tests.devices import (
    DOUBLE,
    REPLACED,
    Device,
    assert_agrees,
    assert_same,
    brought_back,
    every_device,
    moved,
    replaced,
    value_and_gradients,
)
from spec_tests.operations import Operation, cases, declared, operation_functions

FUNCTIONS = {function.__name__: function for function in operation_functions()}
OPERATIONS = [declared(function) for function in FUNCTIONS.values()]
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


@pytest.mark.one_in(18)
@every_device
@every_operation
@given(data=st.data())
def test_an_operation_computes_what_it_does_on_the_host_and_waits_for_nothing(
    operation: Operation, device: Device, data: st.DataObject
) -> None:
    magnitudes = (1, 30) if device.exact else (1,)
    case = data.draw(cases(operation, magnitudes=magnitudes))
    f = FUNCTIONS[operation.name]
    assert_agrees(device, lambda *a: value_and_gradients(f, *a), case.arrays, case.keywords, case.cotangents())


def _normal(*shape: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).standard_normal(shape).astype("float32")


LARGE: dict[str, tuple[Any, Any, Any]] = {
    "attention": (
        (_normal(2, 70, 4), _normal(2, 600, 4, seed=1), _normal(2, 600, 3, seed=2)),
        {"causal": True, "attention_mask": numpy.random.default_rng(0).random((70, 600)) < 0.5},
        (_normal(2, 70, 3, seed=3),),
    ),
    "biased_attention": (
        (_normal(2, 2, 70, 4), _normal(2, 2, 600, 4, seed=1), _normal(2, 2, 600, 3, seed=2), _normal(2, 669, seed=3)),
        {"causal": True, "attention_mask": None},
        (_normal(2, 2, 70, 3, seed=4),),
    ),
    "rms_norm": ((_normal(30_000, 7), _normal(7)), {"eps": 1e-5}, (_normal(30_000, 7, seed=1),)),
    "silu": ((_normal(300_000),), {}, (_normal(300_000, seed=1),)),
    "layer_norm": ((_normal(30_000, 7), _normal(7), _normal(7)), {"eps": 1e-5}, (_normal(30_000, 7, seed=1),)),
    "gelu_tanh": ((_normal(300_000),), {}, (_normal(300_000, seed=1),)),
}


@every_device
@pytest.mark.parametrize("name", LARGE)
def test_several_tiles_or_blocks_agree(name: str, device: Device) -> None:
    assert_agrees(device, lambda *a: value_and_gradients(FUNCTIONS[name], *a), *LARGE[name])


RULES: dict[Callable[..., None], tuple[int, dict[str, Any]]] = {
    rules.shapes_and_dtypes_are_kept: (4, {}),
    rules.arguments_are_unchanged: (4, {}),
    rules.pullback_is_pure: (3, {}),
    rules.pullback_is_linear: (3, {"dtypes": ("float64",), "magnitudes": (1,)}),
    rules.gradients_agree_with_differences: (
        3,
        {"dtypes": ("float64",), "magnitudes": (1,), "letters": (1, 2, 3), "axes": (1, 2), "most_axes": 1},
    ),
}


@pytest.mark.one_in(24)
@every_device
@every_operation
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rules_hold_on_a_device(rule: Callable[..., None], operation: Operation, device: Device) -> None:
    """All rules with all examples: pytest --device=double."""
    examples, drawn = RULES[rule]
    implementation = subjects.on_device(device).operation(operation.name)

    @settings(max_examples=examples)
    @given(case=cases(operation, **drawn))
    def examine(case: Any) -> None:
        rule(implementation, case)

    examine()


@every_device
@given(index=st.lists(st.integers(0, 2), max_size=9), dtype=st.sampled_from(["float32", "float64"]))
def test_scatter_add_agrees_to_the_rounding_of_another_order(device: Device, index: list[int], dtype: str) -> None:
    rows = numpy.random.default_rng(len(index)).standard_normal((len(index), 2)).astype(dtype)
    target, places = numpy.ones((3, 2), dtype), numpy.array(index, dtype=int)
    with device.present():
        there = moved(target)
        with device.counting() as counts:
            backend.scatter_add(there, *(moved([places, rows])))
        assert counts.device_to_host == counts.synchronisations == 0
        there = brought_back(there)
    backend.scatter_add(target, places, rows)
    numpy.testing.assert_allclose(there, target, rtol=0, atol=20 * float(numpy.finfo(dtype).eps))


@every_device
@pytest.mark.parametrize(("dtype", "ulps"), [("float32", 60), ("float64", 60)])
def test_erfc_agrees_to_a_few_ulp(device: Device, dtype: str, ulps: int) -> None:
    """Of a number x² that the exponential has magnified: 36 / 2 at most from either side."""
    x: Any = numpy.linspace(-6, 6, 999).astype(dtype)
    with device.present():
        there = brought_back(backend.erfc(moved(x)))
    numpy.testing.assert_allclose(there, backend.erfc(x), rtol=ulps * float(numpy.finfo(dtype).eps))


@every_device
@given(x=st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=20))
def test_the_running_maximum_is_the_hosts(device: Device, x: list[float]) -> None:
    assert_agrees(device, backend.running_maximum, numpy.array([x]) + 0.0)  # 0 for -0: their maximum may be either


DIFFERENT: dict[str, Callable[[], Any]] = {
    "scatter_add": lambda: FUNCTIONS["embedding"](_normal(1, 2), ids=numpy.zeros(99, int))[1](_normal(99, 2)),
    "erfc": lambda: FUNCTIONS["gelu_erf"](_normal(99))[0],
    "row_blocks": lambda: FUNCTIONS["layer_norm"](_normal(30_000, 7), _normal(7), _normal(7), eps=0.1)[1](
        _normal(30_000, 7, seed=1)
    ),
}


def test_no_function_is_replaced_for_a_comparison_that_need_not_be() -> None:
    assert DIFFERENT.keys() == REPLACED.keys()
    for name, compute in DIFFERENT.items():
        with replaced(*(REPLACED.keys() - {name})):
            without = compute()
        with replaced():
            everything = compute()
        with pytest.raises(AssertionError, match="has other bits"):
            assert_same(DOUBLE, without, everything)
