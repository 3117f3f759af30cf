"""Single edits of the lines of attention in tiles, by their grammar: what somebody writes who errs in one place."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from types import FunctionType
from typing import cast

from refllm.verify.edits import source_of
from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.flash import backward, forward, scores
from refllm.verify.mutants.bank import edit

COMPARED = {ast.Lt: ("<=", ">"), ast.LtE: ("<", ">="), ast.Gt: (">=", "<"), ast.GtE: (">", "<="), ast.Eq: ("!=",)}
ALIKE = (  # names that are taken for each other
    ("q", "k", "v"),
    ("y", "dy", "q"),
    ("P", "dP", "ds"),
    ("new", "top", "shift"),
    ("T", "S", "D"),
    ("rows", "keys"),
    ("Z", "rescale"),
    ("s", "P"),
    ("row", "key"),
    ("L", "delta"),
    ("dk_here", "dv_here"),
)
WHEN = {  # in which tiles alone a line is run
    "in all tiles of keys but the last": "keys.stop < S or S <= TILE",
    "in all tiles of keys but the first": "keys.start > 0",
    "in the first tile of keys alone": "keys.start == 0",
    "in the last tile of keys alone": "keys.stop == S",
    "in every second tile of keys": "keys.start // TILE % 2 == 0",
    "in whole tiles of keys alone": "keys.stop - keys.start == TILE",
    "in all tiles of queries but the last": "rows.stop < T or T <= ROWS",
    "in all tiles of queries but the first": "rows.start > 0",
    "in the first tile of queries alone": "rows.start == 0",
    "in whole tiles of queries alone": "rows.stop - rows.start == ROWS",
    "where it is not causal": "not causal",
    "where there is no mask": "allowed is None",
}
SCORES = cast(FunctionType, scores)
WAYS = {
    cast(FunctionType, forward): "the way forward",
    cast(FunctionType, backward): "the gradient",
    SCORES: "the scores",
}


def mistakes() -> Iterator[Mistake]:
    for function, way in WAYS.items():
        for line, new, words in _edits(function):
            about = f"attention in tiles in which, in {way}, {words}"
            for within, where in _passes(function):
                yield Mistake("attention/another-line", about + where, edit(function, line, new), within=within)


def _passes(function: FunctionType) -> Iterator[tuple[str, str]]:
    if function is not SCORES:
        yield "", ""
        return
    yield from (("", ""), ("backward", ", as the gradient recomputes them"), ("forward", ", but for the gradient"))


@cache
def _edits(function: FunctionType) -> tuple[tuple[str, str, str], ...]:
    return tuple(dict.fromkeys(_all(function)))


def _all(function: FunctionType) -> Iterator[tuple[str, str, str]]:
    source = source_of(function)
    lines = source.splitlines()
    for statement in _statements(ast.parse(source).body[0]):
        line = lines[statement.lineno - 1].strip()
        if "kind." in line or "more" in line:  # of other kinds of attention
            continue
        if sum(line == each.strip() for each in lines) > 1:
            continue
        for begin, end, new, old in _of_statement(lines, statement):
            first = lines[statement.lineno - 1]
            at, to = begin - statement.col_offset, end - statement.col_offset
            written = first.strip()
            if statement.end_lineno == statement.lineno or begin <= len(first):
                words = f"`{new}` stands for `{old}`" if new else f"`{old}` is left out"
                yield line, written[:at] + new + written[to:], words
        if isinstance(statement, ast.Assign | ast.AugAssign):
            yield from _of_run(statement, line)


def _statements(function: ast.stmt) -> Iterator[ast.stmt]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.For | ast.If | ast.Return):
            yield node


def _of_run(statement: ast.Assign | ast.AugAssign, line: str) -> Iterator[tuple[str, str, str]]:
    """A line that is not run, or in some tiles alone."""
    again = isinstance(statement, ast.AugAssign) or _is_of_itself(statement)
    if again or line.startswith("top = "):
        yield line, "pass", f"`{line}` is left out"
        for words, condition in WHEN.items():
            yield line, f"if {condition}:\n    {line}", f"`{line}` is run {words}"
    if isinstance(statement, ast.AugAssign):
        yield line, line.replace("+=", "=", 1), f"`{line}` is no sum, but the last summand"


def _is_of_itself(statement: ast.Assign) -> bool:
    """x = x …"""
    [target] = statement.targets
    names = {n.id for n in ast.walk(statement.value) if isinstance(n, ast.Name)}
    return isinstance(target, ast.Name) and target.id in names


def _of_statement(lines: list[str], statement: ast.stmt) -> Iterator[tuple[int, int, str, str]]:
    """Where in its line something else stands: from, to, what, and for what."""
    parts = (
        [statement.test]
        if isinstance(statement, ast.If)
        else [statement.iter]
        if isinstance(statement, ast.For)
        else [part for part in (getattr(statement, "value", None),) if part is not None]
    )
    for part in parts:
        for node in ast.walk(part):
            if isinstance(node, ast.expr) and node.lineno == node.end_lineno == statement.lineno:
                old = _segment(lines, node)
                for new in _instead(lines, node):
                    if new != old:
                        yield node.col_offset, node.end_col_offset or 0, new, old


def _instead(lines: list[str], node: ast.expr) -> Iterator[str]:
    def words(part: ast.AST) -> str:
        return _segment(lines, part)

    def tight(part: ast.AST) -> str:
        return f"({words(part)})" if isinstance(part, ast.BinOp | ast.Compare) else words(part)

    if isinstance(node, ast.BinOp):
        yield from (tight(node.left), tight(node.right))
        if isinstance(node.op, ast.Sub):
            yield f"({words(node.left)} + {tight(node.right)})"
            yield f"({tight(node.right)} - {tight(node.left)})"
        if isinstance(node.op, ast.Mult):
            yield f"({words(node)} * {tight(node.right)})"
        if isinstance(node.op, ast.Add):
            yield f"({words(node.left)} - {tight(node.right)})"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, right = words(node.left), words(node.comparators[0])
        yield from (f"{left} {sign} {right}" for sign in COMPARED.get(type(node.ops[0]), ()))
        if not isinstance(node.ops[0], ast.Is | ast.IsNot):
            yield from (f"{left} {_sign(node)} {right} {more}" for more in ("+ 1", "- 1"))
        yield from ("True", "False")
    elif isinstance(node, ast.BoolOp):
        yield from map(words, node.values)
    elif isinstance(node, ast.UnaryOp):
        yield words(node.operand)
    elif isinstance(node, ast.Call):
        yield from _of_call(words, node)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
        yield from (str(node.value + more) for more in (1, -1) if node.value + more >= 0)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield from (other for group in ALIKE if node.id in group for other in group if other != node.id)
        yield from ("0", "1e30") if node.id == "INFINITY" else ()
    elif isinstance(node, ast.Subscript):
        yield from _of_places(words(node))


def _segment(lines: list[str], node: ast.AST) -> str:
    """The words of a node of one line."""
    return lines[node.lineno - 1][node.col_offset : node.end_col_offset]  # type: ignore[attr-defined]


def _sign(node: ast.Compare) -> str:
    return {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "=="}[type(node.ops[0])]


def _of_call(told: Callable[[ast.AST], str], node: ast.Call) -> Iterator[str]:
    name, arguments = told(node.func), [told(a) for a in node.args]
    if name == "numpy.where":
        yield from (f"({each})" for each in arguments[1:])
    if name in ("numpy.exp", "numpy.log"):
        yield f"{name}2({arguments[0]})"
        yield f"({arguments[0]})"
    if name == "numpy.maximum":
        yield f"numpy.minimum({', '.join(arguments)})"
        yield from arguments
    if name.endswith((".sum", ".max")):
        other = {"sum": "mean", "max": "min"}[name[-3:]]
        yield told(node).replace(f".{name[-3:]}(", f".{other}(")
    if name == "swap" and arguments:
        yield arguments[0]


def _of_places(words: str) -> Iterator[str]:
    """The tile before, or the first, in the place of one."""
    for name, size in (("rows", "ROWS"), ("keys", "TILE")):
        for sign in (f", {name}, ", f", {name}]"):
            if (
                sign in words
                and words.count("[") == 1
                and not words.startswith(("y[", "dq[", "dk[", "dv[", "L[..., rows] ="))
            ):
                rest = sign.removeprefix(f", {name}")
                yield words.replace(sign, f", before({name}, {size}){rest}")
                yield words.replace(sign, f", first({name}){rest}")
