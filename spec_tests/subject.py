"""The implementation under test: refllm's own operations, or those of the module named by --adapter."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from spec_tests.operations import operation_functions

Implementation = Callable[..., Any]


@dataclass(frozen=True)
class Subject:
    """What the tests ask for an operation. An operation takes and returns NumPy arrays: `y, back = op(x, W, ...)`."""

    name: str
    functions: Mapping[str, Implementation] = field(repr=False)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(self.name)

    def operation(self, name: str) -> Implementation:
        """The operation of that name; the test that asks is skipped if the subject does not have it."""
        if name not in self.functions:
            pytest.skip(f"{self.name} has no {name}")
        return self.functions[name]


def refllm() -> Subject:
    return Subject("refllm", {function.__name__: function for function in operation_functions()})


def adapter(path: Path) -> Subject:
    """The public functions of a Python file as a subject."""
    if not path.is_file():
        raise pytest.UsageError(f"--adapter {path}: no such file; give the path of a Python module with operations")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise pytest.UsageError(f"--adapter {path}: not a Python module; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    functions = {name: f for name, f in vars(module).items() if callable(f) and not name.startswith("_")}
    return Subject("adapter", functions)
