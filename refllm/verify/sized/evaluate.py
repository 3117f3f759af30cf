"""The plain text in float64 on the tensors of a case, and how far a right implementation of a plan may be from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from refllm.backend import Array
from refllm.numbers.plans import Plan
from refllm.numbers.spread import Spread, plain_numbers_round
from refllm.own_threads import one_thread_of_blas
from refllm.parameters import Tree
from refllm.verify import plain
from refllm.verify.case import Case, roots, tree
from refllm.verify.sized import blocks


@dataclass(frozen=True)
class Expected:
    """The value of every element, and the standard deviation of the error of a right implementation; infinite where
    nothing can be said."""

    value: Array
    deviation: Array


def expected(case: Case, plan: Plan, *, gradients: bool) -> dict[str, Expected]:
    """By "outputs.y", "gradients.x". The text has no bound of its own: its float64 is far finer than what it judges."""
    function = implementation(case.operation, plan.functions())
    inputs = {name: tree(name, case.inputs) for name in case.order}
    pull: dict[str, Tree] | None = None
    if gradients and case.cotangents:
        pull = {name: tree(name, case.cotangents) for name in roots(case.cotangents)}
    with _plain_numbers(plan), one_thread_of_blas():
        values, slopes = plan.evaluate(function, inputs, case.keywords, pull, roots(case.outputs))
    found = {f"outputs.{n}": x for n, x in values.items()} | {f"gradients.{n}": x for n, x in slopes.items()}
    return {name: Expected(_value(x), plan.deviation(x)) for name, x in found.items()}


def implementation(operation: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """What these functions make of an operation of the golden files, within the memory that there is."""
    function = plain.implementation(operation, known)
    return blocks.attention(function) if operation == "attention" else function


def _plain_numbers(plan: Plan) -> AbstractContextManager[None]:
    """What is made of plain numbers, as a rotary angle, is formed in float64 in every run: in one of float64 it is
    rounded at every step, as all the rest."""
    return plain_numbers_round(plan.arithmetic) if plan.dtype == "float64" else nullcontext()


def _value(x: Any) -> Array:
    return x.value if isinstance(x, Spread) else x
