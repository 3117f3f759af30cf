"""The mistakes that are tried on a port, the likeliest first: edits of the text, other entries of the configuration,
weights that are read otherwise, and layers in another order.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from types import FunctionType
from typing import Any

from refllm.backend import Array
from refllm.parameters import Tree
from refllm.verify import plain
from refllm.verify.edits import Edit, edits, source_of
from refllm.verify.plain import PUBLISHED
from refllm.verify.ports.evaluation import NOTHING, Change, evaluated
from refllm.verify.ports.program import Program, Step

Diff = list[tuple[str, list[str]]]
DEPTH = 1 / 16  # what it costs that a function is called by another one
DEEPEST = 8


@dataclass(frozen=True)
class Candidate:
    """One mistake: what it changes and in which kinds of steps, what is said of it, and its lines."""

    said: str
    cost: float
    change: Change
    acts: Callable[[Step], bool]
    diff: Diff
    edit: Edit | None = None

    def changed(self) -> Change | None:
        """What it changes; None if the edited text is no Python."""
        if self.edit is None:
            return self.change
        function = self.edit.function()
        return None if function is None else Change(functions={self.edit.original: function})

    @property
    def lines(self) -> Diff:
        return self.diff if self.edit is None else [(whole_place(self.edit), self.edit.diff())]


def whole_place(edit: Edit) -> str:
    """refllm/spec/attention.py:24"""
    module = edit.original.__module__.replace(".", "/")
    return f"{module}.py:{edit.line}"


def named(program: Program, p: Tree, raw: Mapping[str, Array]) -> list[Candidate]:
    """Those that have a name: what ports of models have wrong most often, and what words are there for. `raw` are
    tensors as the files have them, by the path of our parameter, where ours are a part of them."""
    from refllm.verify.ports.mistakes import configuration, habits, order, scales, weights

    found = [
        *configuration.mistakes(program), *weights.mistakes(program, p, raw), *order.mistakes(program),
        *habits.mistakes(program), *scales.mistakes(program),
    ]  # fmt: skip
    return sorted(found, key=lambda one: one.cost)


def of_the_text(program: Program, ran: Collection[FunctionType]) -> list[Candidate]:
    """Every single edit of the functions of the text that are run."""
    reached = dict[FunctionType, int]()
    for text in {step.text for step in program.steps}:
        for function, depth in called(text).items():
            if function in ran:
                reached[function] = min(depth, reached.get(function, DEEPEST))
    found = [
        Candidate(edit.said, edit.cost + depth * DEPTH, NOTHING, acting_through(function), [], edit)
        for function, depth in reached.items()
        for edit in edits_of(function)
    ]
    return sorted(found, key=lambda one: one.cost)


def acting_through(function: FunctionType) -> Callable[[Step], bool]:
    """Whether a step calls that function, or may."""
    return lambda step: function in called(step.text)


@cache
def edits_of(function: FunctionType) -> Sequence[Edit]:
    """The edits of a function that change a value. What no other text has than that of models: two of its steps in the
    other order, and a mistake at both places of a layer that are alike."""
    from refllm.verify.ports.mistakes import step_order, twice

    found = [edit for edit in edits(function) if not edit.in_pullback and _is_of_one_kind(edit)]
    if function.__module__.startswith(PUBLISHED):
        found += list(step_order.in_another_order(function))
        found += list(twice.at_both_places(function, found))
    return found


def _is_of_one_kind(edit: Edit) -> bool:
    """Whether no argument stands in the place of one of another kind: nobody writes causal=config."""
    kinds = _kinds(edit.original)
    source = source_of(edit.original).encode()
    for first, last, new in edit.changes:
        old = source[first:last].decode()
        if old in kinds and new in kinds and kinds[old] != kinds[new]:
            return False
    return True


@cache
def _kinds(function: FunctionType) -> Mapping[str, str]:
    """The arguments of a function and what they are, by their annotations."""
    definition = ast.parse(source_of(function)).body[0]
    assert isinstance(definition, ast.FunctionDef)
    arguments = (*definition.args.args, *definition.args.kwonlyargs)
    said = {a.arg: ast.unparse(a.annotation) for a in arguments if a.annotation is not None}
    return {name: {"int": "number", "float": "number"}.get(kind, kind) for name, kind in said.items()}


@cache
def called(text: Callable[..., Any]) -> Mapping[FunctionType, int]:
    """The functions of the text that this one is made of, and how deep they lie."""
    found: dict[Any, int] = {}
    waiting: list[tuple[Any, int]] = [(text, 0)]
    while waiting:
        function, depth = waiting.pop(0)
        if function in found:
            continue
        found[function] = depth
        waiting += [(other, depth + 1) for other in plain.calls_of(function)]
    return found


def run_by(program: Program, p: Tree, given: Mapping[str, Any]) -> frozenset[FunctionType]:
    """The functions of the text that are called for this input."""
    functions = {f for step in program.steps for f in called(step.text)}
    seen = set[FunctionType]()

    def watched(original: FunctionType) -> Callable[..., Any]:
        @wraps(original)
        def through(*arguments: Any, **keywords: Any) -> Any:
            seen.add(original)
            return original(*arguments, **keywords)

        return through

    change = Change(functions={f: watched(f) for f in functions})
    evaluated(program, p, given, changes={n: [change] for n in range(len(program.steps))})
    return frozenset(seen)
