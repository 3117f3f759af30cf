"""What kind of value an annotation asks for, and the line that says so to somebody who gave another.

A keyword of another kind would end in a traceback of NumPy's or, worse, in a number: "no" is as true as True is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from refllm.backend import python_scalar
from refllm.errors import KindError

TREES = (dict, list, tuple)
_NUMBERS: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("True or False", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (float, int)),
    str: ("a string", (str,)),
}
_FIELDS: dict[type, dict[str, Kind]] = {}  # of the dataclasses that were made
_BUILT_IN = (dict, list, tuple, set, str, bytes, bytearray)
_LONGEST = 60  # characters of a value in a message


@dataclass(frozen=True, eq=False)
class OneOf:
    """The names that a string may be: stands beside `str` in an annotation, `Annotated[str, OneOf(ACTIVATIONS)]`."""

    names: Collection[str]


@dataclass(frozen=True)
class Kind:
    """What one parameter takes."""

    wanted: str
    classes: tuple[type, ...] = (object,)
    names: Collection[str] = ()  # if there are any, it is one of these
    members: tuple[str, ...] = ()  # what it must offer
    optional: bool = False
    of: Kind | None = None  # what stands in it, if it is a tuple

    @property
    def seen(self) -> str:
        """Source of what decides whether the value of a parameter, {0}, is of this kind."""
        if self.names or self.of:
            return "{0}.__class__, {0}"
        if self.members and not self.optional:  # a module, as all models are: by its name
            return "{0}.__class__, getattr({0}, '__name__', None)"
        return "{0}.__class__"

    @property
    def mark(self) -> str:
        """Source of what is the same object at most calls and may be held on to: no tree of arrays and no cache, which
        are as good as others of their class."""
        large = self.classes in (TREES, TREES[1:]) or (self.optional and self.members)
        return "{0}.__class__" if large else "{0}"

    @property
    def same(self) -> str:
        """Source of whether the value has the mark `_at_{0}`, that of one which was found to be of this kind."""
        same = f"{self.mark} is _at_{{0}}"
        return f"({{0}} is None or {same})" if self.optional else same

    def admitted(self, what: str, value: Any) -> Any:
        """The value of `what`, a scalar of NumPy as Python's own; KindError if it is of another kind."""
        if value is None and self.optional:
            return value
        plain = python_scalar(value)
        if not self._fits(plain):
            got = ", got" if "," not in self.wanted else "; got"
            raise KindError(f"{what} must be {self.wanted}{' or None' * self.optional}{got} {_shown(value)}")
        return plain

    def _fits(self, value: Any) -> bool:
        if self.names:
            return isinstance(value, str) and value in self.names
        if self.members:  # a list has `extend`, as some caches do
            return not isinstance(value, _BUILT_IN) and all(hasattr(value, member) for member in self.members)
        if self.of is not None and isinstance(value, tuple):
            return all(self.of._fits(python_scalar(one)) for one in value)
        return isinstance(value, self.classes) and (bool in self.classes or not isinstance(value, bool))


def kinds(function: Callable[..., Any]) -> dict[str, Kind]:
    """The kinds of the parameters whose annotations ask for one. Arrays have none here: `Shapes:` declares them."""
    return _read(inspect.get_annotations(function), getattr(function, "__globals__", {}), but="return")


def settle_fields(made: Any) -> None:
    """The fields of a new dataclass are of the kinds that they declare, scalars of NumPy made Python's own; KindError
    otherwise."""
    cls = type(made)
    if cls not in _FIELDS:
        _FIELDS[cls] = _read(inspect.get_annotations(cls), getattr(cls.__init__, "__globals__", {}))
    for name, kind in _FIELDS[cls].items():
        value = getattr(made, name)
        plain = kind.admitted(name, value)
        if plain is not value:
            object.__setattr__(made, name, plain)


def _read(annotations: dict[str, Any], names: dict[str, Any], *, but: str = "") -> dict[str, Kind]:
    known = {**names, "Tree": _Tree}
    found = {
        name: kind_of(eval(annotation, known) if isinstance(annotation, str) else annotation)
        for name, annotation in annotations.items()
        if name != but
    }
    return {name: kind for name, kind in found.items() if kind is not None}


def kind_of(annotation: Any) -> Kind | None:
    """What an annotation asks for; None if it does not say."""
    origin, of = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _kind_of_several([one for one in of if one is not NoneType], optional=NoneType in of)
    if origin is Annotated:
        names = next((tuple(one.names) for one in of[1:] if isinstance(one, OneOf)), ())
        return Kind(f"one of {', '.join(names)}", (str,), names) if names else kind_of(of[0])
    if origin is Sequence and of == (_Tree,):
        return Kind("a list or a tuple", TREES[1:])
    return _kind_of_class(annotation) if isinstance(annotation, type) and annotation is not Any else None


def _kind_of_several(alternatives: list[Any], *, optional: bool) -> Kind | None:
    """That of a union: of one thing or None, or of a number and a tuple of numbers."""
    if len(alternatives) == 1:
        one = kind_of(alternatives[0])
        return one and replace(one, optional=optional)
    number = next((one for one in alternatives if one in _NUMBERS), None)
    if number is None or {*alternatives} != {number, tuple[number, ...]}:  # type: ignore[valid-type]
        return None
    wanted, classes = _NUMBERS[number]
    return Kind(f"{wanted} or a tuple of such", (*classes, tuple), optional=optional, of=Kind(wanted, classes))


def _kind_of_class(annotation: type) -> Kind:
    if annotation is _Tree:
        return Kind("a tree, of dicts and lists", TREES)
    if annotation in _NUMBERS:
        return Kind(*_NUMBERS[annotation])
    if getattr(annotation, "_is_protocol", False):
        members = _members(annotation)
        return Kind(f"what has {', '.join(members)}", members=members)
    return Kind(f"a {annotation.__qualname__} of {annotation.__module__}", (annotation,))


class _Tree:
    """What the name `Tree` stands for while annotations are read: as a type it is `Any`."""


def _members(protocol: type) -> tuple[str, ...]:
    own = [one for one in protocol.__mro__ if getattr(one, "_is_protocol", False) and one.__module__ != "typing"]
    names = [name for one in own for name in (*vars(one), *inspect.get_annotations(one))]
    return tuple(dict.fromkeys(name for name in names if not name.startswith("_")))


def _shown(value: Any) -> str:
    """A value in a message: numbers and strings as they are written, anything else by its class."""
    plain = python_scalar(value)
    if plain is None or isinstance(plain, (bool, int, float, complex, str, bytes)):
        try:
            text = repr(plain)
        except ValueError:  # a whole number of too many digits
            return "a very large number"
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return type(value).__name__
