"""How the golden files call what Python calls otherwise: their keywords and operations are an interface and stay.

    from_golden({"keep": mask, "rate": 0.1})      {"dropout_mask": mask, "rate": 0.1}
    to_golden({"dropout_mask": mask, "rate": 0.1})    {"keep": mask, "rate": 0.1}

Adapters are called with the words of the golden files, the text (refllm/spec) and refllm itself with those of Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

KEYWORDS = {
    "allowed": "attention_mask",
    "keep": "dropout_mask",
    "possible": "answer_mask",
    "valid": "token_mask",
    "peak": "max_lr",
    "floor": "min_lr",
}
OPERATIONS = {"relative_attention": "biased_attention"}
_GOLDEN_KEYWORDS = {own: golden for golden, own in KEYWORDS.items()}
_GOLDEN_OPERATIONS = {own: golden for golden, own in OPERATIONS.items()}

Function = Callable[..., Any]


def in_adapters(lines: Iterable[str]) -> list[str]:
    """What adapters call the keywords that lines of the text read: ["attention_mask: `allowed` of an adapter"]."""
    words = set(re.findall(r"\w+", " ".join(lines)))
    return [f"{own}: `{golden}` of an adapter" for golden, own in KEYWORDS.items() if own in words]


def from_golden(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of a golden case as those of Python."""
    return {KEYWORDS.get(name, name): value for name, value in keywords.items()}


def to_golden(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of Python as those of the golden files."""
    return {_GOLDEN_KEYWORDS.get(name, name): value for name, value in keywords.items()}


def own_name(operation: str) -> str:
    """The Python function of an operation of the golden files."""
    return OPERATIONS.get(operation, operation)


def golden_name(function: str) -> str:
    """The operation of the golden files that a Python function is."""
    return _GOLDEN_OPERATIONS.get(function, function)


def as_golden(functions: Mapping[str, Function]) -> dict[str, Function]:
    """Functions of Python, under the names and with the keywords of the golden files."""
    return {golden_name(name): _renamed(function, from_golden) for name, function in functions.items()}


def from_adapter(functions: Mapping[str, Function]) -> dict[str, Function]:
    """Functions with the names and keywords of the golden files, as an adapter has them, under those of Python."""
    return {own_name(name): _renamed(function, to_golden) for name, function in functions.items()}


def _renamed(function: Function, rename: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Function:
    def run(*arguments: Any, **keywords: Any) -> Any:
        return function(*arguments, **rename(keywords))

    run.__wrapped__ = function  # type: ignore[attr-defined]  # all that functools.wraps is needed for here, at less cost
    return run
