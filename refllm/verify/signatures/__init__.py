"""Tables of signatures: functions under the names and with the parameters that people give them, as operations.

A table is a file of this folder. It says how each operation of the golden files is asked of a function of a library:

    @TABLE.function("layer_norm")
    def layer_norm(f, x, g, b, *, eps):          # named as the operation, called as the golden files call it
        return f(x, g.shape, g, b, eps=eps)      # f is the function that is verified

What such a line does beside calling f (a transpose, a mask, an axis) is differentiated here, so f may be of any
library, with its own pullback or without. `native` is for classes with a state, such as modules and optimisers: there
the line works on the arrays of the library, and its autograd reaches through.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from refllm.errors import UserError

TABLES = ("torch", "jax", "keras", "onnx")


@dataclass(frozen=True)
class Entry:
    """How an operation is asked of what has this name."""

    operation: str
    name: str
    ask: Callable[..., Any]
    native: bool


@dataclass(frozen=True)
class Signed:
    """A function or a class of somebody's, and how it is asked for an operation."""

    entry: Entry
    target: Any
    __wrapped__: Any = None  # by which a report finds where the function stands


@dataclass
class Table:
    """The names of a library, its arrays, and what it documents to do otherwise than the golden files."""

    name: str
    arrays: Callable[[], str]
    conventions: dict[str, str] = field(default_factory=dict)
    use_dtype: Callable[[str], object] | None = None  # what tells the library the precision, where arrays do not
    entries: list[Entry] = field(default_factory=list)

    def function(self, *names: str, operation: str | None = None) -> Callable[..., Any]:
        """Above the line that asks a function; the first of these names that is there is asked."""
        return self._entry(names, operation, native=False)

    def native(self, *names: str, operation: str | None = None) -> Callable[..., Any]:
        """Above the line that asks a class, and works on the arrays of the library."""
        return self._entry(names, operation, native=True)

    def _entry(self, names: tuple[str, ...], operation: str | None, *, native: bool) -> Callable[..., Any]:
        def put(ask: Callable[..., Any]) -> Callable[..., Any]:
            self.entries += [Entry(operation or ask.__name__, name, ask, native) for name in names]
            return ask

        return put

    def serves(self, functions: Mapping[str, Any]) -> dict[str, Signed]:
        """The operations that these functions answer, by the first entry of each whose name is there."""
        found: dict[str, Signed] = {}
        for entry in self.entries:
            if entry.name in functions and entry.operation not in found:
                found[entry.operation] = Signed(entry, functions[entry.name], functions[entry.name])
        return found

    @property
    def names(self) -> set[str]:
        return {entry.name for entry in self.entries}


def table(name: str) -> Table:
    """The table of that name. UserError if there is none."""
    if name not in TABLES:
        raise UserError(f"tables of signatures are {', '.join(TABLES)}; got {name!r:.40}")
    return importlib.import_module(f"refllm.verify.signatures.{name}_table").TABLE
