"""Finds names that a nested function reads although its enclosing function binds them twice or changes them later.

A pullback reads the variables of its forward pass when it is called, not when it is made. Where `x = x - mean` follows
another `x = ...`, a reader of `back` must work out which x it sees; where x changes after `back` was made, `back` is
wrong. Changing an array in place before that is fine.
"""

from __future__ import annotations

import ast
import builtins
from collections import Counter
from collections.abc import Iterator

Function = ast.FunctionDef | ast.Lambda


def rebound_names(source: str) -> list[str]:
    """One line for each violation, in the order of the source."""
    found: list[str] = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            found += _violations(function)
    return list(dict.fromkeys(found))


def _violations(function: ast.FunctionDef) -> Iterator[str]:
    bound = Counter(_bindings(function))
    for nested in _nodes(function):
        if not isinstance(nested, Function):
            continue
        reader = nested.name if isinstance(nested, ast.FunctionDef) else "a lambda"
        for name in sorted(_free_names(nested)):
            where = f"line {function.lineno}, {function.name}: `{name}`, which {reader} reads,"
            if bound[name] > 1:
                yield f"{where} is bound {bound[name]} times; give the later value a name of its own"
            if any(line > nested.lineno for line in _changes(function, name)):
                yield f"{where} is changed after {reader} was made; change it before"


def _nodes(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function's body; of a function nested in it only the definition, not the body."""
    queue: list[ast.AST] = [*function.body] if isinstance(function, ast.FunctionDef) else [function.body]
    while queue:
        node = queue.pop(0)
        yield node
        if not isinstance(node, Function):
            queue += ast.iter_child_nodes(node)


def _bindings(function: Function) -> Iterator[str]:
    """Names that the function's own scope binds, once for each time."""
    yield from (node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg))
    for node in _nodes(function):
        match node:
            case ast.Assign(targets=targets):
                yield from _stored(*targets)
            case ast.AnnAssign(target=target, value=ast.expr()) | ast.NamedExpr(target=target) | ast.For(target=target):
                yield from _stored(target)
            case ast.withitem(optional_vars=ast.expr() as target):
                yield from _stored(target)
            case ast.FunctionDef(name=name):
                yield name
            case ast.alias(name=name, asname=asname):
                yield asname or name.split(".")[0]


def _stored(*targets: ast.AST) -> Iterator[str]:
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _changes(function: Function, name: str) -> Iterator[int]:
    """Lines that change `name` in place: `x += 1`, `x[i] = 1`, `x[i] += 1`."""
    for node in _nodes(function):
        if isinstance(node, ast.AugAssign | ast.Assign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                base: ast.AST = target
                while isinstance(base, ast.Subscript):
                    base = base.value
                in_place = base is not target or isinstance(node, ast.AugAssign)
                if in_place and isinstance(base, ast.Name) and base.id == name:
                    yield node.lineno


def _free_names(function: Function) -> set[str]:
    """Names that the function, or one nested in it, reads from outside."""
    own: set[str] = set(_bindings(function))
    read: set[str] = set()
    for node in _nodes(function):
        if isinstance(node, Function):
            read |= _free_names(node)
        elif isinstance(node, ast.comprehension):
            own |= set(_stored(node.target))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            read.add(node.id)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            read.add(node.target.id)
    return read - own - set(dir(builtins))
