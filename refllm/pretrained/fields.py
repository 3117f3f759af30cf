"""The fields of a config.json: each is asked for by its kind, and what would not be computed is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from refllm.errors import UserError

ABSURD = 1 << 31  # no size of a model is as large

ACTIVATIONS = {
    "gelu": "gelu_erf", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "relu": "relu", "silu": "silu", "swish": "silu",
}  # fmt: skip


class Fields:
    """A config.json, and the name of its file for messages."""

    def __init__(self, values: Mapping[str, Any], path: str) -> None:
        self.values, self.path = values, path

    def whole(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        value = self._found(name, default)
        if type(value) is not int or not least <= value < ABSURD:
            raise UserError(
                f"{self.path}: {name} must be a whole number from {least} to {ABSURD - 1:,}, got {_shown(value)}"
            )
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._found(name, default)
        if type(value) not in (int, float) or not abs(value) < math.inf:
            raise UserError(f"{self.path}: {name} must be a number, got {_shown(value)}")
        return float(value)

    def positive(self, name: str, default: float | None = None) -> float:
        value = self.number(name, default)
        if not value > 0:
            raise UserError(f"{self.path}: {name} must be above 0, got {value}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._found(name, default)
        if type(value) is not bool:
            raise UserError(f"{self.path}: {name} must be true or false, got {_shown(value)}")
        return value

    def activation(self, name: str, default: str) -> str:
        value = self._found(name, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise UserError(f"{self.path}: {name} {_shown(value)} is not supported; {', '.join(ACTIVATIONS)} are")
        return ACTIVATIONS[value]

    def words(self, name: str) -> list[str] | None:
        """A list of words, None where there is none."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise UserError(f"{self.path}: {name} must be a list of words")
        return value

    def inner(self, name: str) -> Fields | None:
        """The fields of an object within, None where there is none."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise UserError(f"{self.path}: {name} must be an object, got {_shown(value)}")
        return Fields(value, f"{self.path}: {name}")

    def require(self, name: str, allowed: Collection[Any], default: Any) -> None:
        """UserError where the field has another value than those that are computed."""
        value = self.values.get(name, default)
        if value not in allowed:
            listed = " or ".join(json.dumps(one) for one in allowed)
            raise UserError(f"{self.path}: {name} {_shown(value)} is not supported; only {listed} is")

    def _found(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise UserError(f"{self.path} has no {name}; get the file again")
        return value


def _shown(value: Any) -> str:
    """A value as it stands in the file, or the beginning of it."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
