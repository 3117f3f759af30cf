"""SGD, Adam and AdamW against their formulas in exact or 50-digit arithmetic. (SGD, ADAM, ADAMW)"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import mpmath
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.optim.update import adam, adamw, sgd

numbers = st.floats(-10, 10).map(lambda x: round(x, 3))
shares = st.sampled_from([0.0, 0.5, 0.9, 0.999])
seeds = st.integers(0, 999)
HYPER: dict[str, Any] = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
ADAMS = pytest.mark.parametrize("rule", [adam, adamw])


def arrays(seed: int, shape: tuple[int, ...] = (3, 5), dtype: str = "float64") -> Any:
    """p, g, m, v of one shape; v, an average of squares, is not negative."""
    random = numpy.random.default_rng(seed)
    p, g, m, v = (random.standard_normal(shape).astype(dtype) for _ in range(4))
    return p, g, m, v * v


@given(p=numbers, g=numbers, v=numbers, lr=numbers, momentum=shares, decay=shares)
def test_sgd_is_its_formula(p: float, g: float, v: float, lr: float, momentum: float, decay: float) -> None:
    new_p, new_v = sgd(*(numpy.array([x]) for x in (p, g, v)), lr=lr, momentum=momentum, decay=decay)
    fp, fg, fv, flr, fmu, fdecay = map(Fraction, (p, g, v, lr, momentum, decay))
    velocity = fmu * fv + fg + fdecay * fp
    assert new_v[0] == pytest.approx(float(velocity), rel=1e-13, abs=1e-13)
    assert new_p[0] == pytest.approx(float(fp - flr * velocity), rel=1e-13, abs=1e-12)


def adam_in_50_digits(
    p: float, g: float, m: float, v: float, *, step: int, lr: float, beta1: float, beta2: float, eps: float,
    coupled: float, decoupled: float,
) -> tuple[float, float, float]:  # fmt: skip
    with mpmath.workdps(50):
        p, g, m, v, lr, beta1, beta2, eps, coupled, decoupled = map(
            mpmath.mpf, (p, g, m, v, lr, beta1, beta2, eps, coupled, decoupled)
        )
        g = g + coupled * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
        p = p - lr * decoupled * p - lr * m_hat / (mpmath.sqrt(v_hat) + eps)
        return float(p), float(m), float(v)


@pytest.mark.parametrize(("rule", "which"), [(adam, "coupled"), (adamw, "decoupled")], ids=["adam", "adamw"])
@given(
    p=numbers, g=numbers, m=numbers, v=numbers.map(abs), step=st.integers(1, 10**5), beta1=shares, beta2=shares,
    eps=st.sampled_from([1e-8, 1e-3, 1.0]), decay=st.sampled_from([0.0, 0.1]),
)  # fmt: skip
def test_adam_and_adamw_are_their_formulas(
    rule: Callable[..., Any], which: str, p: float, g: float, m: float, v: float, step: int, beta1: float,
    beta2: float, eps: float, decay: float,
) -> None:  # fmt: skip
    got = rule(
        *(numpy.array([x]) for x in (p, g, m, v)),
        step=step, lr=1e-2, beta1=beta1, beta2=beta2, eps=eps, decay=decay,
    )  # fmt: skip
    penalties = {"coupled": 0.0, "decoupled": 0.0, which: decay}
    exact = adam_in_50_digits(p, g, m, v, step=step, lr=1e-2, beta1=beta1, beta2=beta2, eps=eps, **penalties)
    for a, b in zip(got, exact, strict=True):
        assert a[0] == pytest.approx(b, rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_hundred_steps_in_a_row_follow_the_formula(decay: float) -> None:
    p, m, v = numpy.array([0.7]), numpy.zeros(1), numpy.zeros(1)
    exact = (0.7, 0.0, 0.0)
    for step in range(1, 101):
        g = numpy.sin(3 * p + step)
        exact = adam_in_50_digits(exact[0], float(g[0]), *exact[1:], step=step, **HYPER, coupled=0.0, decoupled=decay)
        p, m, v = adamw(p, g, m, v, step=step, **HYPER, decay=decay)
        assert (p[0], m[0], v[0]) == pytest.approx(exact, rel=1e-10)


@ADAMS
@given(seed=seeds)
def test_without_history_and_eps_the_first_step_moves_by_lr_against_the_sign(
    rule: Callable[..., Any], seed: int
) -> None:
    p, g, _, _ = arrays(seed)
    zero = numpy.zeros_like(p)
    moved, _, _ = rule(p, g, zero, zero, step=1, **{**HYPER, "eps": 1e-300}, decay=0.0)
    numpy.testing.assert_allclose(moved - p, -1e-2 * numpy.sign(g), rtol=1e-12)


@given(seed=seeds, step=st.integers(1, 1000))
def test_without_decay_adam_is_adamw(seed: int, step: int) -> None:
    one, other = (rule(*arrays(seed), step=step, **HYPER, decay=0.0) for rule in (adam, adamw))
    for a, b in zip(one, other, strict=True):
        assert numpy.array_equal(a, b)


def test_with_decay_they_differ_and_adamws_shrinks_by_lr_times_decay() -> None:
    p, g, m, v = arrays(0)
    plain, m0, v0 = adamw(p, g, m, v, step=3, **HYPER, decay=0.0)
    decayed, m1, v1 = adamw(p, g, m, v, step=3, **HYPER, decay=0.5)
    numpy.testing.assert_allclose(plain - decayed, 1e-2 * 0.5 * p, rtol=1e-10, atol=1e-15)
    assert numpy.array_equal(m0, m1)
    assert numpy.array_equal(v0, v1)
    assert not numpy.allclose(adam(p, g, m, v, step=3, **HYPER, decay=0.5)[0], decayed)


RULES: dict[str, tuple[Callable[..., Any], int]] = {  # a step with decay, and how many arrays it takes
    "sgd": (partial(sgd, lr=0.1, momentum=0.9, decay=0.1), 3),
    "adam": (partial(adam, step=2, **HYPER, decay=0.1), 4),
    "adamw": (partial(adamw, step=2, **HYPER, decay=0.1), 4),
}
EVERY = pytest.mark.parametrize(("rule", "takes"), RULES.values(), ids=RULES)
SHAPES = st.sampled_from([(), (1,), (7,), (0,), (3, 4), (2, 70_000)])


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(seed=seeds, shape=SHAPES)
def test_arguments_are_only_read(
    rule: Callable[..., Any], takes: int, dtype: str, seed: int, shape: tuple[int, ...]
) -> None:
    given_ = [numpy.asarray(x, dtype) for x in arrays(seed, shape)[:takes]]
    before = [x.tobytes() for x in given_]
    for x in given_:
        x.setflags(write=False)
    results = rule(*given_)
    assert [x.tobytes() for x in given_] == before
    assert [(x.shape, x.dtype) for x in results] == [(shape, dtype)] * (takes - 1)
    assert not any(numpy.shares_memory(a, b) for a in results for b in given_)


@EVERY
@given(seed=seeds, shape=st.sampled_from([(7,), (3, 4), (2, 70_000)]))
def test_writing_over_the_arguments_gives_the_same_bits(
    rule: Callable[..., Any], takes: int, seed: int, shape: tuple[int, ...]
) -> None:
    p, g, *state = arrays(seed, shape, "float32")[:takes]
    fresh = rule(p, g, *state)
    out = rule(p, g, *state, out=(p, *state))
    for new, own, wanted in zip(out, (p, *state), fresh, strict=True):
        assert new is own
        assert numpy.array_equal(own, wanted)


@EVERY
def test_shapes_that_differ_are_refused(rule: Callable[..., Any], takes: int) -> None:
    p, g, *state = arrays(0)[:takes]
    with pytest.raises(ValueError, match=r"g must be"):
        rule(p, g[:2], *state)


@ADAMS
@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, math.nan)])
def test_averages_that_never_forget_are_refused(rule: Callable[..., Any], betas: tuple[float, float]) -> None:
    how = {**HYPER, "beta1": betas[0], "beta2": betas[1]}
    with pytest.raises(ValueError, match="needs 0 <= beta < 1 for both"):
        rule(*arrays(0), step=1, **how, decay=0.0)


@ADAMS
def test_steps_count_from_one(rule: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="step counts from 1"):
        rule(*arrays(0), step=0, **HYPER, decay=0.0)


@pytest.mark.parametrize("name", ["lr", "decay", "momentum", "eps"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_by_name(name: str, number: float) -> None:
    of_adam: dict[str, Any] = {**HYPER, "step": 1, "decay": 0.0}
    rules: list[tuple[Any, int, dict[str, Any]]] = [(adam, 4, of_adam), (adamw, 4, of_adam)]
    for rule, takes, how in [(sgd, 3, {"lr": 0.1, "momentum": 0.9, "decay": 0.0}), *rules]:
        if name in how:
            with pytest.raises(ValueError, match=rf"^{rule.__name__}: {name} must be a finite number; got"):
                rule(*arrays(0)[:takes], **{**how, name: number})


@ADAMS
def test_an_eps_below_zero_is_refused(rule: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="eps must not be negative"):
        rule(*arrays(0), step=1, **{**HYPER, "eps": -1e-8}, decay=0.0)
