"""The tape's derivatives against central differences at 60 digits, and its conditions against their definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from golden import forms, formulas, long, switch, tape
from golden.tape import Node, conditions, constant, gradients

H = mpf(10) ** -20  # central differences err by H^2 = 1e-40, of the 60 digits the division by H leaves 40


def by_differences(f: Callable[..., Any], x: list[Any], i: int) -> Any:
    shifted = [[a + side * H * (i == n) for n, a in enumerate(x)] for side in (1, -1)]
    up, down = (f(*[Node(a) for a in point]).value for point in shifted)
    return (up - down) / (2 * H)


def check_gradient(f: Callable[..., Any], x: list[float]) -> None:
    with mp.workdps(60):
        point = [mpf(a) for a in x]
        inputs = [Node(a) for a in point]
        found = gradients([f(*inputs)], [constant(1)], inputs)
        for i, slope in enumerate(found):
            assert abs(slope.value - by_differences(f, point, i)) < mpf(10) ** -30 * (1 + abs(slope.value))


FUNCTIONS: dict[str, tuple[Callable[..., Any], list[float]]] = {
    "sum": (lambda a, b, c: tape.total([a, b, c, a]), [0.3, -1.25, 2.0]),
    "difference": (lambda a, b: 3 - (a - b) - 2, [0.3, -1.25]),
    "product": (lambda a, b: 2 * a * b * a, [0.3, -1.25]),
    "quotient": (lambda a, b: a / b + 2 / a, [0.3, -1.25]),
    "negation": (lambda a: -(a * a), [0.3]),
    "exp": (lambda a: tape.exp(-a * a), [0.7]),
    "log": (lambda a: tape.log(a * 3), [0.7]),
    "sqrt": (lambda a: tape.sqrt(a + 1), [0.7]),
    "tanh": (lambda a: tape.tanh(a * a), [0.7]),
    "erf": (lambda a: tape.erf(a * 2), [0.7]),
    "erfc": (lambda a: tape.erfc(a * 2), [0.7]),
    "logsumexp": (lambda a, b: tape.logsumexp([a * b, b, a]), [0.3, -1.25]),
    "sin": (lambda a: tape.sin(a * a), [1.7]),
    "cos": (lambda a: tape.cos(a * a), [1.7]),
    "shared": (lambda a, b: tape.exp(a) * tape.exp(a) / (tape.exp(a) + b), [0.5, 1.5]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_derivative_is_the_limit_of_differences(name: str) -> None:
    check_gradient(*FUNCTIONS[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_gradient_is_a_formula_with_a_gradient_of_its_own(name: str) -> None:
    f, x = FUNCTIONS[name]

    def slope(*inputs: Node) -> Node:
        return tape.total(g * (n + 1) for n, g in enumerate(gradients([f(*inputs)], [constant(1)], inputs)))

    check_gradient(slope, x)


OPERATIONS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "softmax": (formulas.softmax, [(2, 3)]),
    "log_softmax": (formulas.log_softmax, [(2, 3)]),
    "layer_norm": (lambda x, g, b: formulas.layer_norm(x, g, b, eps=0.1), [(2, 3), (3,), (3,)]),
    "attention": (lambda q, k, v: formulas.attention(q, k, v, causal=True, allowed=None), [(2, 3), (3, 3), (3, 2)]),
    "gelu_tanh": (formulas.gelu_tanh, [(4,)]),
    "gelu_erf": (formulas.gelu_erf, [(4,)]),
    "gelu_erf_inside": (formulas.gelu_erf_inside, [(4,)]),
    "rms_norm": (lambda x, g: long.rms_norm(x, g, eps=0.1), [(2, 3), (3,)]),
    "silu": (long.silu, [(4,)]),
    "rotary": (lambda x: long.rotary_halves(x, positions=np.array([2, 9]), base=100.0), [(2, 4)]),
    "relative_attention": (
        lambda q, k, v, r: long.relative_attention(q, k, v, r, causal=True, allowed=None),
        [(2, 2, 2), (2, 3, 2), (2, 3, 1), (2, 4)],
    ),
    "info_nce": (lambda a, b: np.atleast_1d(formulas.info_nce(a, b, temperature=0.5)), [(3, 2), (3, 2)]),
    "load_balance": (lambda p: switch.load_balance(p, chosen=np.array([[0, 1], [1, 1]]), valid=None), [(2, 2, 2)]),
}


@pytest.mark.parametrize("reading", range(3))
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_gradient_of_an_operation_is_the_limit_of_differences_in_every_form(name: str, reading: int) -> None:
    operation, shapes = OPERATIONS[name]
    sizes = [int(np.prod(shape)) for shape in shapes]
    numbers = np.random.default_rng(0).normal(size=sum(sizes)).round(3).tolist()

    def weighted(*inputs: Node) -> Node:
        flat = np.array(inputs, dtype=object)
        arrays = [a.reshape(s) for a, s in zip(np.split(flat, np.cumsum(sizes)[:-1]), shapes, strict=True)]
        return tape.total(y * (n - 1.5) for n, y in enumerate(operation(*arrays).flat))

    with forms.reading(reading):
        check_gradient(weighted, numbers)


def test_a_cotangent_weighs_its_output() -> None:
    a, b = Node(mpf(2)), Node(mpf(5))
    found = gradients([a * b, a + b], [constant(3), constant(-1)], [a, b])
    assert [g.value for g in found] == [3 * 5 - 1, 3 * 2 - 1]


def test_an_input_that_the_output_does_not_use_has_gradient_zero() -> None:
    a, b = Node(mpf(2)), Node(mpf(5))
    assert gradients([a * a], [constant(1)], [b])[0].value == 0


def test_the_condition_sums_effect_times_size_over_every_node() -> None:
    """t = (a - b) c: inputs a, b, c, the difference and the product itself."""
    a, b, c = Node(mpf(10)), Node(mpf(9)), Node(mpf(3))
    assert conditions([(a - b) * c])[0].tolist() == [10 * 3 + 9 * 3 + 3 * 1 + 1 * 3 + 3]


def test_what_is_wide_has_a_condition_of_its_own() -> None:
    a, b, c = Node(mpf(10)), tape.wide(Node(mpf(9))), Node(mpf(3))
    narrow, wide = conditions([tape.wide(a - b) * c])
    assert narrow.tolist() == [10 * 3 + 3 * 1 + 3]
    assert wide.tolist() == [9 * 3 + 1 * 3]


def test_the_condition_of_many_outputs_is_the_condition_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    x = [Node(mpf(n) / 7) for n in range(1, 6)]
    outputs = formulas.softmax_row(x)
    together = conditions(outputs)[0]
    assert together.tolist() == [conditions([y])[0].item() for y in outputs]
    monkeypatch.setattr(tape, "CHUNK", 2)
    assert conditions(outputs)[0].tolist() == together.tolist()


def test_a_cancelled_gradient_keeps_a_condition() -> None:
    """The gradient of a shift of softmax is exactly 0, but no implementation computes an exact 0."""
    with mp.workdps(50):
        x, shift = [Node(mpf(n) / 3) for n in range(3)], Node(mpf(1))
        y = formulas.softmax_row([a + shift for a in x])
        (slope,) = gradients(y, [constant(n) for n in (1, -2, 5)], [shift])
        assert abs(slope.value) < mpf(10) ** -45
        assert conditions([slope])[0][0] > 0.1
