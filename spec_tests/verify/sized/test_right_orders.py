"""A plain loop is right: one accumulator for a whole sum, in the type of the run. So is a form that loses less than the
text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refllm.backend import Array
from refllm.numbers import plans
from refllm.verify import corpus, reference
from refllm.verify.adapter import Functions
from refllm.verify.runner import Result
from refllm.verify.sized import cases, judge

KNOWN = cases.load(corpus.folder(None))
GELU = [id for id, case in KNOWN.items() if case.operation == "gelu_tanh"]


def result(id: str, function: Callable[..., Any], dtype: str, plan: Any = "eager") -> Result:
    mine = Functions("mine", {KNOWN[id].operation: function}, {}, ("float64", "float32"))
    [found] = judge.run(mine, [KNOWN[id]], dtype, plans.plan(plan, dtype))
    return found


def added(terms: Array) -> Array:
    """One after the other, in one number of the type."""
    y: Array = np.cumsum(terms, axis=-1, dtype=terms.dtype)[..., -1:]
    return y


def matmul(x: Array, W: Array) -> Array:
    return np.concatenate([added(x * W[:, n]) for n in range(W.shape[1])], axis=-1)


def softmax(x: Array) -> Array:
    e: Array = np.exp(x - x.max(-1, keepdims=True))
    return e / added(e)


def log_sum_exp(x: Array) -> Array:
    top = x.max(-1, keepdims=True)
    y: Array = (top + np.log(added(np.exp(x - top))))[..., 0]
    return y


def rms_norm(x: Array, g: Array, *, eps: float) -> Array:
    y: Array = g * x / np.sqrt(added(x * x) / x.dtype.type(x.shape[-1]) + x.dtype.type(eps))
    return y


LOOPS = [
    ("LMHEAD/kernel-matmul-3x8191x17-positive", matmul),
    ("SMX/kernel-softmax-2x16384-normal", softmax),
    ("LSE/kernel-log-sum-exp-2x16384-normal", log_sum_exp),
    ("T5-REL/kernel-rms-norm-7x2049-wide", rms_norm),
    ("T5-REL/kernel-rms-norm-2x16384-normal", rms_norm),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("id", "loop"), LOOPS, ids=[id for id, _ in LOOPS])
def test_one_accumulator_for_a_whole_sum_is_right(id: str, loop: Callable[..., Any], dtype: str) -> None:
    found = result(id, loop, dtype)
    assert (found.status, [v.message for v in found.verdicts if v.wrong]) == ("value", [])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_plan_of_short_chains_finds_a_long_one(dtype: str) -> None:
    if dtype == "float32":  # in float64 what is stored allows the longest
        plan = {"accumulate": dtype, "chain": 64}
        assert result("T5-REL/kernel-rms-norm-2x16384-normal", rms_norm, dtype, plan).status == "fail"
    lost = result("T5-REL/kernel-rms-norm-2x16384-normal", lambda x, g, *, eps: rms_norm(x, g, eps=eps + 1e-3), dtype)
    assert lost.status == "fail"


def gelu_by_the_sigmoid(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """(1 + tanh u) / 2 = σ(2u), which keeps its digits where tanh u is nearly -1."""
    one, k = x.dtype.type(1), x.dtype.type(np.sqrt(2 / np.pi))
    u = k * (x + x * x * x * x.dtype.type(0.044715))
    with np.errstate(over="ignore", under="ignore"):
        s, other = one / (one + np.exp(-2 * u)), one / (one + np.exp(2 * u))
        y = np.where(s == 0, 0, x * s)

    def back(dy: Array) -> Array:
        du = k * (one + x * x * x.dtype.type(3 * 0.044715))
        dx: Array = dy * (s + np.where(s * other == 0, 0, 2 * x * s * other * du))
        return dx

    return y, back


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("id", GELU)
def test_a_gelu_that_does_not_cancel_is_right_as_the_text_is(id: str, dtype: str) -> None:
    for form in (gelu_by_the_sigmoid, reference.functions()["gelu_tanh"]):
        found = result(id, form, dtype)
        assert (found.status, [v.message for v in found.verdicts if v.wrong]) == ("pass", [])
