"""A value as it was before a step, or as it is after it: counted before a filter, a loss of the state after a step."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from refllm.verify.edits.compositions import statements
from refllm.verify.edits.source import Habit, Source, tight

COST = 1.15
IN_A_BRANCH = 1.32  # dearer than another condition of the branch, which says the same in fewer words


def before_it_is_changed(text: Source) -> Iterator[Habit]:
    """x = f(x); g(x)   becomes   g of x as it was before: counted before a filter, a residual from before a scale."""
    for statement in statements(text):
        name = _changed_by(statement)
        if name is None:
            continue
        first = _outside_of_branches(text, statement)
        at, lead = text.offsets[first.lineno - 1], " " * first.col_offset
        kept = (at, at, f"{lead}{name}_before = {name}\n")
        said = f"`{name}` is taken as it is before `{text.segment(statement)}`"
        cost = COST if first is statement else IN_A_BRANCH
        for node in text.expressions():
            if isinstance(node, ast.Name) and node.id == name and node.lineno > (statement.end_lineno or 0):
                changes = (kept, *text.exchanged(node, f"{name}_before"))
                yield changes, cost, text.in_pullback(node), said


def of_what_comes_later(text: Source) -> Iterator[Habit]:
    """y, _ = f(p); return y, new_p   becomes   return f(new_p)[0], new_p: of the state after a step."""
    made = {
        name.id: node.value
        for node in statements(text)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for name in (node.targets[0].elts[:1] if isinstance(node.targets[0], ast.Tuple) else ())
        if isinstance(name, ast.Name)
    }
    for node in [node for node in text.returned() if isinstance(node, ast.Name) and node.id in made]:
        call = made[node.id]
        for argument in [a for a in call.args if isinstance(a, ast.Name)]:
            for later in text.in_scope(node):
                if later != argument.id and later.endswith(f"_{argument.id}"):
                    again = _renamed(text, call, argument, later)
                    said = f"`{node.id}` is computed of `{later}`, not of `{argument.id}`"
                    yield text.exchanged(node, f"{again}[0]"), 1.2, False, said


def renewed_too_early(text: Source) -> Iterator[Habit]:
    """c = f(m); return g(c), h(m)   becomes   m = h(m); c = f(m); return g(c), m: a state read after its step."""
    for name, new in _renewed(text):
        words = text.segment(new)
        inside = set(ast.walk(new))
        for statement in statements(text):
            read = [n for n in ast.walk(statement) if isinstance(n, ast.Name) and n.id == name and n not in inside]
            if text.in_pullback(statement) or not read or not _is_known(text, new, statement):
                continue
            at, lead = text.offsets[statement.lineno - 1], " " * statement.col_offset
            changes = ((at, at, f"{lead}{name} = {words}\n"), *text.exchanged(new, name))
            yield changes, COST, False, f"`{name}` takes its step before `{text.segment(statement)}` reads it"


def one_after_the_other(text: Source) -> Iterator[Habit]:
    """x - a * (b + c(x))   becomes   x = x - a * b; x - a * c(x): two steps, of which the second sees the first."""
    for node in text.expressions():
        scaled = node.right if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub) else None
        parts = scaled.right if isinstance(scaled, ast.BinOp) and isinstance(scaled.op, ast.Mult) else None
        if not (isinstance(node, ast.BinOp) and isinstance(node.left, ast.Name) and isinstance(scaled, ast.BinOp)):
            continue
        if not (isinstance(parts, ast.BinOp) and isinstance(parts.op, ast.Add)):
            continue
        name, sign = node.left.id, "+" if isinstance(node.op, ast.Add) else "-"
        factor, statement = tight(text.segment(scaled.left)), _statement(text, node)
        for first, second in ((parts.left, parts.right), (parts.right, parts.left)):
            if any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(second)) and statement is not None:
                at, lead = text.offsets[statement.lineno - 1], " " * statement.col_offset
                line = f"{lead}{name} = {name} {sign} {factor} * {tight(text.segment(first))}\n"
                rest = f"{name} {sign} {factor} * ({text.segment(second)})"
                said = f"`{text.segment(second)}` is of `{name}` as it is after the step with `{text.segment(first)}`"
                yield ((at, at, line), *text.exchanged(node, rest)), COST, text.in_pullback(node), said


def _statement(text: Source, node: ast.AST) -> ast.stmt | None:
    while not isinstance(node, ast.stmt):
        if node not in text.parents:
            return None
        node = text.parents[node]
    return node


def _renewed(text: Source) -> Iterator[tuple[str, ast.expr]]:
    """The arguments that are returned as they are after a step, `m -> m'`, and what they are then."""
    _, _, given = (ast.get_docstring(text.definition) or "").partition("-> ")
    names = re.findall(r"(\w+'?) \(", given)
    for node in text.body():
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            for name, new in zip(names, node.value.elts, strict=False):
                old = name.removesuffix("'")
                if old != name and old in text.positional and not isinstance(new, ast.Name):
                    yield old, new


def _is_known(text: Source, new: ast.expr, statement: ast.stmt) -> bool:
    """Whether all that this is made of has a value before a statement."""
    read = [n for n in ast.walk(new) if isinstance(n, ast.Name)]
    stored = {
        n.id: n.lineno for n in ast.walk(text.definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    return "\n" not in text.segment(new) and all(stored.get(n.id, 0) < statement.lineno for n in read)


def _renamed(text: Source, call: ast.Call, argument: ast.expr, name: str) -> str:
    """The words of a call with a name in the place of one argument."""
    (first, last), (start, _), whole = text.span(argument), text.span(call), text.segment(call).encode()
    return (whole[: first - start] + name.encode() + whole[last - start :]).decode()


def _changed_by(statement: ast.stmt) -> str | None:
    """The name that a statement gives another value, which is made of the one before."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    name = target.elts[0] if isinstance(target, ast.Tuple) else target
    if not isinstance(name, ast.Name) or not isinstance(statement, ast.Assign):
        return None
    used = {node.id for node in ast.walk(statement.value) if isinstance(node, ast.Name)}
    return name.id if name.id in used else None


def _outside_of_branches(text: Source, statement: ast.stmt) -> ast.stmt:
    """The statement, or the outermost branch that it stands in."""
    outer: ast.AST = statement
    while isinstance(text.parents.get(outer), ast.If):
        outer = text.parents[outer]
    return outer  # type: ignore[return-value]
