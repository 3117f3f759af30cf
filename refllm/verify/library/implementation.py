"""A shared library under test, in a process of its own: a segmentation fault there is a fault of its case alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from refllm.backend import Array
from refllm.errors import UserError
from refllm.verify.case import CARRIERS, Case, Manner, Response, UnsupportedError, cast
from refllm.verify.isolated import Isolated, search_path
from refllm.verify.library.calls import Group, Question
from refllm.verify.library.interfaces import Argument, Interface

_PROGRAM = (
    "import sys; sys.path[:] = {paths!r}; from refllm.verify.library.serving import main; "
    "main({file!r}, {names!r}, {places!r})"
)


class Library(Isolated):
    """The functions of a shared library, as refllm.h declares them."""

    sees = frozenset({"layouts", "poison"})
    taken = "loaded"

    def __init__(
        self, path: Path, interfaces: Mapping[str, Interface], conventions: Mapping[str, str], timeout: float, *,
        alone: bool = False,
    ) -> None:  # fmt: skip
        """UserError if the library cannot be loaded, or has none of the functions."""
        if not path.is_file():
            raise UserError(f"--lib {path}: no such file; give the path of a shared library (.so, .dylib, .dll)")
        self.interfaces = interfaces
        super().__init__(path, timeout, alone=alone)
        self.conventions = dict(conventions)
        if not self.operations:
            self.close()
            raise UserError(
                f"--lib {path}: exports no function of the header, such as refllm_layer_norm; "
                'declare them extern "C", and see refllm.h (--header refllm.h)'
            )

    def respond(self, case: Case, dtype: str) -> Response:
        if case.operation not in self.interfaces:
            raise UnsupportedError(f"{self.name} has no function {case.operation}")
        return super().respond(case, dtype)

    def fresh(self, timeout: float) -> Library:
        return Library(self.path, self.interfaces, self.conventions, timeout, alone=self._alone)

    def _words(self, places: int | None) -> list[str]:
        program = _PROGRAM.format(
            paths=search_path(), file=str(self.path), names=sorted(self.interfaces), places=places
        )
        return [sys.executable, "-c", program]

    def _question(self, case: Case, dtype: str) -> Question:
        interface = self.interfaces[case.operation]
        inputs = {n: cast(x, dtype) if case.level else x for n, x in case.inputs.items()}
        outputs = {n: (t.value.shape, _array_dtype(t.value, dtype, case)) for n, t in case.outputs.items()}
        cotangents = {n: cast(x, dtype) for n, x in case.cotangents.items()}
        return Question(
            interface, case.stored or dtype, _grouped(inputs, interface.inputs), dict(case.keywords),
            [[(name, *outputs[name]) for name in names] for names in _leaves(outputs, interface.outputs)],
            _grouped(cotangents, interface.outputs) if cotangents else [],
            Manner(case.manner.layout, case.manner.alone, case.manner.poisoned),
        )  # fmt: skip


def _array_dtype(x: Array, dtype: str, case: Case) -> str:
    return CARRIERS[dtype] if x.dtype.kind == "f" and case.level else str(x.dtype)


def _grouped(leaves: Mapping[str, Array], arguments: Iterable[Argument]) -> list[Group]:
    return [[(name, leaves[name]) for name in names] for names in _leaves(leaves, arguments)]


def _leaves(leaves: Mapping[str, Any], arguments: Iterable[Argument]) -> list[list[str]]:
    """The names of the leaves of each argument; of the only one that is several, all of them."""
    arguments = list(arguments)
    if len(arguments) == 1 and arguments[0].several:
        return [list(leaves)]
    return [[n for n in leaves if n.partition(".")[0] == argument.name] for argument in arguments]
