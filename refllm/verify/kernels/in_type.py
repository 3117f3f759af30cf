"""Kernels on arrays of a narrow type: they compute in float32, and what they return is stored in the type.

in_type(implementation(mistake), "bfloat16")       an implementation for runs in bfloat16
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from refllm.parameters import Tree, map_leaves
from refllm.verify.adapter import Functions
from refllm.verify.case import CARRIERS
from refllm.verify.kernels.machine import narrow

NARROW = ("bfloat16", "float16")


def in_type(kernels: Functions, dtype: str) -> Functions:
    """The kernels as they are where the dtype is wide."""
    if dtype not in NARROW:
        return kernels
    made = {name: _storing(function, dtype) for name, function in kernels.functions.items()}
    return Functions(kernels.name, made, kernels.conventions, (dtype,))


def _storing(function: Callable[..., Any], dtype: str) -> Callable[..., Any]:
    def stored(found: Any) -> Any:
        return _over(lambda x: narrow(x, dtype).astype(CARRIERS[dtype]), found)

    @functools.wraps(function)
    def run(*arguments: Tree, **keywords: Any) -> Any:
        found = function(*(_over(_loaded, x) for x in arguments), **keywords)
        if not isinstance(found, tuple) or not callable(found[-1]):
            return stored(found)
        y, back = found
        return stored(y), lambda *cotangents: stored(back(*(_loaded(dy) for dy in cotangents)))

    return run


def _over(f: Callable[[Any], Any], found: Tree) -> Tree:
    return tuple(_over(f, each) for each in found) if isinstance(found, tuple) else map_leaves(f, found)


def _loaded(x: Any) -> Any:
    return x.astype("float32") if x.dtype.kind == "f" else x
