"""Python functions as an implementation: a module by its path, or a dictionary of functions.

A function has the name of an operation and takes NumPy arrays; it returns `y`, `(y, back)` or `(y, back, taps)`,
with back None if there is none (docs/conformance.md). What it raises is a fault of the case; NotImplementedError says
that it does not support it.

The functions run in this process: one that crashes or hangs takes it along. `isolated` runs those of a file elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy

from refllm.errors import UserError
from refllm.parameters import Tree, map_leaves, named_leaves
from refllm.verify import arrays, declared_plan, plugging, watched
from refllm.verify.arrays.bridge import Bridge
from refllm.verify.calling import call, described, importable, undisturbed, unwarned
from refllm.verify.case import CARRIERS, Case, FaultError, MisshapenError, Response, UnsupportedError
from refllm.verify.law import Law
from refllm.verify.plugging import NOTHING_SAID, Plug
from refllm.verify.poison import poisoned
from refllm.verify.watched import Watch

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
        folder: Path | None = None,
        bridge: Bridge | None = None,
    ) -> None:
        self.name, self.functions, self.conventions = name, functions, conventions
        self.dtypes, self.use_dtype, self.folder, self.bridge = dtypes, use_dtype, folder, bridge
        self.operations = frozenset(functions)
        self.plan: Any = None  # what it declares to store in which type (declared_plan.py)
        self._given: tuple[str, list[tuple[str, Any, Any]]] = ("", [])  # a training, and what its calls returned

    sees = frozenset({"layouts", "poison", "interleaving"})  # laws for which it is given arrays of this process

    def respond(self, case: Case, dtype: str) -> Response:
        """Calls the operation of the case and its pullback. Raises UnsupportedError, FaultError."""
        require_served(self.name, self.functions, self.dtypes, case, dtype)
        with undisturbed(), importable(self.folder):
            if self.use_dtype is not None:
                call("use_dtype", self.use_dtype, dtype)
            arguments, keywords = case.arguments(dtype), case.keyword_arguments()
            with poisoned(_sizes(arguments)) if case.manner.poisoned else contextlib.nullcontext():
                return self._respond(case, dtype, arguments, keywords)

    def _respond(self, case: Case, dtype: str, arguments: list[Tree], keywords: dict[str, Any]) -> Response:
        function = self._bridged(case.operation, dtype, gradients=bool(case.gradients))
        watch = Watch(case, dtype, arguments, keywords)
        returned = call(case.operation, function, *arguments, **keywords)
        y, back, taps = _parts(returned, case.operation)
        y, taps = arrays.all_arrived(y, dtype), arrays.all_arrived(taps, dtype)
        try:
            outputs = case.flat_outputs(y)
            laws = watch.after_call(outputs)
            if case.manner.interleaved:
                laws += _interleaved(function, case, dtype, outputs)
            if back is None or not case.gradients:
                return Response(outputs, None, taps, self._overwritten(case, outputs), _once(laws))
            cotangents = case.pull(dtype)
            pulled = call(f"{case.operation}'s pullback", back, *cotangents)
            gradients = case.flat_gradients(arrays.all_arrived(pulled, dtype))
            if case.manner.twice:
                first, before = gradients, watched.copies(gradients)
                gradients = _pulled_again(back, case, dtype) or gradients
                laws += watched.overwritten(first, before)
        except MisshapenError as error:
            raise FaultError(str(error)) from None
        return Response(outputs, gradients, taps, (), _once([*laws, *watch.after_pullback(gradients, cotangents)]))

    def function(self, operation: str, dtype: str) -> Callable[..., Any]:
        """The function of that name, told of the precision, to be called by hand."""
        if self.use_dtype is not None:
            self.use_dtype(dtype)
        return self._bridged(operation, dtype, gradients=True)

    def _bridged(self, operation: str, dtype: str, *, gradients: bool) -> Callable[..., Any]:
        """The function as one of NumPy's arrays."""
        found = self.functions[operation]
        return found if self.bridge is None else plugging.bridged(found, self.bridge, dtype, gradients=gradients)

    def _overwritten(self, case: Case, outputs: dict[str, Any]) -> tuple[str, ...]:
        """What the calls for one training returned before, and this one has changed. All of it is kept until the next
        case: their results are compared with each other."""
        if case.operation != "train":
            return ()
        about, before = self._given
        if about != case.id:
            before = []
        changed = [name for name, x, was in before if x.tobytes() != was]
        arrays = [(n, x, x.tobytes()) for n, x in outputs.items() if isinstance(x, numpy.ndarray)]
        self._given = case.id, before + arrays
        return tuple(dict.fromkeys(changed))


def require_served(
    name: str, functions: Mapping[str, Any] | frozenset[str], dtypes: tuple[str, ...], case: Case, dtype: str
) -> None:
    """UnsupportedError unless there is a function for the case, and it computes in this precision."""
    if case.operation not in functions:
        raise UnsupportedError(f"{name} has no function {case.operation}")
    if dtype not in dtypes:
        raise UnsupportedError(f"{name} does not have {dtype} among its DTYPES ({', '.join(dtypes)})")


def from_file(path: str | PathLike[str], plug: Plug = NOTHING_SAID, *, stays: bool = False) -> Functions:
    """The public functions of a Python file, or of a module by its import name, and what it says of itself: DTYPES,
    CONVENTIONS, PLAN, ARRAYS, DEVICE, SIGNATURES. UserError if it cannot be imported.

    What `plug` says goes before. With `stays` the module remains in sys.modules, where pickle looks for its classes.
    """
    named = plugging.is_module(str(path))
    module = _imported(str(path)) if named else load(Path(path), stays=stays)
    name, folder = (str(path), None) if named else (Path(path).name, Path(path).resolve().parent)
    functions = {n: f for n, f in vars(module).items() if callable(f) and not n.startswith("_")}
    use_dtype = functions.pop("use_dtype", None)
    said = plug.after(plugging.said_by(path, module))
    plugged = plugging.plugged(functions, said, whole=not named)
    conventions, dtypes = _conventions(path, module), _dtypes(path, module, plugged.dtypes)
    found = Functions(
        name, plugged.functions, {**plugged.conventions, **conventions}, dtypes, use_dtype or plugged.use_dtype, folder,
        plugged.bridge,
    )  # fmt: skip
    found.plan = declared_plan.of_module(path, module, dtypes)
    return found


def _imported(name: str) -> ModuleType:
    """A module by its import name, from the folder of work too."""
    try:
        with undisturbed(), importable(Path.cwd()):
            return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{name} cannot be imported: {described(error)}") from None
        raise UserError(
            f"there is no module {name} here; give the path of a Python file, ADAPTER.py, or the import name of a "
            "module that is installed"
        ) from None
    except BaseException as error:
        raise UserError(f"{name} cannot be imported: {described(error)}") from None


def load(path: Path, *, stays: bool = False) -> ModuleType:
    """A Python file as a module; it can import what lies beside it. UserError if it cannot be imported."""
    if not path.is_file() or path.suffix != ".py":
        why = "" if path.is_file() else ": it is a directory" if path.is_dir() else ": it does not exist"
        raise UserError(f"{path} is no Python file{why}; give the path of a module whose functions are to be verified")
    name = f"{path.stem}_of_the_adapter" if path.stem in sys.stdlib_module_names else path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be imported as a Python module")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # while it is executed, as the import system does
    try:
        with undisturbed(), importable(path.resolve().parent):
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(f"{path} cannot be imported: {described(error)}") from None
    finally:
        if before is not None:
            sys.modules[name] = before
        elif not stays:
            sys.modules.pop(name, None)
    return module


def built(path: Path, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a file makes before it is asked anything. UserError if it raises."""
    try:
        with undisturbed(), importable(path.resolve().parent):
            return function(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(f"{path}: {what} raised {described(error, function)}") from None


def quiet(function: Callable[..., Any], folder: Path | None = None) -> Callable[..., Any]:
    """The operation, and its pullback, without the numerical warnings that it makes on its way to a right answer."""

    @functools.wraps(function)
    def run(*arguments: Any, **keywords: Any) -> Any:
        with unwarned(), importable(folder):
            returned = function(*arguments, **keywords)
        if isinstance(returned, tuple):
            return tuple(quiet(x, folder) if callable(x) else x for x in returned)
        return returned

    return run


def _conventions(path: str | PathLike[str], module: Any) -> dict[str, str]:
    found = getattr(module, "CONVENTIONS", {})
    if not isinstance(found, dict) or not all(isinstance(x, str) for item in found.items() for x in item):
        raise UserError(f'{path}: CONVENTIONS must be a dict of texts, as {{"causal_alignment": "top-left"}}')
    return found


def _dtypes(path: str | PathLike[str], module: Any, default: tuple[str, ...]) -> tuple[str, ...]:
    found = getattr(module, "DTYPES", default)
    if not isinstance(found, list | tuple) or not all(x in CARRIERS for x in found):
        raise UserError(f"{path}: DTYPES must be a list of some of {', '.join(CARRIERS)}; it is {found!r:.80}")
    return tuple(found)


def _parts(returned: Any, operation: str) -> tuple[Any, Callable[..., Any] | None, dict[str, Any]]:
    """y, its pullback if there is one, and the intermediate values."""
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


def _interleaved(function: Callable[..., Any], case: Case, dtype: str, outputs: dict[str, Any]) -> list[Law]:
    """Calls it, and its pullback, with other numbers: what that makes of the results at hand."""
    before = watched.copies(outputs)
    other = [map_leaves(_halved, tree) for tree in case.arguments(dtype)]
    with contextlib.suppress(FaultError, UnsupportedError):
        _, back, _ = _parts(call(case.operation, function, *other, **case.keyword_arguments()), case.operation)
        if back is not None and case.gradients:
            call(case.operation, back, *(map_leaves(_halved, tree) for tree in case.pull(dtype)))
    return watched.overwritten(outputs, before)


def _pulled_again(back: Callable[..., Any], case: Case, dtype: str) -> dict[str, Any]:
    """What the pullback gives when it is called once more; nothing where it may be called but once."""
    with contextlib.suppress(FaultError, UnsupportedError, MisshapenError):
        pulled = call(f"{case.operation}'s pullback", back, *case.pull(dtype))
        return case.flat_gradients(arrays.all_arrived(pulled, dtype))
    return {}


def _halved(x: Any) -> Any:
    return x * x.dtype.type(0.5) if isinstance(x, numpy.ndarray) and x.dtype.kind == "f" else x


def _once(laws: list[Law]) -> tuple[Law, ...]:
    """Of each law the first that is broken, or else the first note."""
    found: dict[str, Law] = {}
    for law in sorted(laws, key=lambda law: not law.broken):
        found.setdefault(law.name, law)
    return tuple(found.values())


def _sizes(arguments: list[Tree]) -> list[int]:
    """Bytes of the arrays that are given, and of one of their columns: those of most results."""
    arrays = [x for tree in arguments for _, x in named_leaves(tree) if isinstance(x, numpy.ndarray)]
    rows = [x.nbytes // x.shape[-1] for x in arrays if x.ndim and x.shape[-1]]
    return [*(x.nbytes for x in arrays), *rows]
