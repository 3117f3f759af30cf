"""A value that a pullback reads and that was overwritten before: by another value of the same function, or in place, by
what the forward pass makes of it.

    for name, other, changes in kept_and_overwritten(Source(source_of(rms_norm))):        n, g * n, …
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from refllm.verify.edits.source import Changes, Habit, Source

NUMBER_BY_NUMBER = (ast.Add, ast.Sub, ast.Mult, ast.Div)
OF_ONE = ("exp", "log", "sqrt", "tanh", "sigmoid", "abs")  # words of one array, number by number


def overwritten_in_place(text: Source) -> Iterator[Habit]:
    """The name is lost in the pullback alone."""
    for name, other, changes in kept_and_overwritten(text):
        cost = 1.2 if other.isidentifier() else 1.25
        yield changes, cost, True, f"`{name}` was overwritten by `{other}` before the pullback read it"


def kept_and_overwritten(text: Source) -> Iterator[tuple[str, str, Changes]]:
    """The name that is lost, what stands in its place, and the lines that say so."""
    kept = dict.fromkeys(text.arrays, 0) | {name: s.lineno for s in text.body() for name in _given_by(s)}
    for pullback in [inner for inner in text.inner if inner.name.endswith("_back")]:
        later = {name: s for s in pullback.body for name in _given_by(s)}
        for name, line in kept.items():
            at_once = [*(other for other, at in kept.items() if at > line), *(a.arg for a in pullback.args.args)]
            for other, after in (*((o, None) for o in at_once), *later.items()):
                if other != name and (changes := _exchanged(text, pullback, name, other, after)):
                    yield name, other, changes
            for other in _made_of(text, name):
                if changes := _exchanged(text, pullback, name, other, None):
                    yield name, other.removeprefix("(").removesuffix(")"), changes


def _made_of(text: Source, name: str) -> Iterator[str]:
    """What the forward pass computes of a value, number by number, and gives no name: in its place, it is lost."""
    found = dict[str, None]()
    for node in text.expressions():
        parts = [node.left, node.right] if isinstance(node, ast.BinOp) and isinstance(node.op, NUMBER_BY_NUMBER) else []
        if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
            parts = list(node.args) if isinstance(node.func, ast.Name) and node.func.id in OF_ONE else []
        named = isinstance(text.parents.get(node), ast.Assign)
        if not named and not text.in_pullback(node) and any(isinstance(x, ast.Name) and x.id == name for x in parts):
            found[f"({text.segment(node)})"] = None
    yield from found


def _given_by(statement: ast.stmt) -> list[str]:
    """The values that a statement gives a name."""
    if not isinstance(statement, ast.Assign):
        return []
    parts = [p for t in statement.targets for p in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return [p.id for p in parts if isinstance(p, ast.Name) and not p.id.endswith("_back")]


def _exchanged(text: Source, pullback: ast.FunctionDef, name: str, other: str, after: ast.stmt | None) -> Changes:
    """One name for another in a pullback, after one of its statements, and in the pullbacks of what was called with
    it."""
    begins = after.end_lineno or after.lineno if after else pullback.lineno
    read = [n for n in ast.walk(pullback) if isinstance(n, ast.Name) and n.lineno > begins]
    direct = tuple((*text.span(n), other) for n in read if n.id == name and isinstance(n.ctx, ast.Load))
    lines = list[str]()
    for back, call in _calls_with(text, name):
        if any(n.id == back for n in read) and not (
            after is None and other.isidentifier() and other not in _before(text, pullback)
        ):
            lines.append(f"{back} = {_with(text, call, name, other)}[1]\n")
    if after is not None and any(n.id == line.split(" ")[0] for line in lines for n in _read_until(pullback, begins)):
        lines = []  # a local name would have no value before
    if not direct and not lines:
        return ()
    first = pullback.body[0] if after is None else after
    indent = " " * first.col_offset
    at = text.offsets[(first.lineno - 1) if after is None else (first.end_lineno or first.lineno)]
    return (*direct, *([(at, at, "".join(indent + line for line in lines))] if lines else []))


def _read_until(pullback: ast.FunctionDef, line: int) -> list[ast.Name]:
    return [n for n in ast.walk(pullback) if isinstance(n, ast.Name) and n.lineno <= line]


def _before(text: Source, pullback: ast.FunctionDef) -> set[str]:
    return {*text.arrays, *(n for s in text.body() if s.lineno < pullback.lineno for n in _given_by(s))}


def _calls_with(text: Source, name: str) -> Iterator[tuple[str, ast.Call]]:
    """The pullbacks of what is called with a value: y, f_back = f(x)."""
    for statement in text.body():
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Tuple):
            continue
        parts, call = statement.targets[0].elts, statement.value
        if not isinstance(call, ast.Call) or len(parts) != 2 or not isinstance(parts[1], ast.Name):
            continue
        if parts[1].id.endswith("_back") and _names(call, name):
            yield parts[1].id, call


def _names(call: ast.Call, name: str) -> list[ast.Name]:
    return [n for a in call.args for n in ast.walk(a) if isinstance(n, ast.Name) and n.id == name]


def _with(text: Source, call: ast.Call, name: str, other: str) -> str:
    """A call with one name for another in its arguments."""
    first, last = text.span(call)
    words = text.encoded
    for begin, end in sorted(map(text.span, _names(call, name)), reverse=True):
        words = words[:begin] + other.encode() + words[end:]
        last += len(other) - (end - begin)
    return words[first:last].decode()
