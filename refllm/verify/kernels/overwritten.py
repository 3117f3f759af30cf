"""A value that the gradient needs and that was overwritten by another before: the gate by its activation, a softmax by
its gradient, x by the normalised one. What the pullback then reads is the other.

    for cause in overwritten("gated_feed_forward"):      … in whose gradient f stands where g did, which was overwritten

Which values are kept, and what may stand in their place, follows from the lines of the text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from refllm.verify.edits.source import Changes, Source
from refllm.verify.kernels.in_text import InText, Lines, in_text


@dataclass(frozen=True, eq=False)
class Overwritten(InText):
    gradients_alone: bool = True


def overwritten(operation: str) -> Iterator[InText]:
    return in_text(operation, _lines, Overwritten, in_pullback=True)


def _lines(text: Source) -> Iterator[Lines]:
    for name, other, changes in _of(text):
        yield Lines(
            f"in whose gradient {other} stands where {name} did, which was overwritten", f"{name}-overwritten", changes
        )


def _of(text: Source) -> Iterator[tuple[str, str, Changes]]:
    """The name that is lost, the one that stands in its place, and the lines that say so."""
    kept = dict.fromkeys(text.arrays, 0) | {name: s.lineno for s in text.body() for name in _given_by(s)}
    for pullback in [inner for inner in text.inner if inner.name.endswith("_back")]:
        later = {name: s for s in pullback.body for name in _given_by(s)}
        for name, line in kept.items():
            at_once = [*(other for other, at in kept.items() if at > line), *(a.arg for a in pullback.args.args)]
            for other, after in (*((o, None) for o in at_once), *later.items()):
                if other != name and (changes := _exchanged(text, pullback, name, other, after)):
                    yield name, other, changes


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
        if any(n.id == back for n in read) and not (after is None and other not in _before(text, pullback)):
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
