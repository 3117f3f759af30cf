"""Statements that are dropped, moved or added."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import combinations, permutations

from refllm.verify.edits.source import Changes, Source
from refllm.verify.edits.vocabulary import FIXED, alike


def statements_changed(text: Source) -> Iterator[tuple[Changes, float, bool]]:
    """One statement dropped, moved to another place of its block, or its branch always or never taken."""
    for block in text.blocks():
        for n, statement in enumerate(block):
            if isinstance(statement, ast.Return | ast.FunctionDef):
                continue
            inside = text.in_pullback(statement)
            yield text.exchanged(statement, "pass"), 1.3, inside
            for other in range(len(block)):
                if other not in (n, n + 1) and not isinstance(block[other], ast.FunctionDef):
                    yield text.moved(statement, block[other]), 1.8, inside
            if isinstance(statement, ast.Assign):
                for line, cost in _done_after(text, statement):
                    at = text.offsets[statement.end_lineno or statement.lineno]
                    yield ((at, at, line),), cost, inside
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Tuple):
                for words, cost in _unpacked_otherwise(text, statement.targets[0], statement.value):
                    yield text.exchanged(statement, words), cost, inside
            if isinstance(statement, ast.If):
                for value in ("True", "False"):
                    yield text.exchanged(statement.test, value), 1.1, inside
                yield text.exchanged(statement.test, f"not ({text.segment(statement.test)})"), 1.2, inside
                for other_test in _further_tests(text, statement.test):
                    yield text.exchanged(statement.test, other_test), 1.3, inside


def _done_after(text: Source, statement: ast.Assign) -> Iterator[tuple[str, float]]:
    """Something done to the value of a call that gives a pullback too."""
    target = statement.targets[0]
    if not (isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Call)):
        return
    if not _is_pullback(text.segment(target.elts[-1])):
        return
    lead = " " * statement.col_offset
    for element in target.elts[:-1]:
        for name in [n.id for n in ast.walk(element) if isinstance(n, ast.Name)]:
            for dtype in ("float16", "bfloat16", "float32"):
                yield f'{lead}{name} = rounded({name}, "{dtype}")\n', 1.4
            yield f"{lead}{name} = constant({name})\n", 1.4
            if text.segment(statement.value).startswith("log_softmax("):
                for eps in ("1e-6", "1e-7", "1e-8", "1e-9", "1e-10", "1e-12", "1e-16"):
                    yield f"{lead}{name} = log(exp({name}) + {eps})\n", 1.25
            for words in (f"-{name}", f"{name} * 2", f"{name} / 2", f"{name} * 0", f"swap({name})"):
                yield f"{lead}{name} = {words}\n", 1.5
            yield f"{lead}{name} = {name} * sqrt({name}.shape[-1])\n", 1.5
            yield f"{lead}{name} = {name} / sqrt({name}.shape[-1])\n", 1.5


def _is_pullback(name: str) -> bool:
    return name == "_" or name.endswith("_back")


def _unpacked_otherwise(text: Source, target: ast.Tuple, value: ast.expr) -> Iterator[tuple[str, float]]:
    """Several values taken in another order, or, of a value and its pullback, what went in for what came out."""
    names = [text.segment(name) for name in target.elts]
    if len(names) == 2 and _is_pullback(names[1]):
        if isinstance(value, ast.Call) and value.args:
            yield f"{', '.join(names)} = {text.segment(value.args[0])}, None", 1.4
    elif len(names) <= 4 and not any(_is_pullback(name) for name in names):
        for order in list(permutations(names))[1:]:
            yield f"{', '.join(order)} = {text.segment(value)}", 1.3


def _further_tests(text: Source, test: ast.expr) -> Iterator[str]:
    """The same test, if another argument, or two sizes, allow it."""
    for name in text.keywords:
        words = text.segment(test)
        if name not in words:
            yield from (
                f"{words} and {other}" for other in (name, f"not {name}", f"{name} is None", f"{name} is not None")
            )
    for a, b in combinations(text.sizes(), 2):
        yield from (f"{text.segment(test)} and {a} {sign} {b}" for sign in ("==", "<=", ">="))


def fixed_arguments(text: Source) -> Iterator[tuple[str, float]]:
    """A first line that changes what was given, or takes another operation for this one."""
    for name in text.keywords:
        turned = f"None if {name} is None else swap({name})"
        anything = ("0", "1", f"{name} + 1", f"{name} - 1", f"-{name}", f"2 * {name}", turned)
        yield from ((f"{name} = {value}", 1.0) for value in FIXED.get(name, ()))
        yield from ((f"{name} = {value}", 1.4) for value in anything)
    for name in text.positional:
        yield from ((f"{name} = {value}", 0.95) for value in FIXED.get(name, ()))
        others = (f"{name} + 1", f"{name} - 1", f"-{name}", f"2 * {name}", f"{name} * 0", f"swap({name})")
        yield from ((f"{name} = {value}", 1.4) for value in others)
    if len(text.positional) == 1 and not text.keywords:
        yield f"return columns({text.definition.name})({text.positional[0]})", 1.0
    arguments = ", ".join([*text.positional, *(f"{name}={name}" for name in text.keywords)])
    yield from _of_parts(text)
    for other in alike(text.definition.name):
        yield f"return {other}({arguments})", 1.0
    for a, b in combinations(text.positional, 2):
        yield f"{a}, {b} = {b}, {a}", 1.3
    for kind in (text.real, text.whole):
        for a, b in combinations([name for name in text.keywords if name in kind], 2):
            yield f"{a}, {b} = {b}, {a}", 1.0


def _of_parts(text: Source) -> Iterator[tuple[str, float]]:
    """Of each array of a list, or of each text, what is meant of all; and targets one place off once more."""
    name, first = text.definition.name, text.positional[:1]
    keywords = "".join(f", {k}={k}" for k in text.keywords)
    annotations = [text.segment(a.annotation) for a in text.definition.args.args if a.annotation is not None]
    if annotations == ["list[Array]"]:
        yield f"return separately({name})({first[0]}{keywords})", 1.1
    if "targets" in text.keywords and first and first[0] != "p":
        x = first[0]
        for a, b in ((":-1", "1:"), ("1:", ":-1"), (":-1", ":-1"), ("1:", "1:")):
            yield f"{x}, targets = {x}[..., {a}, :], targets[..., {b}]", 1.25
