"""The specification: one plain text, in which every operation is its formula and its pullback, derived by hand.

    from refllm.spec.attention import attention
    y, back = attention(q, k, v, causal=True, attention_mask=None)
    dq, dk, dv = back(dy)

It is evaluated on floats, on exact numbers, on traced ones and on numbers with the spread of their rounding error
(refllm/numbers). The golden files are made from it, and `refllm/ops` is the fast implementation that is held to it.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

_ID = re.compile(r"[A-Z][A-Z0-9]*(-[A-Z0-9]+)*[,: ]")  # with which the docstring of an operation begins


@cache
def operations() -> dict[str, Callable[..., Any]]:
    """Every function of the text that the register has an ID for, by name."""
    found: dict[str, Callable[..., Any]] = {}
    for module in pkgutil.iter_modules(__path__):
        for name, value in vars(importlib.import_module(f"{__name__}.{module.name}")).items():
            own = isinstance(value, FunctionType) and value.__module__ == f"{__name__}.{module.name}"
            if own and not name.startswith("_") and _ID.match(value.__doc__ or ""):
                found[name] = value
    return found
