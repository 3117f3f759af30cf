"""Python functions as an implementation: a module by its path, or a dictionary of functions.

A function has the name of an operation and takes NumPy arrays; it returns `y`, `(y, back)` or `(y, back, taps)`,
with back None if there is none (docs/conformance.md). What it raises is a fault of the case; NotImplementedError says
that it does not support it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

import numpy

from refllm.errors import UserError
from refllm.verify.case import CARRIERS, Case, FaultError, MisshapenError, Response, UnsupportedError

BY_ARRAYS = ("float64", "float32", "float16")  # precisions that the dtype of the arrays says; the others need DTYPES


class Functions:
    """An implementation made of Python functions, by operation name."""

    def __init__(
        self,
        name: str,
        functions: Mapping[str, Callable[..., Any]],
        conventions: Mapping[str, str],
        dtypes: tuple[str, ...] = BY_ARRAYS,
        use_dtype: Callable[[str], object] | None = None,
    ) -> None:
        self.name, self.functions, self.conventions = name, functions, conventions
        self.dtypes, self.use_dtype = dtypes, use_dtype

    def respond(self, case: Case, dtype: str) -> Response:
        """Calls the operation of the case and its pullback. Raises UnsupportedError, FaultError."""
        if case.operation not in self.functions:
            raise UnsupportedError(f"{self.name} has no function {case.operation}")
        if dtype not in self.dtypes:
            raise UnsupportedError(f"{self.name} does not have {dtype} among its DTYPES ({', '.join(self.dtypes)})")
        with _undisturbed():
            if self.use_dtype is not None:
                _call("use_dtype", self.use_dtype, dtype)
            function = self.functions[case.operation]
            returned = _call(case.operation, function, *case.arguments(dtype), **case.keyword_arguments())
            y, back, taps = _parts(returned, case.operation)
            try:
                outputs = case.flat_outputs(y)
                if back is None or not case.gradients:
                    return Response(outputs, None, taps)
                gradients = case.flat_gradients(_call(f"{case.operation}'s pullback", back, *case.pull(dtype)))
            except MisshapenError as error:
                raise FaultError(str(error)) from None
        return Response(outputs, gradients, taps)


def from_file(path: Path) -> Functions:
    """The public functions of a Python file, and its DTYPES and CONVENTIONS. UserError if it cannot be imported."""
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"{path} is no Python file; give the path of a module whose functions are to be verified")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be imported as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # so that an adapter can import what lies beside it
    try:
        with _undisturbed():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} cannot be imported: {_described(error)}") from None
    functions = {name: f for name, f in vars(module).items() if callable(f) and not name.startswith("_")}
    use_dtype = functions.pop("use_dtype", None)
    return Functions(path.name, functions, _conventions(path, module), _dtypes(path, module), use_dtype)


def _conventions(path: Path, module: Any) -> dict[str, str]:
    found = getattr(module, "CONVENTIONS", {})
    if not isinstance(found, dict) or not all(isinstance(x, str) for item in found.items() for x in item):
        raise UserError(f'{path}: CONVENTIONS must be a dict of texts, as {{"causal_alignment": "top-left"}}')
    return found


def _dtypes(path: Path, module: Any) -> tuple[str, ...]:
    found = getattr(module, "DTYPES", BY_ARRAYS)
    if not isinstance(found, list | tuple) or not all(x in CARRIERS for x in found):
        raise UserError(f"{path}: DTYPES must be a list of some of {', '.join(CARRIERS)}; it is {found!r:.80}")
    return tuple(found)


def _parts(returned: Any, operation: str) -> tuple[Any, Callable[..., Any] | None, dict[str, Any]]:
    """y, its pullback if there is one, and the taps."""
    if returned is None:
        raise FaultError(f"{operation} returned nothing (None)")
    with_taps = isinstance(returned, tuple) and len(returned) == 3 and isinstance(returned[2], dict)
    if (isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1])) or (
        with_taps and (returned[1] is None or callable(returned[1]))
    ):
        y, back, taps = (*returned, {})[:3]
        if y is None:
            raise FaultError(f"{operation} returned nothing (None) as its value")
        return y, back, taps
    return returned, None, {}


def _call(what: str, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    try:
        return function(*arguments, **keywords)
    except NotImplementedError as error:
        raise UnsupportedError(f"{what} says that it does not support this: {error}") from None
    except (Exception, SystemExit) as error:
        raise FaultError(f"{what} raised {_described(error, function)}") from None


def _described(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """The exception in one line, with the place in the code that raised it; `function` was called."""
    places = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename != __file__ and not frame.f_code.co_filename.startswith("<frozen ")
    ]
    if isinstance(error, SyntaxError) and error.filename:
        places, text = [(error.filename, error.lineno or 0)], error.msg
    else:
        text = " ".join(str(error).split())
    if not places and function is not None:  # it does not take what it was called with
        code = getattr(inspect.unwrap(function), "__code__", None)
        places = [(code.co_filename, code.co_firstlineno)] if isinstance(code, CodeType) else []
    at = f" ({Path(places[-1][0]).name}, line {places[-1][1]})" if places else ""
    return f"{type(error).__name__}{': ' if text else ''}{text[:300]}{at}"


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """What the module prints goes to stderr, so that the report is alone on stdout; its numerical warnings, which the
    report words better, are not shown."""
    with (
        contextlib.redirect_stdout(sys.stderr),
        warnings.catch_warnings(action="ignore"),
        numpy.errstate(all="ignore"),
    ):
        yield
