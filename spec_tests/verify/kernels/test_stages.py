"""An answer of attention that nothing explains is located at a step of it: weights, their sum, the score gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.numbers import plans
from refllm.verify import corpus
from refllm.verify.adapter import Functions
from refllm.verify.case import Case, Response
from refllm.verify.kernels.looker import Looker
from refllm.verify.runner import Result
from refllm.verify.sized import cases, judge
from refllm.verify.sized.recognised import Recognised
from spec_tests.verify.kernels.tile_loops import attention_in_tiles

CASE = cases.load(corpus.folder(None))["ATT/kernel-attention-5x33x33x64-normal-causal"]
PLAN = plans.plan("eager", "float32")
RIGHT = attention_in_tiles()


def lines(function: Callable[..., Any]) -> list[str]:
    """What is said of the answer to a causal case of 33 keys, of which values of 64 columns tell the weights."""
    found: list[str] = []

    def seen(sized: cases.SizedCase, case: Case, response: Response, result: Result, text: judge.Text) -> None:
        found.extend(Looker(case, response, text, "float32", PLAN).steps())

    with numpy.errstate(all="ignore"):
        list(
            judge.run(Functions("mine", {"attention": function}, {}, ("float32",)), [CASE], "float32", PLAN, seen=seen)
        )
    return found


def with_values(change: Callable[[Array, Array, Array], Array]) -> Callable[..., Any]:
    """Attention whose weights are changed: by the weights, the queries and the keys."""

    def attention(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
        _, back = RIGHT(q, k, v, causal=causal, allowed=allowed)
        T, S = q.shape[-2], k.shape[-2]
        s = numpy.where(numpy.tri(T, S, dtype=bool), q @ k.swapaxes(-1, -2) / numpy.sqrt(q.shape[-1]), -numpy.inf)
        P = numpy.exp(s - s.max(axis=-1, keepdims=True))
        P = change(P / P.sum(axis=-1, keepdims=True), numpy.arange(T)[:, None], numpy.arange(S))
        return (P @ v).astype(q.dtype), back

    return attention


def with_gradients(change: Callable[..., Any]) -> Callable[..., Any]:
    """Attention whose gradients are changed: by dq, dk, dv, dy and y."""

    def attention(q: Array, k: Array, v: Array, **how: Any) -> Any:
        y, back = RIGHT(q, k, v, **how)
        return y, lambda dy: change(*back(dy), dy, y)

    return attention


def of_another_sum(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
    """A score gradient in whose sum Σ dy y the last column is missing."""
    y, back = RIGHT(q, k, v, causal=causal, allowed=allowed)
    T, S, scale = q.shape[-2], k.shape[-2], 1 / numpy.sqrt(q.shape[-1])
    s = numpy.where(numpy.tri(T, S, dtype=bool), q @ k.swapaxes(-1, -2) * scale, -numpy.inf)
    P = numpy.exp(s - s.max(axis=-1, keepdims=True))
    P = P / P.sum(axis=-1, keepdims=True)

    def attention_back(dy: Array) -> Any:
        ds = P * (dy @ v.swapaxes(-1, -2) - (dy * y)[..., :-9].sum(axis=-1, keepdims=True)) * scale
        dq, dk = ds @ k, ds.swapaxes(-1, -2) @ q
        return dq.astype(q.dtype), dk.astype(q.dtype), back(dy)[2]

    return y, attention_back


SAID: dict[str, tuple[Callable[..., Any], str]] = {
    "a sum": (
        with_values(lambda P, t, s: P * (1 + 0.1 * (t > 9))), "are right but for a factor of their query (1.1 to 1.1",
    ),
    "a mask": (with_values(lambda P, t, s: P + 0.1 * (s == t + 1)), "query 0 attends key 1 (32 such places)"),
    "a tile": (with_values(lambda P, t, s: P * (1 - 0.3 * (s >= 16))), "all in rows ≥ 16 of 33, columns ≥ 16 of 33"),
    "small ones": (
        with_values(lambda P, t, s: P * (P > 1e-2 * P.max(axis=-1, keepdims=True))), "e^(s - max) is below 0.01, and no"
    ),
    "dk": (with_gradients(lambda dq, dk, dv, dy, y: (dq, numpy.roll(dk, 1, axis=-1), dv)), "the product dsᵀ q alone"),
    "dv": (with_gradients(lambda dq, dk, dv, dy, y: (dq, dk, dv[..., ::-1])), "the product Pᵀ dy alone"),
    "a sum of dy y": (of_another_sum, "of ds the sum Σ dy y of the queries alone is wrong"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_a_step_that_is_wrong_is_said(name: str) -> None:
    function, said = SAID[name]
    assert any(said in line for line in lines(function)), lines(function)


@pytest.mark.every
def test_a_step_is_said_with_its_case_where_another_answer_shows_it() -> None:
    known = cases.load(corpus.folder(None))
    alone = known["ATT/kernel-attention-3x1x65x65x64-peaked-causal"]  # 65 values of 64 columns tell no weights

    def attention(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
        y, back = RIGHT(q, k, v, causal=causal, allowed=allowed)
        return (y * (1.1 + 0.1 * numpy.cos(numpy.arange(q.shape[-2]))[:, None])).astype(q.dtype), back

    watched = Recognised("float32", PLAN, 2)
    mine = Functions("mine", {"attention": attention}, {}, ("float32",))
    with numpy.errstate(all="ignore"):
        found = watched.explained(list(judge.run(mine, [alone, CASE], "float32", PLAN, seen=watched.look)))
    first, second = ([line for line in r.diagnosis if "a factor of their query" in line] for r in found)
    assert second
    assert first == [f"{line} ({CASE.id})" for line in second]


def test_of_a_right_answer_nothing_is_said() -> None:
    assert lines(RIGHT) == []


def test_of_lost_digits_no_step_is_said() -> None:
    assert lines(with_values(lambda P, t, s: P.astype("float16").astype("float32"))) == []
