"""Which conditions of the plain text the sized cases meet: what decides between two lines or two values, both ways.

    seen = Seen(); seen.ask(case); seen.missing("attention")      ["masked: causal is never true"]

A condition is what `if` and `where` ask, a comparison, and each side of `&` and `|`, where it alone decides. Of two
numbers that are compared by size some must be equal, as `<` and `<=` differ there alone.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy

from refllm.verify import plain
from refllm.verify.case import Case
from refllm.verify.edits import source_of

CHOOSING = ("where", "kept")  # words whose first argument is a mask
WORDS = {True: "true", False: "false"}
ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class Seen:
    def __init__(self) -> None:
        self.met = set[tuple[str, str, str]]()  # function, condition, what was seen of it
        self.wanted: dict[str, set[tuple[str, str, str]]] = {}  # by operation
        self._made: dict[FunctionType, Callable[..., Any]] = {}

    def ask(self, case: Case) -> None:
        functions = {f: self._watched(f) for f in plain.called(case.operation)}
        wanted = self.wanted.setdefault(case.operation, set())
        wanted |= {each for f in functions for each in _Marks(f).wanted}
        plain.answer(case, "float64", functions, traced=False)

    def missing(self, operation: str) -> list[str]:
        left = self.wanted[operation] - self.met
        return sorted(f"{function}: {condition} is never {what}" for function, condition, what in left)

    def _watched(self, function: FunctionType) -> Callable[..., Any]:
        if function not in self._made:
            marks, names = _Marks(function), _Names(vars(sys.modules[function.__module__]))
            names |= {"_saw": functools.partial(self._saw, function.__name__), "_alone": _alone}
            exec(compile(marks.tree, "<watched>", "exec"), names)
            self._made[function] = names[function.__name__]
        return self._made[function]

    def _saw(self, function: str, condition: str, value: Any) -> Any:
        for what, word in WORDS.items():
            if numpy.any(numpy.asarray(value, bool) == what):
                self.met.add((function, condition, word))
        return value


def _alone(one: Any, other: Any, value: bool) -> Any:
    """Where a side has this value, and the other one has not."""
    return (numpy.asarray(one, bool) != value) & (numpy.asarray(other, bool) == value)


class _Names(dict[str, Any]):
    """The names of a module as they are at the moment of a look."""

    def __init__(self, module: dict[str, Any]) -> None:
        super().__init__(__builtins__=module["__builtins__"])
        self.module = module

    def __missing__(self, name: str) -> Any:
        return self.module[name]


class _Marks(ast.NodeTransformer):
    """The tree of a function in which each condition says what it is."""

    def __init__(self, function: FunctionType) -> None:
        self.name, self.wanted = function.__name__, set[tuple[str, str, str]]()
        self.tree = ast.fix_missing_locations(self.visit(ast.parse(source_of(function))))

    def _mark(self, node: ast.expr, words: str, *, both: bool = True) -> ast.expr:
        self.wanted |= {(self.name, words, word) for word in (WORDS.values() if both else ("true",))}
        call = _parsed(f"_saw({words!r}, None)")
        assert isinstance(call, ast.Call)
        call.args[1] = node
        return call

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return self.generic_visit(ast.Assign([node.target], node.value)) if node.value else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        words = ast.unparse(node.test)
        self.generic_visit(node)
        node.test = self._mark(node.test, words)
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        words = ast.unparse(node.test)
        self.generic_visit(node)
        node.test = self._mark(node.test, words)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        words = ast.unparse(node.args[0]) if node.args else ""
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in CHOOSING and len(node.args) > 2:
            node.args[0] = self._mark(node.args[0], words)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        words, equal = ast.unparse(node), None
        if len(node.ops) == 1 and isinstance(node.ops[0], ORDERED):
            sides = f"{ast.unparse(node.left)} == {ast.unparse(node.comparators[0])}"
            equal = self._mark(_parsed(sides), sides, both=False)
        self.generic_visit(node)
        marked = self._mark(node, words)
        if equal is None:
            return marked
        return ast.Subscript(ast.Tuple([equal, marked], ast.Load()), ast.Constant(1), ast.Load())

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """One side decides where the other one does not."""
        if not isinstance(node.op, ast.BitAnd | ast.BitOr):
            return self.generic_visit(node)
        left, right = ast.unparse(node.left), ast.unparse(node.right)
        alone = [
            self._mark(_parsed(f"_alone({a}, {b}, {isinstance(node.op, ast.BitOr)})"), f"{b} alone", both=False)
            for a, b in ((left, right), (right, left))
        ]
        self.generic_visit(node)
        return ast.Subscript(ast.Tuple([*alone, node], ast.Load()), ast.Constant(2), ast.Load())


def _parsed(words: str) -> ast.expr:
    return ast.parse(words, mode="eval").body
