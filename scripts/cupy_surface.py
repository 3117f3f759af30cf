"""List what an installed CuPy offers: the names and signatures that the strict double of the tests may have.

    python scripts/cupy_surface.py --write     regenerate spec_tests/strict_cupy/surface.json
    python scripts/cupy_surface.py --check     exit 1 if the stored list is not this CuPy's

CuPy's wheels import without a GPU and are only looked at here, so any machine where `pip install cupy-cuda13x` works
will do.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import operator
import re
import sys
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

STORED = Path(__file__).resolve().parent.parent / "spec_tests" / "strict_cupy" / "surface.json"
MODULES = ("cupy", "cupy.linalg", "cupy.lib.stride_tricks", "cupyx", "cupyx.scipy.special")
LEFT_OUT = {
    "cupy.random": "a seed must mean the same on every device, so every draw comes from a host Generator",
    "cupy.fft": "nothing here transforms signals",
    "cupy.polynomial": "nothing here fits polynomials",
    "cupy.testing": "the tests compare on the host",
}
CUDA = (
    "Device", "Event", "MemoryPool", "Stream.null.synchronize", "get_current_stream", "get_elapsed_time",
    "is_available", "memory.OutOfMemoryError", "runtime.CUDARuntimeError", "runtime.deviceSynchronize",
    "runtime.getDevice", "runtime.getDeviceCount", "runtime.getDeviceProperties", "runtime.memGetInfo",
)  # fmt: skip
NOT_OPERATORS = {"__array_priority__", "__array_finalize__", "__doc__", "__module__", "__pyx_vtable__", "__slots__"}


def surface() -> dict[str, Any]:
    """The whole list, sorted, of the CuPy that `import cupy` finds."""
    import cupy

    array = {name: getattr(cupy.ndarray, name) for name in dir(cupy.ndarray)}
    public = {name: value for name, value in array.items() if not name.startswith("_")}
    methods = {name: signature(value) for name, value in public.items() if callable(value)}
    return {
        "version": cupy.__version__,
        "left_out": LEFT_OUT,
        "ndarray": {
            "attributes": sorted(set(public) - set(methods)),
            "operators": sorted(
                n for n in array if n.startswith("__") and n not in dir(object) and n not in NOT_OPERATORS
            ),
            "methods": methods,
            "synchronises": [name for name, value in public.items() if synchronises(value)],
        },
        "ufunc": {
            "call": ufunc_call(cupy),
            "methods": {
                name: signature(getattr(cupy.ufunc, name))
                for name in ("accumulate", "at", "outer", "reduce", "reduceat")
            },
        },
        "cuda": [name for name in CUDA if exists(cupy.cuda, name)],
        "modules": {name: module_surface(importlib.import_module(name)) for name in MODULES},
    }


def module_surface(module: ModuleType) -> dict[str, Any]:
    """The public names of one module by what they are; `numpy` names are NumPy's own objects under the same name."""
    import numpy

    public = {name: getattr(module, name) for name in sorted(dir(module)) if not name.startswith("_")}
    found: dict[str, Any] = {
        "functions": {},
        "ufuncs": {},
        "numpy": [],
        "constants": {},
        "other": [],
        "synchronises": [],
    }
    for name, value in public.items():
        if f"{module.__name__}.{name}" in LEFT_OUT or name == "annotations":
            continue
        if value is not None and getattr(numpy, name, None) is value:
            found["numpy"].append(name)
        elif type(value).__name__ == "ufunc":
            found["ufuncs"][name] = f"{value.nin} -> {value.nout}"
        elif isinstance(value, float):
            found["constants"][name] = repr(value)
        elif isinstance(value, (FunctionType, BuiltinFunctionType)) or type(value).__name__ == "_GUFunc":
            text = signature(value)
            if text in {"(*args, **kwargs)", "(*args, **kwds)"}:
                found["other"].append(name)
                continue
            found["functions"][name] = text
            if synchronises(value):
                found["synchronises"].append(name)
        else:
            found["other"].append(name)
    return {key: entries for key, entries in found.items() if entries}


def signature(function: Any) -> str:
    """Names and defaults without annotations, from the signature or, for compiled code, the docstring's first line."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        return documented(function)
    if any(p.kind is p.VAR_KEYWORD for p in parameters) and re.match(r"\w+\(", documented_line(function)):
        return documented(function)
    return str(
        inspect.Signature(
            [
                p.replace(annotation=p.empty, default=p.default if p.default is p.empty else Default(p.default))
                for p in parameters
            ]
        )
    )


class Default:
    """A default value that prints as source."""

    def __init__(self, value: object) -> None:
        self.text = getattr(value, "__name__", repr(value))
        try:
            ast.literal_eval(self.text)
        except (ValueError, SyntaxError):
            self.text = self.text if self.text in {"bool", "int", "float", "complex"} else "..."

    def __repr__(self) -> str:
        return self.text


def documented_line(function: Any) -> str:
    lines = (function.__doc__ or "").strip().splitlines()
    return lines[0] if lines else ""


def documented(function: Any) -> str:
    """`f(self, int axis=-1) -> array` of a compiled function's docstring, as `(self, axis=-1)`."""
    line = documented_line(function).replace("\\*", "*")
    inside = line[line.index("(") + 1 : line.rindex(")")]
    parameters = [re.sub(r"^.*?(\**[\w/]+|\*)$", r"\1", part.split("=")[0].strip()) for part in inside.split(", ")]
    defaults = [part.partition("=")[1:] for part in inside.split(", ")]
    return f"({', '.join(p + e + d for p, (e, d) in zip(parameters, defaults, strict=True))})"


def synchronises(function: Any) -> bool:
    return "may synchronize" in (getattr(function, "__doc__", None) or "")


def ufunc_call(cupy: ModuleType) -> str:
    """The call that every ufunc of one output shares, beyond its inputs."""
    calls = {
        re.sub(r"\((x|x1, x2), ", "(*inputs, ", documented(u)).replace("*inputs, /, ", "*inputs, ").replace(" *,", "")
        for u in vars(cupy).values()
        if type(u).__name__ == "ufunc" and u.nout == 1 and u.nin <= 2
    }
    calls = {re.sub(r"casting='\w+'", "casting='same_kind'", call) for call in calls}
    if len(calls) != 1:
        raise SystemExit(f"the ufuncs of this CuPy differ in their keywords: {sorted(calls)}; teach this script")
    return calls.pop()


def exists(module: Any, dotted: str) -> bool:
    try:
        operator.attrgetter(dotted)(module)
    except AttributeError:
        return False
    return True


def as_text() -> str:
    return json.dumps(surface(), indent=1, sort_keys=True) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write the stored list")
    action.add_argument("--check", action="store_true", help="compare the stored list with the installed CuPy")
    arguments = parser.parse_args()
    try:
        text = as_text()
    except ImportError:
        print("cupy_surface: CuPy is not installed; run: pip install cupy-cuda13x", file=sys.stderr)
        return 2
    if arguments.write:
        STORED.write_text(text, encoding="utf-8")
    elif STORED.read_text(encoding="utf-8") != text:
        print(
            f"cupy_surface: {STORED.name} is not the list of this CuPy; look at the difference that --write makes",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
