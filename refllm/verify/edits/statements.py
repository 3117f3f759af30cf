"""Statements that are dropped, moved or added."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import permutations

from refllm.verify.edits.expressions import FIXED, alike, pairs
from refllm.verify.edits.source import Changes, Source, without_docstring


def statements_changed(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """One statement dropped, moved to another place of its block, or its branch always or never taken."""
    for block in _blocks(text):
        for n, statement in enumerate(block):
            if isinstance(statement, ast.Return | ast.FunctionDef):
                continue
            inside = text.in_pullback(statement)
            yield text.exchanged(statement, "pass"), 1.3, inside
            for other in range(len(block)):
                if other not in (n, n + 1) and not isinstance(block[other], ast.FunctionDef):
                    yield text.moved(statement, block[other]), 1.8, inside
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Tuple):
                for words, cost in _unpacked_otherwise(text, statement.targets[0], statement.value):
                    yield text.exchanged(statement, words), cost, inside
            if isinstance(statement, ast.If):
                for value in ("True", "False"):
                    yield text.exchanged(statement.test, value), 1.1, inside
                yield text.exchanged(statement.test, f"not ({text.segment(statement.test)})"), 1.2, inside
                for other_test in _further_tests(text, statement.test):
                    yield text.exchanged(statement.test, other_test), 1.3, inside


def _unpacked_otherwise(text: Source, target: ast.Tuple, value: ast.expr) -> Iterator[tuple[str, float]]:
    """Several values taken in another order, or, of a value and its pullback, what went in for what came out."""
    names = [text.segment(name) for name in target.elts]
    if len(names) == 2 and names[1].endswith("_back"):
        if isinstance(value, ast.Call) and value.args:
            yield f"{', '.join(names)} = {text.segment(value.args[0])}, None", 1.4
    elif len(names) <= 4 and not any(name.endswith("_back") for name in names):
        for order in list(permutations(names))[1:]:
            yield f"{', '.join(order)} = {text.segment(value)}", 1.3


def _further_tests(text: Source, test: ast.expr) -> Iterator[str]:
    """The same test, if another argument allows it."""
    for name in text.keywords:
        words = text.segment(test)
        if name not in words:
            yield from (
                f"{words} and {other}" for other in (name, f"not {name}", f"{name} is None", f"{name} is not None")
            )


def _blocks(text: Source) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(text.definition):
        for field in ("body", "orelse"):
            block = getattr(node, field, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                yield without_docstring(block)


def fixed_arguments(text: Source) -> Iterator[tuple[str, float]]:
    """A first line that changes what was given, or takes another operation for this one."""
    for name in text.keywords:
        turned = f"None if {name} is None else swap({name})"
        anything = ("0", "1", f"{name} + 1", f"{name} - 1", f"-{name}", f"2 * {name}", turned)
        yield from ((f"{name} = {value}", 1.0) for value in FIXED.get(name, ()))
        yield from ((f"{name} = {value}", 1.4) for value in anything)
    for name in text.positional:
        others = (f"{name} + 1", f"{name} - 1", f"-{name}", f"2 * {name}", f"{name} * 0", f"swap({name})")
        yield from ((f"{name} = {value}", 1.4) for value in others)
    if len(text.positional) == 1 and not text.keywords:
        yield f"return columns({text.definition.name})({text.positional[0]})", 1.0
    arguments = ", ".join([*text.positional, *(f"{name}={name}" for name in text.keywords)])
    for other in alike(text.definition.name):
        yield f"return {other}({arguments})", 1.0
    for i, j in pairs(len(text.positional)):
        a, b = text.positional[i], text.positional[j]
        yield f"{a}, {b} = {b}, {a}", 1.3
