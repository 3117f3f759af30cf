"""The laws: tests, by the operation that they speak of."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Law:
    """A test: its name is the law that it checks."""

    path: str
    line: int
    name: str
    names: frozenset[str]  # that its code has, and the functions of its file that it calls

    @property
    def says(self) -> str:
        return self.name.removeprefix("test_").replace("_", " ")


@cache
def laws() -> tuple[Law, ...]:
    found = []
    for path in sorted((ROOT / "spec_tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        names = {name: _names(node) for name, node in functions.items()}
        for name, node in functions.items():
            if name.startswith("test_"):
                own = names[name].union(*(names[helper] for helper in names[name] & names.keys()))
                found.append(Law(path.relative_to(ROOT).as_posix(), node.lineno, name, own))
    return tuple(found)


def _names(tree: ast.AST) -> frozenset[str]:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return frozenset(names)


def of(operation: str) -> list[Law]:
    """Those whose code calls the operation, and those of the files that are named after it."""
    return [law for law in laws() if operation in law.names or Path(law.path).stem == f"test_{operation}"]
