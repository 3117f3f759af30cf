"""`@differentiable`: what a docstring's `Shapes:` line says is checked, on the way in and on the way back.

The line is read once, at the first call. At a call the shapes and dtypes of the arrays that it declares are looked up
among those that were found to fit before; only new ones are compared with the line. So are the kinds of the other
arguments, which their annotations declare (refllm/kinds.py). The pullback is wrapped: each gradient that it is given
must have the shape and dtype of the value that was returned.
"""

from __future__ import annotations

import inspect
import linecache
import operator
import re
import sys
import textwrap
from collections.abc import Callable
from functools import partial, update_wrapper
from types import FunctionType
from typing import Any, NamedTuple, TypeVar, cast

from refllm.entries import FAULTS, declared_dicts, explain, require_entries, source_of_dict
from refllm.errors import KindError, UserError
from refllm.fit import Fit, require_array
from refllm.kinds import Kind, kinds
from refllm.shapes import Declared, ShapesError, parse, sections, written

F = TypeVar("F", bound=Callable[..., Any])

CARRIED = ("cache", "state", "states")  # a block that goes on from these leaves the checks to its operations
_PLAIN: set[type] = set()  # classes of arrays that were found to be good
_look = operator.attrgetter("__class__", "shape", "dtype")
ADMITTED = 4096  # signatures that a function remembers; decoding brings one for every length of a text


class Contract(NamedTuple):
    """What a function declares: the arrays among its arguments, the whole numbers that are sizes, its results, and the
    entries of its parameters."""

    name: str
    inputs: tuple[Declared, ...]
    numbers: tuple[str, ...]
    outputs: tuple[Declared, ...]
    entries: tuple[Declared, ...] = ()


def contract(function: Callable[..., Any]) -> Contract:
    """What the docstring of a function declares; ShapesError if that cannot be read."""
    name = function.__name__
    line = sections(function.__doc__ or "").get("Shapes")
    if line is None:
        if sys.flags.optimize > 1:
            raise UserError(
                "refllm reads the shapes that its docstrings declare, and python -OO has none; run it without -OO and "
                "PYTHONOPTIMIZE"
            )
        raise ShapesError(f"{name}: the docstring has no `Shapes:` section; add one")
    inputs, outputs = parse(name, line)
    parameters = inspect.signature(function).parameters
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        raise ShapesError(f"{name}: a starred parameter hides what is passed; name every argument")
    arguments = tuple(a for a in inputs if a.name in parameters and a.kind != "tree")
    sizes = " ".join(" ".join((*a.dimensions, a.count or "")) for a in (*inputs, *outputs))
    letters = set(re.findall(r"[^\W\d]\w*", sizes))
    entries = tuple(a for a in inputs if a.name not in parameters or a.kind == "tree")
    if entries and "p" not in parameters:
        raise ShapesError(f"{name}: `Shapes:` declares {entries[0].name}, which is no argument; name every argument")
    return Contract(name, arguments, tuple(n for n in parameters if n in letters), outputs, entries)


def differentiable(function: F) -> F:
    """A function (arrays) -> (y, back) that refuses arrays, and gradients of y, which do not fit its `Shapes:` line."""
    return _with_a_door(function, guarded=True)


def declared_inputs(function: F) -> F:
    """A function without a pullback that refuses arrays which do not fit its `Shapes:` line."""
    return _with_a_door(function, guarded=False)


def declared_kinds(function: F) -> F:
    """A function that refuses an argument of another kind than its annotation says, a number or a choice."""
    return _with_a_door(function, guarded=False, shapes=False)


def _with_a_door(function: F, *, guarded: bool, shapes: bool = True) -> F:
    """The function with a check before it and, if it is to be `guarded`, one in its pullback.

    The checks are written out as source for the signature at hand, as dataclasses are: in decoding, where arrays are
    small, a loop over arguments would cost more than some operations. To read some fifty lines and to compile as many
    sources would make up a third of the time of an import: both wait for the first call, which then puts the
    written code in its own place.
    """
    names: dict[str, Any] = {}
    door = FunctionType(_first_call.__code__, names, function.__name__)

    def write() -> None:
        written_out = _written_out(function, names, guarded=guarded, shapes=shapes)
        door.__defaults__, door.__kwdefaults__ = written_out.__defaults__, written_out.__kwdefaults__
        door.__code__ = written_out.__code__

    names.update(_write=write, _door=door)
    return cast(F, update_wrapper(door, function))


def _first_call(*arguments: Any, **keywords: Any) -> Any:
    """The code of every door until its first call; the names that are missing here are in the door's own globals."""
    _write()  # type: ignore[name-defined]  # noqa: F821
    return _door(*arguments, **keywords)  # type: ignore[name-defined]  # noqa: F821


def _written_out(function: Callable[..., Any], names: dict[str, Any], *, guarded: bool, shapes: bool) -> Any:
    """The door as a function whose globals are `names`."""
    declared = contract(function) if shapes else Contract(function.__name__, (), (), ())
    asked = kinds(function)
    settled: set[Any] = set()
    admitted: set[Any] = set()
    latest: list[Any] = [None]

    def admit(seen: Any, arguments: dict[str, Any]) -> None:
        sizes = {name: _whole_number(declared.name, name, arguments[name]) for name in declared.numbers}
        Fit(declared.name, declared.inputs, sizes).require(arguments)
        if declared.entries:
            require_entries(declared.name, declared.entries, arguments["p"])
        if len(admitted) >= ADMITTED:
            admitted.clear()
        if seen is not None:
            admitted.add(seen)
            latest[0] = seen

    def plain(seen: Any, given: dict[str, Any]) -> dict[str, Any] | None:
        """The arguments with Python's own numbers where they are NumPy's; None if there is nothing to change."""
        as_python = {name: asked[name].admitted(f"{function.__name__}: {name}", value) for name, value in given.items()}
        if any(as_python[name] is not given[name] for name in given):
            return as_python
        if len(settled) < ADMITTED:
            settled.add(seen)
        return None

    def at(name: str, value: Any) -> None:
        names[f"_at_{name}"] = value

    source = _source(function, declared, asked, guarded=guarded)
    place = f"<the door of {function.__module__}.{function.__qualname__}>"
    linecache.cache[place] = (len(source), None, source.splitlines(keepends=True), place)
    names.update(
        _function=function, _defaults={p.name: p.default for p in inspect.signature(function).parameters.values()},
        _admitted=admitted, _latest=latest, _admit=admit, _settled=settled, _plain=plain, _at=at,
        _declared=declared, _FAULTS=FAULTS, _explain=explain, _bound=partial, _look=_look, _back_of_one=_back_of_one,
        _back_of_several=_back_of_several,
    )  # fmt: skip
    for name in asked:
        at(name, names)  # nothing that is passed
    exec(compile(source, place, "exec"), names)
    return names[function.__name__]


def _source(function: Callable[..., Any], declared: Contract, asked: dict[str, Kind], *, guarded: bool) -> str:
    parameters = inspect.signature(function).parameters.values()
    takes = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    says = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    signature = [p.name if p.default is p.empty else f"{p.name}=_defaults[{p.name!r}]" for p in parameters]
    signature[len(takes) : len(takes)] = ["*"] if says else []
    key = [part for a in declared.inputs for part in _seen(a)]
    key += [part for name in declared.numbers for part in (f"{name}.__class__", name)]  # 4.0 is equal to 4
    dicts = [source_of_dict(path) for path in declared_dicts(declared.entries)]
    key += [part for one in dicts for part in (f"{one}.__class__", f"*{one}")]  # the names in it
    read = [*[a.name for a in declared.inputs], *declared.numbers, *(["p"] if declared.entries else [])]
    arguments = ", ".join(f"{name!r}: {name}" for name in read)
    call = f"_function({', '.join([*takes, *[f'{name}={name}' for name in says]])})"
    kept = [name for name in says if name in CARRIED and function.__module__.startswith("refllm.blocks.")]
    go_on = "".join(f"    if {name} is not None:\n        return {call}\n" for name in kept)
    several = len(declared.outputs) > 1 or any(output.count is not None for output in declared.outputs)
    end = f"    return {call}\n"
    if guarded:
        end = f"    y, back = {call}\n{_SEVERAL if several else _ONE}"
    head = f"def {function.__name__}({', '.join(signature)}):\n{_source_of_kinds(asked, [p.name for p in parameters])}"
    look = ""
    if read:
        look = f"""    try:
        seen = ({"".join(f"{part}, " for part in key)})
        new = seen != _latest[0] and seen not in _admitted  # comparing takes half as long as hashing
    except (AttributeError, TypeError, LookupError):  # no array, no size, no entry: the door says which
        seen, new = None, True
    if new:
        _admit(seen, {{{arguments}}})
"""
    body = f"{go_on}{look}{end}"
    return head + (_explained(body) if "p" in [p.name for p in parameters] else body)


def _explained(body: str) -> str:
    """A body that reads parameters: where it fails because of them, the error names their entry."""
    return f"""    try:
{textwrap.indent(body, "    ")}    except _FAULTS as error:
        _explain(_declared.name, _declared.entries, p, error)
        raise
"""


def _source_of_kinds(asked: dict[str, Kind], parameters: list[str]) -> str:
    """The part of a door that looks at the arguments which are no arrays.

    At most calls they are the objects that they were when they were first looked at, as numbers of a configuration are;
    else their classes are looked up.
    """
    if not asked:
        return ""
    key = "".join(f"{kind.seen.format(name)}, " for name, kind in asked.items())
    given = ", ".join(f"{name!r}: {name}" for name in asked)
    others = "".join(f"{name}={name}, " for name in parameters if name not in asked)
    same = " and ".join(kind.same.format(name) for name, kind in asked.items())
    return f"""    if not ({same}):
        try:
            _kinds = ({key})
            _new = _kinds not in _settled
        except TypeError:  # nothing that can be looked up, and so none of a table's names
            _kinds, _new = None, True
        if _new:
            _numbers = _plain(_kinds, {{{given}}})
            if _numbers is not None:
                return _door({others}**_numbers)
            {"; ".join(f"_at({name!r}, {kind.mark.format(name)})" for name, kind in asked.items())}
"""


# What stands at the end of a door. The pullbacks hold shapes, and not y itself, which may be large and done with. They
# are bound arguments of one function, and not closures of every door, which a step would find in no cache.
_ONE = "    return y, _bound(_back_of_one, _declared, y.shape, y.dtype, back)\n"
_SEVERAL = "    return y, _bound(_back_of_several, _declared, [*map(_look, y)], back)\n"


def _back_of_one(
    declared: Contract, shape: Any, dtype: Any, back: Callable[..., Any], dy: Any = ..., /, *more: Any
) -> Any:
    """The gradients that `back` gives for one of y. Not *dy: to pack and unpack it takes longer than the check."""
    try:
        fits = dy.shape == shape and dy.dtype is dtype and dy.__class__ in _PLAIN and not more
    except AttributeError:
        fits = False
    if not fits:
        _require_gradients(declared, () if dy is ... else (dy, *more), [(shape, dtype)])
    return back(dy)


def _back_of_several(declared: Contract, wanted: list[Any], back: Callable[..., Any], /, *dy: Any) -> Any:
    """The gradients that `back` gives for one of each value, of which `wanted` are class, shape and dtype."""
    try:
        fits = [*map(_look, dy)] == wanted
    except AttributeError:
        fits = False
    if not fits:
        _require_gradients(declared, dy, [(shape, dtype) for _, shape, dtype in wanted])
    return back(*dy)


def _seen(declared: Declared) -> list[str]:
    """Source of what the door looks at of an argument: its class first, so that only what is alike is compared."""
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
        raise KindError(f"{operation}: {name} must be a whole number, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{operation}: {name} must be at least 1, got {number}")
    return number


def _require_gradients(declared: Contract, dy: tuple[Any, ...], wanted: list[tuple[Any, Any]]) -> None:
    """TypeError or ValueError unless these are gradients of values of the wanted shapes and dtypes."""
    values = _values(declared, wanted)
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
