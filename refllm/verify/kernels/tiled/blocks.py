"""Edits of every other text with loops, by its grammar: what is added up, rescaled, written, compared or read in some
of its blocks alone, or in others.

    edits("layer_norm")     those of an operation, and of what it calls
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from types import FunctionType
from typing import NamedTuple

from refllm.verify.edits import source_of
from refllm.verify.edits.source import Source, tight
from refllm.verify.kernels import bank, flash
from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.tiled.lines import COMPARED
from refllm.verify.mutants.bank import edit

WHERE = {  # in which blocks alone: an id, words, a condition
    "first": ("in the first block alone", "{v}.start == 0"),
    "not-first": ("in all blocks but the first", "{v}.start > 0"),
    "last": ("in the last block alone", "{v}.stop == {n}"),
    "not-last": ("in all blocks but the last", "{v}.stop < {n} or {n} <= {size}"),
    "second": ("in every second block", "{v}.start // {size} % 2 == 0"),
    "other-second": ("in every other second block", "{v}.start // {size} % 2 == 1"),
    "whole": ("in whole blocks alone", "{v}.stop - {v}.start == {size}"),
}

UNCHANGED = ("not-first", "last")  # conditions under which 0 is rescaled, or written, as it was


class Block(NamedTuple):
    """A loop over blocks: its name, how many places there are, and the size of a block."""

    v: str
    n: str
    size: str


@cache
def edits(operation: str) -> tuple[Mistake, ...]:
    if operation not in bank.OPERATIONS:
        return ()
    return tuple(_all(operation))


def _all(operation: str) -> Iterator[Mistake]:
    seen = set[tuple[FunctionType, str, str]]()
    for function in sorted(bank.called(operation), key=lambda f: (f.__name__ != operation, f.__name__)):
        if function.__module__ == flash.__name__:
            continue
        for kind, words, line, new in _of(Source(source_of(function))):
            if (function, line, new) not in seen:
                seen.add((function, line, new))
                yield Mistake(f"{operation}/block-{kind}", f"{operation} in which {words}", edit(function, line, new))


def _of(text: Source) -> Iterator[tuple[str, str, str, str]]:
    """An id, words, the line that goes, and what comes."""
    lines = [line.strip() for line in text.lines]
    for block, statement in _statements(text):
        line = text.segment(statement)
        if "\n" in line or lines.count(line) > 1:
            continue
        for kind, words, new in (*_somewhere(text, block, statement), *_otherwise(text, block, statement)):
            yield kind, words, line, new


def _statements(text: Source) -> Iterator[tuple[Block, ast.Assign | ast.AugAssign]]:
    """The assignments that stand in a loop over blocks, each with the innermost one."""
    for loop in [node for node in ast.walk(text.definition) if isinstance(node, ast.For)]:
        call = loop.iter
        if not isinstance(call, ast.Call) or text.segment(call.func) != "tiles" or len(call.args) != 2:
            continue
        block = Block(text.segment(loop.target), text.segment(call.args[0]), tight(text.segment(call.args[1])))
        yield from ((block, each) for each in loop.body if isinstance(each, ast.Assign | ast.AugAssign))


def _role(text: Source, statement: ast.Assign | ast.AugAssign) -> tuple[str, str, str] | None:
    """What a statement does to its target: "added up" or "rescaled" by a value, or "written"."""
    if isinstance(statement, ast.AugAssign):
        return text.segment(statement.target), "added up", text.segment(statement.value)
    target, value = statement.targets[0], statement.value
    name = text.segment(target)
    if isinstance(value, ast.BinOp) and text.segment(value.left) == name:
        role = "rescaled" if isinstance(value.op, ast.Mult) else "added up"
        return name, role, text.segment(value.right)
    return (name, "written", text.segment(value)) if isinstance(target, ast.Subscript) else None


def _somewhere(text: Source, block: Block, statement: ast.Assign | ast.AugAssign) -> Iterator[tuple[str, str, str]]:
    role = _role(text, statement)
    if role is None:
        return
    target, does, value = role
    name, line = target.partition("[")[0], text.segment(statement)
    for kind, (words, condition) in WHERE.items():
        if (kind == "not-first" and does == "rescaled") or (kind in UNCHANGED and value == "0"):
            continue  # nothing is there yet
        where = condition.format(**block._asdict())
        yield f"{does.replace(' ', '-')}-{kind}", f"{name} is {does} {words}", f"if {where}:\n    {line}"
    if does == "added up" and "-=" not in line:
        yield "last-alone", f"{name} is that of the last block, not the sum over all", f"{target} = {value}"
        twice = f"{line}\nif {block.v}.start > 0:\n    {line}"
        yield "counted-twice", f"{name} counts all blocks but the first twice", twice
    if does == "rescaled":
        yield "rescaled-twice", f"{name} is rescaled twice", f"{line}\n{line}"
        yield "rescaled-inversely", f"{name} is rescaled by the inverse factor", f"{target} = {target} / ({value})"


def _otherwise(text: Source, block: Block, statement: ast.Assign | ast.AugAssign) -> Iterator[tuple[str, str, str]]:
    """A comparison, or a place that is read, exchanged."""
    begin, _ = text.span(statement)
    line = text.segment(statement).encode()

    def with_other(node: ast.AST, new: str) -> str:
        first, last = text.span(node)
        return (line[: first - begin] + new.encode() + line[last - begin :]).decode()

    for node in ast.walk(statement.value):
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
            left, right = text.segment(node.left), text.segment(node.comparators[0])
            old = text.segment(node)
            sign = old[len(left) : len(old) - len(right)].strip()
            others = [f"{left} {other} {right}" for other in COMPARED[type(node.ops[0])]]
            others += [f"{left} {sign} {right} {change}" for change in ("+ 1", "- 1") if "INFINITY" not in right]
            yield from (("compared", f"`{other}` stands for `{old}`", with_other(node, other)) for other in others)
        if isinstance(node, ast.Subscript):
            for name in [n for n in ast.walk(node.slice) if isinstance(n, ast.Name) and n.id == block.v]:
                of = text.segment(node.value)
                before = f"before({block.v}, {block.size})"
                yield "reads-before", f"{of} is read from the block before", with_other(name, before)
                yield "reads-first", f"{of} is read from the first block", with_other(name, f"first({block.v})")
