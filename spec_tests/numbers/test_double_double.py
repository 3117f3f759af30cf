"""Laws of double-double numbers: each is within its radius of the exact one, and nearly always the nearest double."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

from refllm.numbers import double_double as dd
from refllm.numbers import double_exp, exact, slices
from refllm.numbers.two_doubles import add, divide, multiply, multiply_by, square_root
from refllm.verify import plain
from refllm.verify.sized import profiles

U2 = mpf(2) ** -106
FLOATS = st.floats(-1e30, 1e30, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-30)


@st.composite
def pairs(draw: Any) -> tuple[Any, Any]:
    hi = draw(FLOATS)
    lo = draw(st.floats(-0.5, 0.5)) * math.ulp(hi) if hi else 0.0
    return np.array([hi + lo]), np.array([lo - ((hi + lo) - hi)])


def value(x: tuple[Any, Any]) -> Any:
    return mpf(float(x[0][0])) + mpf(float(x[1][0]))


@given(pairs(), pairs())
def test_a_step_is_as_near_as_is_proven(x: tuple[Any, Any], y: tuple[Any, Any]) -> None:
    with mp.workdps(80), np.errstate(all="ignore"):
        steps = [(add(x, y), value(x) + value(y), 4), (multiply(x, y), value(x) * value(y), 8)]
        steps += [(multiply_by(x, y[0]), value(x) * mpf(float(y[0][0])), 2)]
        if value(y):
            steps.append((divide(x, y), value(x) / value(y), 16))
        if value(x) > 0:
            steps.append((square_root(x), mp.sqrt(value(x)), 4))
        for found, truth, factor in steps:
            assert abs(value(found) - truth) <= factor * U2 * abs(truth) + mpf(2) ** -1000


@settings(max_examples=200)
@given(st.floats(-745, 709), st.floats(-0.5, 0.5))
def test_an_exponential_is_as_near_as_is_proven(x: float, part: float) -> None:
    lo = part * math.ulp(x)
    hi = x + lo
    pair = np.array([hi]), np.array([lo - (hi - x)])
    with mp.workdps(80), np.errstate(all="ignore"):
        truth = mp.exp(value(pair))
        assert abs(value(double_exp.exp(pair)) - truth) <= double_exp.ERROR * truth + double_exp.LOST


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from(["normal", "wide", "outlier", "positive"]))
def test_a_product_of_matrices_is_within_its_bound(K: int, seed: int, profile: str) -> None:
    def matrix(name: str, *shape: int) -> tuple[Any, Any]:
        hi = profiles.made({"profile": profile, "shape": list(shape)}, seed, name) / 3
        return hi, profiles.made({"profile": "normal", "shape": list(shape)}, seed, name + "lo") * 2.0**-60 * abs(hi)

    a, b = matrix("a", 2, K), matrix("b", K, 3)
    (hi, lo), bound = slices.product(a, b)
    with mp.workdps(80):
        for i, j in np.ndindex(2, 3):
            terms = [(mpf(float(a[0][i, k])) + mpf(float(a[1][i, k]))) *
                     (mpf(float(b[0][k, j])) + mpf(float(b[1][k, j]))) for k in range(K)]  # fmt: skip
            assert abs(mpf(float(hi[i, j])) + mpf(float(lo[i, j])) - mp.fsum(terms)) <= mpf(float(bound[i, j]))


def made(profile: str, *shape: int, name: str = "x") -> Any:
    return profiles.made({"profile": profile, "shape": list(shape)}, 3, name)


def arrays(*shapes: tuple[int, ...], profile: str = "normal") -> list[Any]:
    return [made(profile if n == 0 else "normal", *shape, name=f"{n}") for n, shape in enumerate(shapes)]


TEXTS: list[tuple[str, list[Any], dict[str, Any], list[tuple[int, ...]]]] = [
    ("softmax", arrays((2, 9), profile="peaked"), {}, [(2, 9)]),
    ("log_softmax", arrays((4, 9), profile="masked"), {}, [(4, 9)]),
    ("layer_norm", arrays((3, 9), (9,), (9,), profile="offset"), {"eps": 1e-5}, [(3, 9)]),
    ("rms_norm", arrays((3, 9), (9,), profile="wide"), {"eps": 1e-6}, [(3, 9)]),
    ("matmul", arrays((3, 9), (9, 4), profile="wide"), {}, [(3, 4)]),
    ("gelu_erf", arrays((9,), profile="peaked"), {}, [(9,)]),
    ("gelu_tanh", arrays((9,)), {}, [(9,)]),
    ("silu", arrays((9,), profile="peaked"), {}, [(9,)]),
    ("attention", arrays((2, 5, 4), (2, 5, 4), (2, 5, 4)), {"causal": True, "allowed": None}, [(2, 5, 4)]),
    ("rotary_halves", arrays((3, 8)), {"positions": np.array([1, 1000, 131071]), "base": 1e4}, [(3, 8)]),
    ("embedding", arrays((5, 3)), {"ids": np.array([1, 1, 4, 1])}, [(4, 3)]),
    ("lstm", arrays((2, 3, 4), (2, 3), (2, 3), (4, 12), (3, 12), (12,)), {"valid": None}, [(2, 3, 3), (2, 3)]),
    ("cross_entropy", arrays((3, 7)), {"targets": np.array([0, 6, 9]), "ignore": 9, "reduction": "mean"}, [()]),
    ("top_experts", arrays((3, 6)), {"k": 2, "renormalise": True}, [(3, 6)]),
]


@pytest.mark.parametrize(("operation", "inputs", "keywords", "shapes"), TEXTS, ids=[text[0] for text in TEXTS])
def test_a_text_is_within_its_radius_of_the_exact_one(
    operation: str, inputs: list[Any], keywords: dict[str, Any], shapes: list[tuple[int, ...]]
) -> None:
    """The two kinds of truth agree where both reach: of every probe, in other words, and of all the rest."""
    function = plain.operations()[operation]
    pull = [made("normal", *shape, name=f"dy{n}") for n, shape in enumerate(shapes)]

    def all_of(numbers: Any) -> list[Any]:
        y, back = function(*numbers.lift(inputs), **numbers.lift(keywords))
        dx = back(*numbers.lift(pull))
        return [*(y if isinstance(y, tuple) else (y,)), *(dx if isinstance(dx, tuple) else (dx,))]

    with dd.plain_numbers(), np.errstate(all="ignore"):
        found = all_of(dd)
    with exact.digits(320):  # of erfc exact numbers keep what is not far below their last digit
        for near, true in zip(found, all_of(exact), strict=True):
            for i in np.ndindex(near.shape):
                truth = true.nodes[i].value
                if mp.isfinite(truth):
                    error = abs(mpf(float(near.hi[i])) + mpf(float(near.lo[i])) - truth)
                    assert error <= mpf(float(near.radius[i])) + mpf(10) ** -50
                    assert not near.settled()[i] or float(truth) == near.hi[i]
                else:
                    assert float(truth) == near.hi[i]
            assert (near.settled() | (near.radius < 1e-24)).all()


def test_a_sum_that_cancels_is_known_to_its_radius_and_not_settled() -> None:
    x = dd.lift(np.array([1.0])) / 3
    rest = x + x + x - 1
    assert rest.radius[0] >= abs(rest.hi[0])
    assert rest.radius[0] > 0


def test_what_overflows_is_infinite_and_what_vanishes_is_zero() -> None:
    with np.errstate(all="ignore"):
        y = dd.Mathematics.exp(dd.lift(np.array([-np.inf, -2000.0, 2000.0])))
    assert y.hi.tolist() == [0.0, 0.0, math.inf]
