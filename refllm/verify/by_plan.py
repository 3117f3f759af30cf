"""How near is near enough in bfloat16 and float16: what the rounding of a right implementation makes of a tiny case,
where that is less than what its condition allows.

    narrowed(case, "bfloat16")      the case with truths of which each is allowed the least of both

The condition counts every rounding at its worst. The spread adds them up as they come, and knows what is not rounded at
all. Which plan an implementation has, a tiny case need not be told: the widest of these is allowed. It is never more
than what the condition allows, so nothing that was wrong becomes right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.numbers import plans
from refllm.verify import plain
from refllm.verify.case import Case, Truth
from refllm.verify.tolerance import TINY

DTYPES = ("bfloat16", "float16")
LEVELS = (1, 2, 3)
IN_THE_DTYPE: dict[str, Any] = {"stored": {"*": "dtype"}, "accumulate": "dtype", "factors": "dtype"}
PLANS: tuple[str | dict[str, Any], ...] = ("eager", "narrow", IN_THE_DTYPE)


def narrowed(case: Case, dtype: str) -> Case:
    """The case itself where the text says nothing of it, where its answer comes of plain numbers alone, which have no
    spread, and in other dtypes."""
    if dtype not in DTYPES or case.level not in LEVELS or case.operation not in plain.operations():
        return case
    if not any(x.dtype.kind == "f" for x in case.inputs.values()):
        return case
    allowed = _allowed(case, dtype)
    if allowed is None:
        return case

    def least(group: str, truths: Mapping[str, Truth]) -> dict[str, Truth]:
        return {name: replace(truth, most=allowed.get(f"{group}.{name}")) for name, truth in truths.items()}

    return replace(case, outputs=least("outputs", case.outputs), gradients=least("gradients", case.gradients))


def _allowed(case: Case, dtype: str) -> dict[str, Array] | None:
    """By tensor, the limit of the widest plan; None where the text cannot be asked."""
    from refllm.verify.sized.evaluate import expected

    found: dict[str, Array] = {}
    for said in PLANS:
        plan = plans.plan(said, dtype)
        try:
            spread = expected(case, plan, gradients=bool(case.cotangents))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            return None
        for name, each in spread.items():
            most = plan.limit * each.deviation + TINY[dtype]
            found[name] = numpy.maximum(found.get(name, 0.0), most)
    return found
