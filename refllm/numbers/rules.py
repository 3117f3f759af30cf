"""The derivatives of the functions of one number, in terms of its argument x and its value y: what every tape reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from refllm.spec.array import cos, exp, pi, sin, sqrt

DERIVATIVES: Mapping[str, Callable[[Any, Any], Any]] = {
    "exp": lambda x, y: y,
    "log": lambda x, y: 1 / x,
    "tanh": lambda x, y: 1 - y * y,
    "sigmoid": lambda x, y: y * (1 - y),
    "sin": lambda x, y: cos(x),
    "cos": lambda x, y: -sin(x),
    "erf": lambda x, y: exp(-(x * x)) * (2 / sqrt(pi())),
    "erfc": lambda x, y: exp(-(x * x)) * (-2 / sqrt(pi())),
    # the root of exactly 0 has no derivative: nothing flows through it (a parameter that never had a gradient)
    "sqrt": lambda x, y: (y != 0) / (2 * y + (y == 0)),
}
