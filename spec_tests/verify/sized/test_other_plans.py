"""Who rounds more than the declared plan says is told the plan under which the answer is right; a mistake has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from refllm.backend import Array
from refllm.numbers import plans
from refllm.verify import corpus
from refllm.verify.adapter import Functions
from refllm.verify.kernels.machine import narrow
from refllm.verify.sized import cases, judge
from refllm.verify.sized.other_plans import OtherPlans

KNOWN = cases.load(corpus.folder(None))
EAGER = 'right under the plan eager: say PLAN = "eager" if that is meant'


def said(id: str, function: Callable[..., Any], plan: str, seconds: float = 60) -> list[str]:
    """What is said of an answer in bfloat16 to the case."""
    mine = Functions("mine", {KNOWN[id].operation: function}, {}, ("bfloat16",))
    of_run = plans.plan(plan, "bfloat16")
    others = OtherPlans("bfloat16", of_run, seconds)
    [found] = others.explained(list(judge.run(mine, [KNOWN[id]], "bfloat16", of_run, seen=others.look)))
    return [found.status, *found.diagnosis]


def stored(x: Array) -> Array:
    y: Array = narrow(x, "bfloat16").astype(np.float32)
    return y


def tanh(x: Array, factor: float = 1.0) -> tuple[Array, Callable[[Array], Array]]:
    """The pullback reads the value as it was stored."""
    y = stored(np.tanh(x))
    return y, lambda dy: stored(factor * dy * stored(1 - stored(y * y)))


def embedding(E: Array, *, ids: Array) -> tuple[Array, Callable[[Array], Array]]:
    """The gradient of a row is added up in bfloat16."""

    def back(dy: Array) -> Array:
        dE = np.zeros_like(E)
        for i, row in zip(ids.reshape(-1), dy.reshape(-1, E.shape[-1]), strict=True):
            dE[i] = stored(dE[i] + row)
        return dE

    return stored(E[ids]), back


def matmul(x: Array, W: Array) -> Array:
    """Every product of a row and a column is added up in bfloat16."""
    total = np.zeros((len(x), W.shape[1]), np.float32)
    for k in range(len(W)):
        total = stored(total + x[:, k, None] * W[k])
    return total


def test_what_is_stored_as_eager_stores_it_is_told_so_under_fused() -> None:
    assert said("RNN/kernel-tanh-1025-normal", tanh, "fused") == ["fail", EAGER]
    assert said("RNN/kernel-tanh-1025-normal", tanh, "eager") == ["pass"]


def test_a_mistake_is_right_under_no_plan() -> None:
    for plan in ("fused", "eager"):
        assert said("RNN/kernel-tanh-1025-normal", lambda x: tanh(x, factor=1.5), plan) == ["fail"]


def test_sums_in_the_narrow_type_are_named() -> None:
    status, line = said("EMB/kernel-embedding-257x65-5x129", embedding, "eager")
    assert status == "fail"
    assert line.startswith("right under the plan narrow, which adds up over rows and by index in the narrow type")
    status, line = said("LMHEAD/kernel-matmul-9x1023x17-offset", matmul, "eager")
    assert status == "fail"
    assert line.startswith("right only where sums are added up in bfloat16, which loses digits that float32 keeps")
    plan = line.partition("PLAN = ")[2].partition(" if that")[0]
    assert plans.plan(json.loads(plan), "bfloat16").accumulate == "bfloat16"


def test_no_time_is_spent_beyond_what_is_given() -> None:
    assert said("RNN/kernel-tanh-1025-normal", tanh, "fused", seconds=0) == ["fail"]
