"""A port as an implementation: what it is asked, and how a Python file answers.

A file has `model(folder)`, which gives a function of the same form, or one of an object with it; or it has `logits`
itself:

    def logits(ids, mask): ...          any of ids, mask, segments and source, by these names
    def taps(ids, mask): ...            a dict of values by their names; or logits returns (logits, taps)
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy

from refllm.backend import Array
from refllm.errors import UserError
from refllm.verify import adapter, arrays, plugging
from refllm.verify.case import Case, FaultError, Truth
from refllm.verify.isolated import Isolated, search_path
from refllm.verify.plugging import NOTHING_SAID, Plug
from refllm.verify.ports.chosen import Input
from refllm.verify.serve import answer_all

OPERATION = "logits"
# what others call an input
NAMES = {
    "ids": "ids", "input_ids": "ids", "tokens": "ids", "decoder_input_ids": "ids", "mask": "mask",
    "attention_mask": "mask", "segments": "segments", "token_type_ids": "segments", "source": "source",
}  # fmt: skip
_PROGRAM = (
    "import sys; sys.path[:] = {paths!r}; from refllm.verify.ports.port import main; "
    "main({file!r}, {folder!r}, {places!r}, {plug!r})"
)


def case_of(given: Input) -> Case:
    """The question that an input is."""
    return Case(
        given.name, "PORT", "", OPERATION, 3, given.about, (), {}, dict(given.arrays),
        outputs={OPERATION: Truth(numpy.zeros(0), None)},
    )  # fmt: skip


class IsolatedPort(Isolated):
    """The port in a Python file, in a process of its own."""

    taken = "used as a port"

    def __init__(self, path: Path, timeout: float, folder: Path, plug: Plug = NOTHING_SAID) -> None:
        self.folder = folder
        super().__init__(path, timeout, plug, alone=True)

    def fresh(self, timeout: float) -> IsolatedPort:
        return IsolatedPort(self.path, timeout, self.folder, self.plug)

    def _words(self, places: int | None) -> list[str]:
        said = _PROGRAM.format(
            paths=search_path(), file=str(self.path), folder=str(self.folder), places=places,
            plug=dataclasses.astuple(self.plug),
        )  # fmt: skip
        return [sys.executable, "-c", said]


def main(path: str, folder: str, places: int | None, plug: tuple[str | None, str | None, str | None]) -> None:
    """Serves the port in a file for the model in a folder."""
    answer_all(lambda: functions(Path(path), Path(folder), Plug(*plug)), places)


def functions(path: Path, folder: Path, plug: Plug = NOTHING_SAID) -> adapter.Functions:
    """The port in a file. UserError if it has neither `model` nor `logits`, or what it takes is unknown."""
    module = adapter.load(path, stays=True)
    said = plug.after(plugging.said_by(path, module))
    logits, taps = _found(path, module, folder)
    answer = _answering(path, logits, taps, said)
    found = adapter.Functions(path.name, {OPERATION: answer}, {}, folder=path.resolve().parent)
    found.dtypes = ("float64", "float32", "float16", "bfloat16", "tf32")
    return found


def _found(path: Path, module: Any, folder: Path) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    holder: Any = module
    if callable(getattr(module, "model", None)):
        holder = adapter.built(path, "model(folder)", module.model, str(folder))
        if not callable(getattr(holder, OPERATION, None)):
            if not callable(holder):
                raise UserError(f"{path}: model(folder) must return a function logits(ids, ...), or what has one")
            return holder, _taps_of(holder) or _taps_of(module)
    if not callable(getattr(holder, OPERATION, None)):
        raise UserError(f"{path} has no function model(folder) and no function logits(ids, ...); write one of them")
    return getattr(holder, OPERATION), _taps_of(holder)


def _taps_of(holder: Any) -> Callable[..., Any] | None:
    found = getattr(holder, "taps", None)
    return found if callable(found) else None


def _answering(
    path: Path, logits: Callable[..., Any], taps: Callable[..., Any] | None, said: Plug
) -> Callable[..., Any]:
    """A function of the inputs by name, which gives logits, no pullback, and taps."""
    library = None if said.arrays is None else arrays.library(said.arrays)
    for function in (logits, taps):
        if function is not None:
            _require_known(path, function)

    def given(x: Array) -> Any:
        return x.copy() if library is None else library.given(x, str(x.dtype), said.device)

    def answer(**inputs: Array) -> tuple[Any, None, dict[str, Any]]:
        y = logits(**_taken(logits, inputs, given))
        found: Any = {}
        if isinstance(y, tuple) and not _is_numbers(y):
            y, found = _pair(y)
        if taps is not None and not found:
            found = taps(**_taken(taps, inputs, given))
            if not isinstance(found, Mapping):
                raise FaultError(f"taps returned {_kind(found)}; it must return a dict of arrays by their names")
        y = getattr(y, OPERATION, y)
        return _as_numpy(OPERATION, y), None, {str(name): _as_numpy(str(name), x) for name, x in found.items()}

    return answer


def _pair(y: tuple[Any, ...]) -> tuple[Any, Mapping[str, Any]]:
    """What a port returned as logits and taps. FaultError for any other tuple."""
    if len(y) == 2 and isinstance(y[1], Mapping):
        return y[0], y[1]
    shown = ", ".join(_kind(part) for part in y[:4]) + (", ..." if y[4:] else "")
    raise FaultError(
        f"{OPERATION} returned a tuple of {len(y)} ({shown}); it must return the logits, or (logits, taps) with the "
        "taps a dict of arrays"
    )


def _kind(x: Any) -> str:
    name = {"ndarray": "array", "NoneType": "None"}.get(type(x).__name__, type(x).__name__)
    return name if x is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _is_numbers(x: Any) -> bool:
    """Whether it is a number, or nested lists and tuples of numbers."""
    if isinstance(x, list | tuple):
        return all(_is_numbers(part) for part in x)
    return isinstance(x, float | int)


def _as_numpy(name: str, x: Any) -> Any:
    found = arrays.all_arrived(x, "bfloat16")
    if not isinstance(found, list | tuple | float | int):
        return found
    try:
        return numpy.asarray(found, "float32")
    except (ValueError, TypeError, OverflowError):
        raise FaultError(
            f"{name} is {_kind(found)} that is no array of numbers: its rows have different lengths, "
            "or hold something else; give an array"
        ) from None


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Those that have a name. Of a function whose signature nobody knows: ids alone."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return [inspect.Parameter("ids", inspect.Parameter.KEYWORD_ONLY)]
    return [one for one in found if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL, one.POSITIONAL_ONLY)]


def _unnamed(function: Callable[..., Any]) -> list[str]:
    """The parameters that are given by no name, where it needs them: those before a /, and all that stands for any."""
    try:
        every = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    before = [f"{one.name!r} by its place alone (/)" for one in every
              if one.kind == one.POSITIONAL_ONLY and one.default is one.empty]  # fmt: skip
    several = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    any_name = [f"{several[one.kind]}{one.name}" for one in every if one.kind in several]
    return before or ([" and ".join(any_name)] if any_name and len(any_name) == len(every) else [])


def _require_known(path: Path, function: Callable[..., Any]) -> None:
    called = getattr(function, "__name__", OPERATION)
    for unnamed in _unnamed(function):
        raise UserError(
            f"{path}: {called} takes {unnamed}, which names no input; name the ones that it takes, some of ids, mask, "
            "segments and source, as in: lambda ids, mask: port(ids, mask)"
        )
    for one in _parameters(function):
        if one.name not in NAMES and one.default is one.empty:
            raise UserError(
                f"{path}: {called} takes {one.name!r}, which is no input; its "
                "parameters are some of ids, mask, segments and source"
            )


def _taken(function: Callable[..., Any], inputs: Mapping[str, Array], given: Callable[[Array], Any]) -> dict[str, Any]:
    """The inputs that a function takes, by its names; None for one that this model does not have."""
    found = {}
    for one in _parameters(function):
        own = "source" if "source" in inputs and one.name == "input_ids" else NAMES.get(one.name)
        if own is not None and own in inputs:
            found[one.name] = given(inputs[own])
        elif one.default is one.empty:
            found[one.name] = None
    return found
