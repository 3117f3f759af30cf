"""The implementation under test: refllm's own operations, on the host or a device, or those that --adapter names."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.verify import adapter as verified
from refllm.verify import keywords
from spec_tests import devices
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


def on_device(device: devices.Device) -> Subject:
    """refllm's operations on a device, behind a border where NumPy arrays go in and come out."""
    return Subject(
        f"refllm on {device.name}", {name: _behind_a_border(f, device) for name, f in refllm().functions.items()}
    )


def _behind_a_border(operation: Implementation, device: devices.Device) -> Implementation:
    """What is written into an argument over there is written back, so that the rules see it here.

    That a result shares memory with an argument does not show from here: the host's own run shows it.
    """

    def run(*arrays: Any, **keywords: Any) -> Any:
        with device.present():
            given = _moved(arrays), _moved(keywords.values())
            y, back = operation(*(there for _, there in given[0]), **_named(keywords, given[1]))
            _write_back(*given)
            value = devices.brought_back(y)

        def pull(*dy: Any) -> Any:
            with device.present():
                cotangents = _moved(dy)
                gradients = back(*(there for _, there in cotangents))
                _write_back(*given, cotangents)
                return devices.brought_back(gradients)

        return value, pull

    return run


Pairs = list[tuple[Any, Any]]  # a thing on the host, and on the device


def _moved(things: Iterable[Any]) -> Pairs:
    return [(thing, devices.moved(thing)) for thing in things]


def _named(keywords: dict[str, Any], pairs: Pairs) -> dict[str, Any]:
    return {name: there for name, (_, there) in zip(keywords, pairs, strict=True)}


def _write_back(*given: Pairs) -> None:
    for here, there in itertools.chain(*given):
        if isinstance(here, numpy.ndarray):
            now = devices.brought_back(there)
            if now.tobytes() != here.tobytes():
                here[...] = now


def adapter(path: Path) -> Subject:
    """The public functions of a Python file as a subject. What they warn of on their way to a right answer, as in a
    branch that is not taken, breaks no law."""
    if not path.is_file():
        raise pytest.UsageError(f"--adapter {path}: no such file; give the path of a Python module with operations")
    if path.suffix != ".py":
        raise pytest.UsageError(f"--adapter {path}: not a Python module; its name must end in .py")
    try:
        found = verified.from_file(path, stays=True)
    except UserError as error:
        raise pytest.UsageError(f"--adapter {error}") from None
    functions = {name: verified.quiet(f, found.folder) for name, f in found.functions.items()}
    return Subject("adapter", keywords.from_adapter(functions))
