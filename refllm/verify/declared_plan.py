"""The plan that an implementation declares: `PLAN` of a module, or --plan.

PLAN = "fused"        or {"stored": {"probabilities": "bfloat16"}, "accumulate": "float32", "chain": 64}
chosen(options.plan, implementation, "bfloat16")       what is said on the command line; else PLAN; else "eager"
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from os import PathLike
from typing import Any

from refllm.errors import UserError
from refllm.numbers import plans

DEFAULT = "eager"  # which allows every rounding of "fused", and more


def of_module(path: str | PathLike[str], module: Any, dtypes: Iterable[str]) -> Any:
    """PLAN of a module; None if it has none. UserError if it is no plan for one of its dtypes."""
    said = getattr(module, "PLAN", None)
    if said is None:
        return None
    for dtype in dtypes:
        plans.plan(said, dtype, f"{path}: PLAN")
    return json.loads(json.dumps(said))  # in types of Python alone: it goes from process to process


def of_option(text: str) -> Any:
    """What --plan says: a name, or a plan as JSON. UserError if it is neither."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--plan: what begins with a brace must be JSON, and it is not ({error})") from None


def chosen(option: str | None, implementation: Any, dtype: str) -> plans.Plan:
    """The plan of a run. UserError if what is said is none."""
    if option is not None:
        return plans.plan(of_option(option), dtype, "--plan")
    said = getattr(implementation, "plan", None)
    return plans.plan(DEFAULT if said is None else said, dtype, f"{getattr(implementation, 'name', '')}: PLAN")
