"""The plan `narrow`: sums over rows in the narrow type are right under it, as is the mean of a row kept in it. All that
is wrong for another reason stays wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from refllm.backend import Array
from refllm.numbers import plans
from refllm.verify import corpus
from refllm.verify.adapter import Functions
from refllm.verify.kernels import table
from refllm.verify.kernels.machine import narrow
from refllm.verify.kernels.mistakes import MISTAKES
from refllm.verify.sized import cases, judge

KNOWN = cases.load(corpus.folder(None))
DTYPES = ("bfloat16", "float16")
NORMS = ["LN/kernel-layer-norm-5x127-offset", "LN/kernel-layer-norm-1023x5-normal", "LN/kernel-layer-norm-65x64-normal"]


def failures(id: str, function: Callable[..., Any], dtype: str, plan: str) -> list[str]:
    mine = Functions("mine", {KNOWN[id].operation: function}, {}, DTYPES)
    [found] = judge.run(mine, [KNOWN[id]], dtype, plans.plan(plan, dtype))
    assert found.status in ("pass", "fail"), found.reason
    return [v.name for v in found.verdicts if v.wrong]


def layer_norm_in(dtype: str, back_of: Callable[..., Array] | None = None) -> Callable[..., Any]:
    """A layer norm as PyTorch has it on a CPU: computed in float32; the mean and 1 / σ are kept in the narrow type, and
    the gradients of g and b are added up in it. With `back_of` dx is that function's."""

    def stored(x: Array) -> Array:
        y: Array = narrow(np.asarray(x, np.float32), dtype)
        return y

    def operation(x: Array, g: Array, b: Array, *, eps: float) -> tuple[Array, Callable[[Array], Any]]:
        carrier, (x, g, b) = x.dtype, (each.astype(np.float32) for each in (x, g, b))
        mean = x.mean(-1, keepdims=True)
        r = 1 / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + np.float32(eps))
        kept_mean, kept_r = stored(mean), stored(r)

        def back(dy: Array) -> tuple[Array, Array, Array]:
            dy = dy.astype(np.float32)
            n, dn = (x - kept_mean) * kept_r, dy * g
            dg = db = np.zeros(g.shape, np.float32)
            for n_row, dy_row in zip(n.reshape(-1, g.size), dy.reshape(-1, g.size), strict=True):
                dg, db = stored(dg + dy_row * n_row), stored(db + dy_row)
            dx = kept_r * (dn - dn.mean(-1, keepdims=True) - n * (dn * n).mean(-1, keepdims=True))
            dx = dx if back_of is None else back_of(n, dn, kept_r)
            return tuple(stored(d).astype(carrier) for d in (dx, dg, db))  # type: ignore[return-value]

        return stored((x - mean) * r * g + b).astype(carrier), back

    return operation


@pytest.mark.parametrize("id", NORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layer_norm_of_narrow_sums_and_means_is_right_under_narrow_alone(dtype: str, id: str) -> None:
    assert failures(id, layer_norm_in(dtype), dtype, "narrow") == []
    if dtype == "bfloat16" or "65x64" not in id:  # float16 has digits enough for 65 rows
        assert failures(id, layer_norm_in(dtype), dtype, "eager") != []


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_wrong_gradient_of_such_a_layer_norm_is_wrong_under_narrow(dtype: str) -> None:
    def without_the_mean(n: Array, dn: Array, r: Array) -> Array:
        dx: Array = r * (dn - n * (dn * n).mean(-1, keepdims=True))
        return dx

    for id in NORMS[:2]:
        assert failures(id, layer_norm_in(dtype, without_the_mean), dtype, "narrow") == ["gradient of x"]


def test_mistakes_that_die_under_eager_die_under_narrow_too() -> None:
    """Here on a case each of the operations to which narrow allows more; on all cases with --slow (test_bank.py)."""
    dead: dict[str, set[str]] = {"eager": set(), "narrow": set()}
    for id in (NORMS[2], "FFN/kernel-linear-63x65x129-normal", "EMB/kernel-embedding-257x65-5x129"):
        bank = [m for m in MISTAKES if m.operation == KNOWN[id].operation]
        for name, found in dead.items():
            found |= {death.mistake.id for death in table.killed(KNOWN[id], plans.plan(name, "bfloat16"), bank)}
    assert len(dead["narrow"]) >= 18
    assert dead["eager"] - dead["narrow"] <= {"embedding/bfloat16-sums", "embedding/stale-numbers"}
