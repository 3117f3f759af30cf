"""The source of a function: where its expressions stand, and what stands in their place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

Changes = tuple[tuple[int, int, str], ...]  # bytes from, bytes to, and what stands there instead
Habit = tuple[Changes, float, bool, str]  # changes, cost, whether they are in the pullback, and what they mean


def changed(source: str, changes: Changes) -> str:
    """A source with all of these changes, which do not touch each other."""
    text = source.encode()
    for first, last, new in sorted(changes, reverse=True):
        text = text[:first] + new.encode() + text[last:]
    return text.decode()


def apart(one: Changes, other: Changes) -> bool:
    """Whether changes may be made together: none of them begins before one of the others ends."""
    spans = sorted((first, last) for first, last, _ in (*one, *other))
    return all(a[1] < b[0] for a, b in pairwise(spans))


def together(source: str, one: Changes, other: Changes) -> Changes | None:
    """Both changes; one that lies within what another changes is made in the words that stand there then. None if they
    touch each other in another way."""
    if apart(one, other):
        return one + other
    if len(one) > 1 or len(other) > 1:
        return None
    (first, last, new), (inner, end, word) = sorted((*one, *other), key=lambda change: (change[0], -change[1]))
    if not (first <= inner and end <= last and (first, last) != (inner, end)):
        return None
    old = re.escape(source.encode()[inner:end].decode())
    words, times = re.subn(rf"(?<!\w){old}(?!\w)", lambda _: word, new)
    return ((first, last, words),) if times == 1 else None


class Source:
    """The source of a function of the text and its syntax tree."""

    def __init__(self, source: str) -> None:
        self.lines, self.encoded = source.splitlines(keepends=True), source.encode()
        self.offsets = [0]
        for line in self.lines:
            self.offsets.append(self.offsets[-1] + len(line.encode()))
        self.definition = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef))
        nodes = list(ast.walk(self.definition))
        self.parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
        self.inner = [n for n in nodes if isinstance(n, ast.FunctionDef) and n is not self.definition]
        self.positional = [a.arg for a in self.definition.args.args]
        self.keywords = [a.arg for a in self.definition.args.kwonlyargs]
        given = (*self.definition.args.args, *self.definition.args.kwonlyargs)
        self.whole = {a.arg for a in given if isinstance(a.annotation, ast.Name) and a.annotation.id == "int"}
        self.real = {a.arg for a in given if isinstance(a.annotation, ast.Name) and a.annotation.id == "float"}
        self.arrays = [name for name in self.positional if name not in ("p", "config")]

    # --- the words ---------------------------------------------------------------------------------------------------

    def segment(self, node: ast.AST) -> str:
        return self.encoded[slice(*self.span(node))].decode()

    def span(self, node: Any) -> tuple[int, int]:
        first = self.offsets[node.lineno - 1] + node.col_offset
        return first, self.offsets[node.end_lineno - 1] + node.end_col_offset

    def exchanged(self, node: ast.AST, new: str) -> Changes:
        """Other words in the place of a node."""
        if isinstance(self.parents.get(node), ast.BinOp | ast.UnaryOp | ast.Attribute | ast.Subscript | ast.Compare):
            new = tight(new)
        return ((*self.span(node), new),)

    def all_exchanged(self, nodes: list[ast.expr], new: str) -> Changes:
        """The same expression exchanged wherever it stands."""
        new = tight(new)
        return tuple((*span, new) for span in sorted({self.span(node) for node in nodes}))

    def moved(self, statement: ast.stmt, before: ast.stmt) -> Changes:
        """The lines of a statement before another one."""
        first, last = self.offsets[statement.lineno - 1], self.offsets[statement.end_lineno or statement.lineno]
        place = self.offsets[before.lineno - 1]
        return (first, last, ""), (place, place, self.encoded[first:last].decode())

    def with_first_line(self, line: str) -> Changes:
        """One more line before all others."""
        first = self.body()[0]
        at = self.offsets[first.lineno - 1]
        return ((at, at, f"{' ' * first.col_offset}{line}\n"),)

    # --- the places --------------------------------------------------------------------------------------------------

    def body(self) -> list[ast.stmt]:
        return without_docstring(self.definition.body)

    def blocks(self) -> Iterator[list[ast.stmt]]:
        """The statements that stand below each other: of a function, of a loop, of a branch."""
        for node in ast.walk(self.definition):
            for field in ("body", "orelse"):
                block = getattr(node, field, None)
                if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                    yield without_docstring(block)

    def in_pullback(self, node: Any) -> bool:
        return self.line_in_pullback(node.lineno)

    def line_in_pullback(self, line: int) -> bool:
        return any(f.lineno <= line <= (f.end_lineno or 0) for f in self.inner if f.name.endswith("_back"))

    def _inside(self, node: Any) -> ast.FunctionDef | None:
        """The inner function that a node stands in."""
        return next((f for f in self.inner if f.lineno <= node.lineno <= (f.end_lineno or 0)), None)

    def expressions(self) -> Iterator[ast.expr]:
        """Every expression that is evaluated, in the order of the text."""
        skipped = {
            id(n)
            for f in (self.definition, *self.inner)
            for part in (f.args, f.returns, *f.decorator_list)
            if part is not None
            for n in ast.walk(part)
        }
        for statement in self.body():
            for node in ast.walk(statement):
                if isinstance(node, ast.expr) and id(node) not in skipped and self._is_evaluated(node):
                    yield node

    def _is_evaluated(self, node: ast.expr) -> bool:
        parent = self.parents[node]
        stored = isinstance(getattr(node, "ctx", None), ast.Store)
        annotation = isinstance(parent, ast.AnnAssign) and node is parent.annotation
        words = isinstance(node, ast.Constant) and isinstance(node.value, str) and not self.is_infinity(parent)
        return not (stored or annotation or words or isinstance(node, ast.JoinedStr | ast.FormattedValue))

    @staticmethod
    def is_infinity(node: ast.AST) -> bool:
        """float("-inf")"""
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float"

    def sizes(self) -> list[str]:
        """The names of what is taken from a shape."""
        return list(
            dict.fromkeys(
                name.id
                for node in self.body()
                if isinstance(node, ast.Assign) and ".shape" in self.segment(node.value)
                for name in ast.walk(node.targets[0])
                if isinstance(name, ast.Name)
            )
        )

    def numbers(self) -> list[str]:
        """The names of single numbers: of arguments, and of what is computed from these and from shapes alone."""
        known = [name for name in (*self.keywords, *self.positional) if name in self.real]
        for node in self.body():
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                shapes = re.sub(r"\b\w+\.shape\[[^]]*\]|\blen\(\w+\)", "1", self.segment(node.value))
                names = set(re.findall(r"\b[^\W\d]\w*", shapes))
                if names <= {*known, *self.whole, *self.sizes(), "sqrt", "ratio", "max", "min", "log", "pi"}:
                    known.append(node.targets[0].id)
        return known

    def returned(self) -> list[ast.expr]:
        """What the function and its pullback return: each value, and each of several."""
        found: list[ast.expr] = []
        for node in ast.walk(self.definition):
            if isinstance(node, ast.Return) and node.value is not None:
                waiting = [node.value]
                while waiting:
                    value = waiting.pop(0)
                    found.append(value)
                    waiting += value.elts if isinstance(value, ast.Tuple) else []
        return found

    def in_scope(self, node: ast.Name) -> list[str]:
        """The values that have a name where this name is read: arguments, and what was assigned before."""
        names, inside = [*self.positional, *self.keywords], self._inside(node)
        for n in ast.walk(self.definition):
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and n.lineno < node.lineno:
                names += [n.id] if self._inside(n) in (None, inside) else []
        names += [a.arg for a in inside.args.args] if inside is not None else []
        return [name for name in dict.fromkeys(names) if not name.endswith("_back")]


def calls_of(text: Source, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(text.definition):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


def without_docstring(block: list[ast.stmt]) -> list[ast.stmt]:
    documented = block and isinstance(block[0], ast.Expr) and isinstance(block[0].value, ast.Constant)
    return block[1:] if documented else block


def is_atom(text: str) -> bool:
    """Whether words stay together in any expression."""
    if _is_in_parentheses(text):
        return True
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        return True
    return isinstance(node, ast.Name | ast.Constant | ast.Call | ast.Attribute | ast.Subscript)


def _is_in_parentheses(text: str) -> bool:
    """Whether the first parenthesis is closed by the last sign."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return place > 0 and place == len(text) - 1
    return False


def tight(text: str) -> str:
    """Words that stay together in any expression."""
    return text if is_atom(text) else f"({text})"


def two_exchanged(words: list[str]) -> Iterator[list[str]]:
    """Words with each two of them exchanged."""
    for i, j in combinations(range(len(words)), 2):
        exchanged = [*words]
        exchanged[i], exchanged[j] = exchanged[j], exchanged[i]
        yield exchanged
