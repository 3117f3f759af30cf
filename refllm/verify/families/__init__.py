"""The further families of models as implementations of the golden files' operations, a module each.

A module has `functions()`, its functions by operation name; and, if its cases have taps,
`stages(case, arguments, keywords)`: the stages of a case of its own (refllm/verify/taps.py), else an empty list.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType


@cache
def modules() -> list[ModuleType]:
    """Every family, in the order of their names."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]
