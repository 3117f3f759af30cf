"""`@differentiable`: what a docstring's `Shapes:` line says is checked, on the way in and on the way back.

The line is read once, when the function is defined. At a call the shapes and dtypes of the arrays that it declares are
looked up among those that were found to fit before; only new ones are compared with the line. The pullback is wrapped:
each gradient that it is given must have the shape and dtype of the value that was returned.
"""

from __future__ import annotations

import inspect
import linecache
import operator
import re
from collections.abc import Callable, Iterable
from functools import update_wrapper
from typing import Any, NamedTuple, TypeVar, cast

from refllm.fit import Fit, require_array
from refllm.shapes import Declared, ShapesError, parse, sections, written

F = TypeVar("F", bound=Callable[..., Any])

CARRIED = ("cache", "state", "states")  # a block that goes on from these leaves the checks to its operations
ADMITTED = 4096  # signatures that a function remembers; decoding brings one for every length of a text


class Contract(NamedTuple):
    """What a function declares: the arrays among its arguments, the whole numbers that are sizes, its results."""

    name: str
    inputs: tuple[Declared, ...]
    numbers: tuple[str, ...]
    outputs: tuple[Declared, ...]


def contract(function: Callable[..., Any]) -> Contract:
    """What the docstring of a function declares; ShapesError if that cannot be read."""
    name = function.__name__
    line = sections(function.__doc__ or "").get("Shapes")
    if line is None:
        raise ShapesError(f"{name}: the docstring has no `Shapes:` section; add one")
    inputs, outputs = parse(name, line)
    parameters = inspect.signature(function).parameters
    arguments = tuple(a for a in inputs if a.name in parameters)
    sizes = " ".join(" ".join((*a.dimensions, a.count or "")) for a in (*inputs, *outputs))
    letters = set(re.findall(r"[^\W\d]\w*", sizes))
    return Contract(name, arguments, tuple(n for n in parameters if n in letters), outputs)


def differentiable(function: F) -> F:
    """A function (arrays) -> (y, back) that refuses arrays, and gradients of y, which do not fit its `Shapes:` line."""
    return _with_a_door(function, contract(function), guarded=True)


def declared_inputs(function: F) -> F:
    """A function without a pullback that refuses arrays which do not fit its `Shapes:` line."""
    return _with_a_door(function, contract(function), guarded=False)


def _with_a_door(function: F, declared: Contract, *, guarded: bool) -> F:
    """The function with a check before it and, if it is to be `guarded`, one in its pullback.

    The checks are written out as source for the signature at hand, as dataclasses are: in decoding, where arrays are
    small, a loop over arguments would cost more than some operations.
    """
    admitted: set[Any] = set()

    def admit(seen: Any, arguments: dict[str, Any]) -> None:
        sizes = {name: _whole_number(declared.name, name, arguments[name]) for name in declared.numbers}
        Fit(declared.name, declared.inputs, sizes).require(arguments)
        if len(admitted) >= ADMITTED:
            admitted.clear()
        if seen is not None:
            admitted.add(seen)

    source = _source(function, declared, guarded=guarded)
    place = f"<the door of {function.__module__}.{function.__qualname__}>"
    linecache.cache[place] = (len(source), None, source.splitlines(keepends=True), place)
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    names: dict[str, Any] = {
        "_function": function, "_defaults": defaults, "_admitted": admitted, "_admit": admit, "_plain": _PLAIN,
        "_require": lambda dy, wanted: _require_gradients(declared, dy, wanted),
    }  # fmt: skip
    exec(compile(source, place, "exec"), names)
    return cast(F, update_wrapper(names[function.__name__], function))


def _source(function: Callable[..., Any], declared: Contract, *, guarded: bool) -> str:
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise ShapesError(f"{declared.name}: a starred parameter hides what is passed; name every argument")
    takes = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    says = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    signature = [p.name if p.default is p.empty else f"{p.name}=_defaults[{p.name!r}]" for p in parameters]
    signature[len(takes) : len(takes)] = ["*"] if says else []
    key = [part for a in declared.inputs for part in _seen(a)]
    key += [part for name in declared.numbers for part in (name, f"{name}.__class__")]  # 4.0 is equal to 4
    arguments = ", ".join(f"{name!r}: {name}" for name in (*[a.name for a in declared.inputs], *declared.numbers))
    call = f"_function({', '.join([*takes, *[f'{name}={name}' for name in says]])})"
    kept = [name for name in says if name in CARRIED and function.__module__.startswith("refllm.blocks.")]
    go_on = "".join(f"    if {name} is not None:\n        return {call}\n" for name in kept)
    several = len(declared.outputs) > 1 or declared.outputs[0].count is not None
    end = f"    return {call}\n"
    if guarded:
        end = f"    y, back = {call}\n{_SEVERAL if several else _ONE}    return y, checked_back\n"
    return f"""def {function.__name__}({", ".join(signature)}):
{go_on}    try:
        seen = ({"".join(f"{part}, " for part in key)})
        new = seen not in _admitted
    except (AttributeError, TypeError):  # no array, or no size: the door says which
        seen, new = None, True
    if new:
        _admit(seen, {{{arguments}}})
{end}"""


# The pullbacks that are returned. They hold shapes, and not y itself, which may be large and done with.
_ONE = """    shape, dtype = y.shape, y.dtype
    def checked_back(*dy):
        try:
            (one,) = dy
            fits = one.shape == shape and one.dtype is dtype and one.__class__ in _plain
        except (AttributeError, ValueError):
            fits = False
        if not fits:
            _require(dy, ((shape, dtype),))
        return back(*dy)
"""
_SEVERAL = """    wanted = [(one.shape, one.dtype, True) for one in y]
    def checked_back(*dy):
        try:
            fits = [(one.shape, one.dtype, one.__class__ in _plain) for one in dy] == wanted
        except AttributeError:
            fits = False
        if not fits:
            _require(dy, [(shape, dtype) for shape, dtype, _ in wanted])
        return back(*dy)
"""


def _seen(declared: Declared) -> list[str]:
    """Source of what the door looks at of an argument."""
    parts = [f"{{0}}.{attribute}" for attribute in ("__class__", "shape", "dtype")]
    if declared.count is not None:
        each = f"tuple([({', '.join(parts).format('z')}) for z in {declared.name}])"
        return [f"{declared.name}.__class__", f"None if {declared.name} is None else {each}"]
    own = [part.format(declared.name) for part in parts]
    return [f"None if {declared.name} is None else ({', '.join(own)})"] if declared.optional else own


def _whole_number(operation: str, name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{operation}: {name} must be a whole number, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{operation}: {name} must be at least 1, got {number}")
    return number


_PLAIN: set[type] = set()  # classes of arrays that were found to be good


def _require_gradients(declared: Contract, dy: tuple[Any, ...], wanted: Iterable[tuple[Any, Any]]) -> None:
    """TypeError or ValueError unless these are gradients of values of the wanted shapes and dtypes."""
    values = _values(declared, list(wanted))
    if len(dy) != len(values):
        names = " and ".join(name for name, *_ in values)
        raise TypeError(
            f"{declared.name}: back takes {len(values)} gradient{'s' * (len(values) > 1)}, of {names}; got {len(dy)}"
        )
    for one, (name, symbolic, shape, dtype) in zip(dy, values, strict=True):
        what = "dy" if len(values) == 1 else f"dy of {name}"
        require_array(declared.name, what, one)
        if one.shape != shape:
            raise ValueError(
                f"{declared.name}: {what} must be {symbolic} = {shape}, the shape of {name}; got {one.shape}"
            )
        if one.dtype != dtype:
            raise ValueError(f"{declared.name}: {what} is {one.dtype} but {name} is {dtype}; give both the same dtype")
        _PLAIN.add(type(one))


def _values(declared: Contract, wanted: list[tuple[Any, Any]]) -> list[tuple[str, str, Any, Any]]:
    """Name, symbolic shape, shape and dtype of every value that was returned."""
    several = len(wanted) - len(declared.outputs) + 1  # how many the one output stands for that says a number
    named: list[tuple[str, Declared]] = []
    for output in declared.outputs:
        if output.count is None:
            named.append((output.name, output))
        else:
            named += [(f"{output.name}[{i}]", output) for i in range(several)]
    values = []
    for (name, output), (shape, dtype) in zip(named, wanted, strict=True):
        dimensions = output.other[1] if output.other is not None and shape != () else output.dimensions
        values.append((name, written(dimensions), shape, dtype))
    return values
