"""The predicted spread is that of float32: in sums of any order, in every function, and in operations at size."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refllm
from refllm import spec
from refllm.backend import Array
from refllm.numbers.spread import ROUNDING, Arithmetic, Spread, deviation, lift
from refllm.spec import array
from refllm.spec.array import (
    concatenate,
    constant,
    erfc,
    exp,
    is_zero,
    like,
    log,
    power,
    scatter_add,
    sigmoid,
    spread,
    sqrt,
    stack,
    sum,
    tanh,
    top,
    total,
    where,
    zeros,
)  # fmt: skip
from refllm.verify import adapter, reference
from refllm.verify.keywords import from_adapter

TORCH = Path(refllm.__file__).resolve().parents[1] / "scripts/adapters/torch_adapter.py"
BLAS = Arithmetic(chain=512)  # what the products of a CPU's library take in one accumulator
OPERATIONS = spec.operations()
U = 2.0**-24


def drawn(*shape: int, seed: int = 0) -> Array:
    return numpy.random.default_rng([seed, *shape]).standard_normal(shape).astype(numpy.float32)


def distances(found: Any, predicted: Spread) -> Array:
    """|error| / deviation. Where nothing is predicted, nothing may be wrong."""
    error = abs(numpy.asarray(found, float) - predicted.value)
    deviations = deviation(predicted, U)
    assert (error[deviations == 0] == 0).all(), "wrong where the text does not round"
    return error[deviations > 0] / deviations[deviations > 0]


def rms(z: Array) -> float:
    return float(numpy.sqrt((z * z).mean()))


# --- sums ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 17, 64])
@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_the_spread_of_a_sum_is_that_of_all_its_orders(n: int, mean: float) -> None:
    """One accumulator, 4,000 random orders of 8 sums."""
    random = numpy.random.default_rng(n)
    x = (random.standard_normal((8, n)) + mean).astype(numpy.float32)
    predicted = sum(lift(x), keepdims=False)
    z = []
    for _ in range(4000):
        order = random.permuted(x, axis=1)
        z.append((numpy.cumsum(order, axis=1, dtype=numpy.float32)[:, -1] - predicted.value) / deviation(predicted, U))
    assert 0.75 < rms(numpy.array(z)) < 1.25  # measured: 0.87 to 1.08


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_a_long_sum_is_taken_by_chains_of_chains(mean: float) -> None:
    random = numpy.random.default_rng(0)
    x = (random.standard_normal((4, 4096)) + mean).astype(numpy.float32)
    predicted = sum(lift(x), keepdims=False)
    z = []
    for _ in range(500):
        chains = random.permuted(x, axis=1).reshape(4, 64, 64)
        partial = numpy.cumsum(chains, axis=2, dtype=numpy.float32)[..., -1]
        z.append((numpy.cumsum(partial, axis=1)[..., -1] - predicted.value) / deviation(predicted, U))
    assert 0.75 < rms(numpy.array(z)) < 1.25


def test_a_longer_chain_has_a_larger_spread() -> None:
    x = drawn(4096) + numpy.float32(1)
    deviations = [deviation(total(lift(x, Arithmetic(chain=chain))), U) for chain in (8, 64, 4096)]
    assert deviations[0] < deviations[1] / 1.5 < deviations[2] / 3


@pytest.mark.parametrize("n", [1, 5, 64, 4096])
def test_a_product_of_matrices_is_predicted(n: int) -> None:
    a, b = drawn(30, n), drawn(n, 40, seed=1)
    z = distances(a @ b, lift(a, BLAS) @ lift(b, BLAS))
    assert 0.2 < rms(z) < 1.5
    assert z.max() < 8


@given(n=st.integers(1, 200), seed=st.integers(0, 99))
def test_a_scattered_sum_is_a_sum(n: int, seed: int) -> None:
    x, index = drawn(n, 3, seed=seed), numpy.random.default_rng(seed).integers(0, 4, n)
    found = scatter_add(index, lift(x), 4)
    for i in range(4):
        one = sum(lift(x)[index == i], axis=0, keepdims=False)
        numpy.testing.assert_allclose(found.value[i], one.value, atol=1e-13)
        numpy.testing.assert_allclose(found.variance[i], one.variance, rtol=1e-9)


# --- operators and functions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("f", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b])
def test_an_operator_rounds_once(f: Callable[[Any, Any], Any]) -> None:
    a, b = drawn(200, 200), drawn(200, 200, seed=1)
    z = distances(f(a, b), f(lift(a), lift(b)))
    assert 0.9 < rms(z) < 1.1
    assert z.max() <= 1 / numpy.sqrt(ROUNDING) + 1e-9  # the error is u |y| at most


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "sigmoid", "sin", "cos", "erfc"])
def test_a_function_is_predicted_through_its_slope(name: str) -> None:
    """Of a product, so that an error arrives which the slope enlarges."""
    a, b = abs(drawn(100, 100)) + numpy.float32(0.1), abs(drawn(100, 100, seed=1)) + numpy.float32(0.1)
    f = getattr(array, name)
    z = distances(f(a * b), f(lift(a) * lift(b)))
    assert 0.5 < rms(z) < 1.6
    assert z.max() < 8


def test_a_power_is_predicted() -> None:
    x = abs(drawn(1000)) + numpy.float32(0.1)
    assert 0.5 < rms(distances(numpy.power(x * x, numpy.float32(2.5)), power(lift(x) * lift(x), 2.5))) < 1.6


def test_what_is_exact_has_no_spread() -> None:
    x = lift(drawn(4, 6))
    exact = [
        x, -x, x * 2, x / 4, 0 * x, x + 0, 0 - x, x[1], x.T, x.reshape(6, 4), x.swapaxes(0, 1), where(x > 0, x, 0),
        top(x), is_zero(x), constant(x), spread(x[:1], (3, 6)), stack([x, 1 - 0 * x], axis=0),
        concatenate([x, zeros((4, 1), x)], axis=1), sum(x[:, :1]), sum(where(x == top(x), x, 0)),
        like(numpy.arange(5), x), x @ like(numpy.eye(6), x), lift(numpy.float32(3.0)) * numpy.array([0.5, 2.0]),
        exp(lift(numpy.array([-numpy.inf]))), scatter_add(numpy.arange(4), x, 5), tanh(lift(numpy.array([1e6]))),
    ]  # fmt: skip
    for y in exact:
        assert not y.variance.any(), y.value


@given(st.floats(min_value=20, max_value=300))
def test_what_is_left_of_a_limit_is_allowed(x: float) -> None:
    """float64 has 1 + tanh(-40) = 0, and a form that does not cancel has 4e-35."""
    left = {tanh: 2 / (1 + math.exp(2 * x)), sigmoid: 1 / (1 + math.exp(x)), erfc: math.erfc(x)}
    for f, exact in left.items():
        limit = {tanh: 1.0, sigmoid: 1.0, erfc: 2.0}[f]
        y = limit - f(lift(numpy.array([-x if f is erfc else x]), Arithmetic(underflow=0.0)))
        assert abs(y.value - exact) <= 12 * numpy.sqrt(y.variance) + 1e-150
        assert y.variance <= 16.0  # of float64, in units of its roundoff


def test_a_plain_number_is_rounded_unless_it_is_short() -> None:
    x = lift(numpy.array([3.0]))
    assert (x + 0.75).variance == pytest.approx(ROUNDING * 3.75**2)
    assert (x + 0.1).variance == pytest.approx(ROUNDING * (0.1**2 + 3.1**2))


def test_forbidden_scores_have_no_spread() -> None:
    x = lift(drawn(3, 4)) * 3
    s = where(numpy.array([[True] * 4, [True, False, True, False], [False] * 4]), x, float("-inf"))
    P, back = OPERATIONS["softmax"](s)
    dx = back(lift(drawn(3, 4, seed=1)))
    log_P, log_back = OPERATIONS["log_softmax"](s)
    for y in (P, dx, log_P, log_back(lift(drawn(3, 4, seed=2)))):
        assert numpy.isfinite(y.variance).all()
    assert not P.variance[2].any()
    assert not P.variance[1, [1, 3]].any()


def test_what_underflows_is_expected_to() -> None:
    """float32 has nothing between 0 and 1e-45; what is multiplied with 1e30 afterwards is off by so much more."""
    x, large = numpy.float32(-100.3) * numpy.ones(5, numpy.float32), numpy.float32(1e30)
    z = distances(numpy.exp(x) * large, exp(lift(x)) * lift(large))
    assert z.max() < 5


def test_trees_are_lifted_and_whole_numbers_stay() -> None:
    tree = lift({"a": [drawn(2)], "ids": numpy.arange(3), "n": 4, "rate": 0.5, "none": None})
    assert isinstance(tree["a"][0], Spread)
    assert tree["ids"].dtype.kind == "i"
    assert (tree["n"], tree["rate"], tree["none"]) == (4, 0.5, None)


def test_the_arithmetic_of_a_value_goes_with_it() -> None:
    arithmetic = Arithmetic(chain=8)
    x = lift(drawn(3, 4), arithmetic)
    for y in (x + 1, 1 - x, x @ x.T, sum(x), exp(x), sqrt(x * x), log(x * x), x[0], where(x > 0, x, 0)):
        assert y.arithmetic is arithmetic


# --- operations at size -----------------------------------------------------------------------------------------------

SEQUENCE = {"causal": True, "attention_mask": None}
ADAM = {"step": 10, "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.01}
AT_SIZE: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "softmax": ("softmax", (5 * drawn(16, 4096),), {}),
    "log_softmax": ("log_softmax", (5 * drawn(16, 4096),), {}),
    "attention": ("attention", tuple(drawn(2, 129, 64, seed=i) for i in range(3)), SEQUENCE),
    "wide attention": ("attention", tuple(drawn(1, 513, 128, seed=i) for i in range(3)), SEQUENCE | {"causal": False}),
    "layer_norm": ("layer_norm", (drawn(64, 4096) + numpy.float32(3), drawn(4096), drawn(4096, seed=1)), {"eps": 1e-5}),
    "rms_norm": ("rms_norm", (drawn(64, 4096), drawn(4096)), {"eps": 1e-5}),
    "cross_entropy": (
        "cross_entropy",
        (3 * drawn(64, 4096),),
        {"targets": numpy.arange(64) * 60, "ignore": None, "reduction": "mean"},
    ),
    "linear": ("linear", (drawn(129, 4096), drawn(4096, 64), drawn(64)), {}),
    "gelu_tanh": ("gelu_tanh", (3 * drawn(129, 64),), {}),
    "gelu_erf": ("gelu_erf", (3 * drawn(129, 64),), {}),
    "silu": ("silu", (3 * drawn(129, 64),), {}),
    "rotary": ("rotary_halves", (drawn(2, 129, 64),), {"positions": numpy.arange(129), "base": 10000.0}),
    "lstm": (
        "lstm",
        (
            drawn(4, 65, 32),
            drawn(4, 32),
            drawn(4, 32, seed=1),
            drawn(32, 128) / 8,
            drawn(32, 128, seed=1) / 8,
            drawn(128),
        ),
        {"token_mask": None},
    ),
    "adamw": ("adamw", (*(drawn(129, 64, seed=i) for i in range(3)), drawn(129, 64, seed=3) ** 2), ADAM),
}


def results(found: Any, seed: int) -> list[Any]:
    """The values, and the gradients for a random cotangent of each."""
    value, back = found if callable(found[1]) else (found, None)
    values = list(value) if isinstance(value, tuple) else [value]
    if back is None:
        return values
    kinds = {True: lambda x: lift(x, BLAS), False: lambda x: x}
    dy = [kinds[isinstance(y, Spread)](numpy.asarray(drawn(*y.shape, seed=seed + i))) for i, y in enumerate(values)]
    gradients = back(*dy)
    return values + list(gradients if isinstance(gradients, tuple) else (gradients,))


def z_of(operation: str, f: Callable[..., Any], arrays: tuple[Any, ...], keywords: dict[str, Any]) -> list[Array]:
    with numpy.errstate(all="ignore"):
        predicted = results(OPERATIONS[operation](*lift(arrays, BLAS), **keywords), 7)
        found = results(f(*arrays, **keywords), 7)
    return [distances(a, t if isinstance(t, Spread) else lift(t)) for a, t in zip(found, predicted, strict=True)]


# Of the root mean square of many numbers; measured: 0.4 to 1.3 for the text in float32, for refllm.ops and for PyTorch.
BAND = 0.2, 1.5
# Of the largest; measured: 7.0 for refllm.ops (the rational approximation in its erfc), 9.2 for PyTorch (its layer norm
# forms x times one number plus another instead of taking the mean off first), 5.9 else.
LARGEST = 12.0


def assert_predicted(case: str, distances_of_results: list[Array]) -> None:
    for number, z in enumerate(distances_of_results):
        if z.size:
            assert rms(z) < BAND[1], (case, number, rms(z))
            assert z.size < 100 or rms(z) > BAND[0], (case, number, rms(z))
            assert z.max() < LARGEST, (case, number, z.max())


@pytest.mark.one_in(4)
@pytest.mark.parametrize("case", AT_SIZE)
def test_the_error_of_the_text_in_float32_is_predicted_at_size(case: str) -> None:
    operation, arrays, keywords = AT_SIZE[case]
    assert_predicted(case, z_of(operation, OPERATIONS[operation], arrays, keywords))


@pytest.mark.one_in(4)
@pytest.mark.parametrize("case", AT_SIZE)
def test_the_error_of_the_fast_operations_is_predicted_at_size(case: str) -> None:
    operation, arrays, keywords = AT_SIZE[case]
    assert_predicted(case, z_of(operation, reference.functions()[operation], arrays, keywords))


@pytest.mark.oracle
@pytest.mark.parametrize("case", AT_SIZE)
def test_the_error_of_pytorch_is_predicted_at_size(case: str) -> None:
    pytest.importorskip("torch")
    operation, arrays, keywords = AT_SIZE[case]
    functions = from_adapter(adapter.from_file(TORCH).functions)
    if operation not in functions:
        pytest.skip(f"the adapter of PyTorch has no {operation}")
    found = z_of(operation, functions[operation], arrays, keywords)
    if case != "gelu_erf":
        assert_predicted(case, found)
    else:  # it forms 1 + erf, which loses the small tail
        assert min(z.max() for z in found) > 1000


def test_a_wrong_formula_is_not_predicted() -> None:
    """The variance of all but one number instead of all, as in many an exercise: one part in 8,192 of the deviation."""
    operation, (x, g, b), keywords = AT_SIZE["layer_norm"]

    def unbiased(x: Array, g: Array, b: Array, *, eps: float) -> Any:
        y, back = OPERATIONS["layer_norm"](x, g * numpy.sqrt(numpy.float32(1 - 1 / x.shape[-1])), b, eps=eps)
        return y, back

    with pytest.raises(AssertionError):
        assert_predicted("unbiased", z_of(operation, unbiased, (x, g, b), keywords))
