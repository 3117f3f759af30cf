"""What edited text says of the number of a layer: which one it is, and what a layer of another stack has given."""

from __future__ import annotations

import re
from typing import Any

from refllm.backend import Array
from refllm.spec import array

LAYER = re.compile(r"(\w*)\.?layers\.(\d+)\.")
_given: dict[tuple[str, int], Array] = {}  # what each layer of a stack has given


def begin() -> None:
    """Nothing is left of an earlier evaluation."""
    _given.clear()


def layer_number() -> int:
    """The number of the layer that is computed, from 1 on."""
    return _here()[1] + 1


def noted(x: Array) -> Array:
    """x, which is noted as what this layer of its stack gives."""
    _given[_here()] = x
    return x


def of_same_number(stack: str, otherwise: Array) -> Array:
    """What the layer of the same number of another stack gives; where there is none, that of the last."""
    return _given.get((stack, _here()[1]), otherwise)


def _here() -> tuple[str, int]:
    found = LAYER.search(array._onlooker.get()[1])
    if found is None:
        raise LookupError("there is no layer here")
    return found[1], int(found[2])


WORDS: dict[str, Any] = {"layer_number": layer_number, "noted": noted, "of_same_number": of_same_number}
