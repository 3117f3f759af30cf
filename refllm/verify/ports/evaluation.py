"""A program evaluated: on inputs, with all of its values looked at, as it stands or with a candidate's mistake in
it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy

from refllm.backend import Array
from refllm.parameters import Tree
from refllm.spec import array
from refllm.verify import bounded, plain, words
from refllm.verify.ports.program import Program, State, Step

Onlooker = Callable[[str, Array], Array]
SMALL = 1 << 20  # numbers of a parameter that is widened beforehand; larger ones are while they are multiplied


class EnoughError(Exception):
    """Nothing more need be computed."""


@dataclass(frozen=True)
class Change:
    """What a mistake changes, in the steps that it acts in: functions of the text, entries of the configuration, and
    the parameters that a step reads; or the order of the steps."""

    functions: Mapping[Any, Callable[..., Any]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    parameters: Callable[[Step, Tree, Tree], Tree] | None = None  # of the step, its branch and the whole tree
    shared: Callable[[Tree], Tree] | None = None  # the whole tree, of which all layers read a table
    steps: Callable[[list[Step]], list[Step]] | None = None


NOTHING = Change()


def evaluated(
    program: Program, p: Tree, inputs: Mapping[str, Any], *, dtype: str = "float32", look: Onlooker | None = None,
    begin: tuple[int, State] | None = None, end: int | None = None, changes: Mapping[int, list[Change]] | None = None,
) -> list[State]:  # fmt: skip
    """The state after each step from `begin` on, the number of a step and the state before it, up to `end`. `changes`
    are those of each step by its number."""
    first, state = begin or (0, {**inputs})
    state = {"p": _small(p, dtype), **state}
    found = []
    steps = program.steps[first:end]
    with array.watched(look or _same), numpy.errstate(all="ignore"):
        for n, step in enumerate(steps, start=first):
            state = _after(step, state, p, program.config, dtype, (changes or {}).get(n, []))
            found.append(state)
    return found


def _same(name: str, x: Array) -> Array:
    return x


def _after(step: Step, state: State, p: Tree, config: Mapping[str, Any], dtype: str, changes: list[Change]) -> State:
    own, functions = step.parameters(p), dict[Any, Callable[..., Any]]()
    for change in changes:
        functions |= change.functions
        config = {**config, **change.config}
        own = own if change.parameters is None else change.parameters(step, own, p)
        if change.shared is not None:
            state = {**state, "p": change.shared(p)}
    if dtype == "float64":
        own, state = _widened(step, own, state)
    with plain.exchanged(functions):
        words.begin()
        return step.after(state, own, config)


def _widened(step: Step, own: Tree, state: State) -> tuple[Tree, State]:
    """The parameters in float64; of a table of tokens only the rows that are read."""
    ids = {"embedding": "ids", "decoder embedding": "ids", "encoder embedding": "source"}.get(step.kind)
    if ids is None:
        return _small(own, "float64"), state
    used, places = numpy.unique(state[ids], return_inverse=True)
    table = own["token"][used].astype("float64")
    rest = {name: branch for name, branch in own.items() if name not in ("token", "layers")}
    return {"token": table, **_wide(rest)}, {**state, ids: places.reshape(state[ids].shape)}


def _wide(tree: Tree) -> Tree:
    if isinstance(tree, dict):
        return {name: _wide(branch) for name, branch in tree.items() if name != "layers"}
    return tree.astype("float64")


def _small(tree: Tree, dtype: str) -> Tree:
    if dtype != "float64":
        return tree
    if isinstance(tree, dict):
        return {name: branch if name == "layers" else _small(branch, dtype) for name, branch in tree.items()}
    if isinstance(tree, list):
        return [_small(branch, dtype) for branch in tree]
    return tree.astype("float64") if tree.ndim == 1 or tree.size < SMALL else tree


@contextlib.contextmanager
def counted(end: float, limit: float) -> Iterator[None]:
    """In this context work is bounded: an edit can make a loop of the text endless."""
    with bounded.until(end), bounded.at_most(limit):
        yield
