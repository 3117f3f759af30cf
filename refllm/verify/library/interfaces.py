"""What the C function of an operation is given: arrays, then keywords, then what it writes to.

An argument that is a tree, or several arrays, is a pointer to the first of its tensors and their number; each tensor
has its name. Types come from all cases of an operation: one that is None somewhere may be NULL.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy

from refllm.verify.case import Case, roots

HIGHEST = 3  # level: training and generation are given a configuration, or call a model

# kind of a keyword -> its C type; those with a * may be NULL
TYPES = {
    "float": "double", "int": "int64_t", "bool": "int64_t", "text": "const char *", "int?": "const int64_t *",
    "text?": "const char *", "tensor": "const refllm_tensor *", "tensor?": "const refllm_tensor *",
}  # fmt: skip


@dataclass(frozen=True)
class Argument:
    name: str
    several: bool  # a pointer to the first tensor, and how many there are


@dataclass(frozen=True)
class Interface:
    """The function of one operation, and that of its gradient if it has one."""

    operation: str
    inputs: tuple[Argument, ...]
    keywords: tuple[tuple[str, str], ...]  # name and kind
    outputs: tuple[Argument, ...]
    differentiable: bool

    @property
    def symbol(self) -> str:
        return f"refllm_{self.operation}"

    def written(self, output: str) -> str:
        """The name in C of what an output is written to: p_out where p is given too."""
        taken = {argument.name for argument in self.inputs} | {name for name, _ in self.keywords}
        return f"{output}_out" if output in taken else output


def interfaces(cases: Iterable[Case]) -> dict[str, Interface]:
    """The interface of every operation that a C function can be given, by the name of the operation."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        if 1 <= case.level <= HIGHEST:
            found.setdefault(case.operation, []).append(case)
    made = {name: _interface(name, held) for name, held in found.items()}
    return {name: interface for name, interface in made.items() if interface is not None}


def _interface(operation: str, cases: list[Case]) -> Interface | None:
    """None where a keyword is a configuration, or has types that no one C type holds."""
    keywords = {}
    for name in dict.fromkeys(name for case in cases for name in case.keywords):
        kind = _kind([case.keywords.get(name) for case in cases])
        if kind is None:
            return None
        keywords[name] = kind
    return Interface(
        operation, _arguments([(case.order, case.inputs) for case in cases]), tuple(keywords.items()),
        _arguments([(roots(case.outputs), case.outputs) for case in cases], parts=True),
        any(case.gradients for case in cases),
    )  # fmt: skip


def _arguments(given: list[tuple[Any, Any]], *, parts: bool = False) -> tuple[Argument, ...]:
    """The arguments by their roots. With `parts` outputs y0, y1 … whose number varies are one, y."""
    orders = dict.fromkeys(tuple(order) for order, _ in given)
    if parts and len(orders) > 1:
        return (Argument("y", True),)
    [order] = orders
    return tuple(Argument(name, not all(name in leaves for _, leaves in given)) for name in order)


def _kind(values: list[Any]) -> str | None:
    kinds = {_kind_of(x) for x in values}
    optional = "none" in kinds
    kinds.discard("none")
    if kinds == {"float", "int"}:
        kinds = {"float"}
    if not kinds and optional:
        kinds = {"tensor"}  # never given in any case
    if len(kinds) != 1:
        return None
    [kind] = kinds
    name = f"{kind}?" if optional else kind
    return name if name in TYPES else None


def _kind_of(x: Any) -> str:
    if x is None:
        return "none"
    if isinstance(x, numpy.ndarray):
        return "tensor"
    if isinstance(x, bool):
        return "bool"
    return {int: "int", float: "float", str: "text"}.get(type(x), "configuration")
