"""How the text reads: what it imports, how long it is, and that its examples are what the code computes."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import numpy
import pytest

from refllm import spec
from refllm.spec import array
from refllm.verify import corpus
from refllm.verify.keywords import own_name

FOLDER = Path(spec.__path__[0])
FILES = sorted(FOLDER.glob("*.py"))
MODULES = [importlib.import_module(f"refllm.spec.{m.name}") for m in pkgutil.iter_modules(spec.__path__)]
READ = {"Array", "Pullback"}  # types, which are no words of the text


def imports(source: str) -> set[str]:
    tree = ast.parse(source)
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return names | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}


@pytest.mark.parametrize("file", [f for f in FILES if f.name not in ("array.py", "__init__.py")], ids=lambda f: f.name)
def test_the_text_imports_nothing_but_itself(file: Path) -> None:
    allowed = {"__future__", "math", "collections.abc", "typing", "dataclasses", "tomllib", "functools", "pathlib"}
    allowed |= {"fractions", "itertools"}  # of a number as it is written: a capacity
    foreign = {name for name in imports(file.read_text(encoding="utf-8")) if not name.startswith("refllm.spec")}
    assert foreign - allowed == set()


def lines_of_code(function: object) -> int:
    """Lines that hold code: no docstring, no comment, no empty line."""
    tree = ast.parse(inspect.getsource(function))  # type: ignore[arg-type]
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    docs = [s for s in statements if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)]
    skipped = {line for s in docs for line in range(s.lineno, (s.end_lineno or 0) + 1)}
    text = inspect.getsource(function).splitlines()  # type: ignore[arg-type]
    return sum(bool(t.strip()) and not t.strip().startswith("#") for n, t in enumerate(text, 1) if n not in skipped)


@pytest.mark.parametrize("name", sorted(spec.operations()))
def test_a_function_fits_a_screen(name: str) -> None:
    assert len(inspect.getsource(spec.operations()[name]).splitlines()) <= 60


def test_attention_with_its_pullback_has_at_most_25_lines() -> None:
    assert lines_of_code(spec.operations()["attention"]) <= 25


def test_the_operations_fit_in_1_000_lines() -> None:
    """All files that hold an operation of level 1, with pullbacks, helpers and what they import."""
    cases = corpus.remembered(corpus.folder(None)).cases.values()
    operations = [spec.operations()[own_name(case.operation)] for case in cases if case.level == 1]
    files = {inspect.getmodule(operation) for operation in operations}
    assert sum(map(lines_of_code, files)) <= 1000


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.rpartition(".")[2])
def test_the_examples_are_what_the_code_computes(module: ModuleType) -> None:
    words = {name: getattr(array, name) for name in vars(array) if not name.startswith("_")}
    numbers = {"array": numpy.array, "ones": numpy.ones, "zeros": numpy.zeros}
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    found = doctest.testmod(  # `tanh` is a word and an operation: in its own module it is the operation
        module, extraglobs={**words, **numbers, **own}, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert found.failed == 0


def test_every_operation_of_the_levels_of_operations_and_ranks_has_an_example() -> None:
    cases = corpus.remembered(corpus.folder(None)).cases.values()
    asked = {own_name(case.operation) for case in cases if case.level in (1, 7)}
    assert {name for name in asked if ">>>" not in (spec.operations()[name].__doc__ or "")} == set()
