"""Weights that a port reads otherwise: transposed, left out, cut into heads in another order, taken from another place.

What there is follows from the names and the shapes of the parameters; nothing is known here about any model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy

from refllm.backend import Array
from refllm.parameters import Tree, map_leaves
from refllm.verify.ports.candidates import Candidate
from refllm.verify.ports.evaluation import Change
from refllm.verify.ports.mistakes.biases import of_parts
from refllm.verify.ports.mistakes.columns import of_columns, of_pairs
from refllm.verify.ports.mistakes.exchanged import of_places, of_tables
from refllm.verify.ports.mistakes.gains import of_several_gains
from refllm.verify.ports.mistakes.halves import in_both_halves
from refllm.verify.ports.mistakes.leaves import (
    COST,
    LIKELY,
    Read,
    is_kind,
    leaves_of,
    read_otherwise,
    with_bias,
    with_leaf,
)
from refllm.verify.ports.mistakes.outputs import of_outputs
from refllm.verify.ports.mistakes.read_otherwise import of_leaf
from refllm.verify.ports.program import Program, Step
from refllm.verify.words import to_bfloat16


def mistakes(program: Program, p: Tree, raw: Mapping[str, Array]) -> Iterator[Candidate]:
    """Of every kind of step, by its first one, and of both halves; then of all weights."""
    found = list(_of_each_kind(program, p, raw))
    yield from found
    if program.model == "encoder_decoder":
        yield from in_both_halves(found)
    yield from of_tables(program, p)
    yield from _of_all(program)


def _of_each_kind(program: Program, p: Tree, raw: Mapping[str, Array]) -> Iterator[Candidate]:
    for step in _kinds(program):
        own = step.parameters(p)
        for path, leaf in leaves_of(step, own):
            for said, cost, lines, read in of_leaf(path, leaf):
                yield read_otherwise(step, [path], said, cost, lines, read)
            columns = (*of_columns(program, path.rpartition(".")[2]), *of_outputs(step, path, leaf))
            for said, cost, lines, read in columns:
                yield read_otherwise(step, with_bias(own, path), said, cost, lines, read)
        yield from of_pairs(program, step, own)
        yield from of_parts(step, own)
        yield from of_several_gains(step, own)
        for said, cost, lines, change in of_places(step, own):
            yield Candidate(said, cost, Change(parameters=change), partial(is_kind, step), [("parameters", lines)])
    for path, table in raw.items():
        yield from _with_its_unused_rows(program, path, table)


def _kinds(program: Program) -> Iterator[Step]:
    """The first step of each kind; experts make a layer one of another kind."""
    seen = set[str]()
    for step in program.steps:
        if step.kind in seen:
            continue
        if step.kind.endswith("layer") or step.kind != "output" or step.own or step.place == program.answer:
            seen.add(step.kind)
            yield step
    yield from (step for step in program.steps if step.kind == "output" and step.place != program.answer)


def _with_its_unused_rows(program: Program, path: str, table: Array) -> Iterator[Candidate]:
    """A table whose first rows no position uses, read from its first row on."""
    own = path.split(".")
    for step in program.steps:
        if step.kind == f"{own[0]} embedding":
            skipped = table.shape[0] - int(program.config["context"])
            for first in range(skipped):
                yield _from_row(step, path, table, first, skipped)


def _from_row(step: Step, path: str, table: Array, first: int, skipped: int) -> Candidate:
    def change(at: Step, tree: Tree, whole: Tree) -> Tree:
        return with_leaf(tree, path.split("."), lambda E: table[first : first + len(E)])

    lines = [("parameters", [f"- {path}[t + {skipped}]", f"+ {path}[t + {first}]" if first else f"+ {path}[t]"])]
    which = "the first row" if first == 0 else f"row {first}"
    said = f"positions begin at {which} of {path}; the first {skipped} rows are not used"
    return Candidate(said, LIKELY, Change(parameters=change), partial(is_kind, step), lines)


def _of_all(program: Program) -> Iterator[Candidate]:
    for dtype, stored in (("bfloat16", to_bfloat16), ("float16", _half)):

        def change(at: Step, own: Tree, whole: Tree, stored: Read = stored) -> Tree:
            return map_leaves(stored, own) if at.own else {
                name: branch if name in ("layers", "encoder", "decoder") else map_leaves(stored, branch)
                for name, branch in own.items()
            }  # fmt: skip

        said = f"the weights are rounded to {dtype}"
        yield Candidate(
            said, COST, Change(parameters=change), lambda step: True, [("parameters", ["- W", f"+ {dtype}(W)"])]
        )


def _half(x: Array) -> Array:
    with numpy.errstate(over="ignore"):
        return x.astype("float16").astype(x.dtype)
