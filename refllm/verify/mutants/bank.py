"""What a mutant is: an edit of the specification's own lines, or a function in the place of one of refllm's.

    Edited("ATT/no-scale", "attention without the 1/√d_k scale",
           edit(attention, "s = q @ swap(k) / sqrt(D)", "s = q @ swap(k)"), issue)

A mistake in a formula is an edit: the mistaken text is compiled from the source of the text, and its gradient is the
true one of what it computes, or, where the edit is one of a pullback, what the edited pullback says. What no edit of a
line expresses (a cache, a loop, the numerics of the fast implementation) is a `Patch`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, wraps
from types import FunctionType
from typing import Any, ClassVar, cast

import refllm.verify.reference  # noqa: F401  (what is planted must be loaded before its places are looked for)
from refllm import ops
from refllm.verify.edits import Edit
from refllm.verify.edits.lines import rewritten

Function = Callable[..., Any]
Site = tuple[Function, str]  # a function of refllm, and the module or package in which it is called
_BANK = __name__.rpartition(".")[0]  # its own modules call the originals and are left alone


@dataclass(frozen=True)
class Rewritten:
    """Lines of a function of the text, and what stands in their place: old, new, old, new ..."""

    original: FunctionType
    lines: tuple[str, ...]

    @cached_property
    def edit(self) -> Edit:
        return rewritten(self.original, self.lines)


Edits = tuple[Rewritten, ...]


def edit(function: Function, *lines: str) -> Edits:
    """One function with these lines exchanged: old, new, old, new ... Edits of several functions are added up.

    An old line is a whole one (or several that follow each other), without its indentation, and occurs once in the
    function. A new one may be several lines, or none.
    """
    return (Rewritten(cast(FunctionType, function), lines),)


@dataclass(frozen=True, eq=False)
class Edited:
    """A mistake in a formula: the text with some of its lines edited.

    `about` names the mistake so that it reads on after "equal to"; `issue` is a public report of somebody who made
    it. `dtype` is the precision in which it shows, where float64 is too good to show it. In `no_mistake_in` a right
    implementation loses as much, so that it is a mistake in the other precisions alone.
    """

    id: str
    about: str
    rewritten: tuple[Rewritten, ...]
    issue: str | None = None
    dtype: str = "float64"
    no_mistake_in: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        return self.id.partition("/")[0]

    @cached_property
    def originals(self) -> tuple[FunctionType, ...]:
        return tuple(each.original for each in self.rewritten)

    @cached_property
    def traced(self) -> bool:
        """Whether the gradient is the true one of what is computed; otherwise the edited pullback says what it is."""
        return not any(each.edit.in_pullback for each in self.rewritten)

    @cached_property
    def functions(self) -> dict[FunctionType, Function]:
        """The edited functions, by what they are edits of."""
        found = {each.original: each.edit.function() for each in self.rewritten}
        assert None not in found.values(), f"{self.id} is not Python"
        return cast(dict[FunctionType, Function], found)

    @cached_property
    def patches(self) -> list[Patch]:
        """The edited functions in the place of refllm's operations of the same names; none where it has not all."""
        own = {original: _operations().get(original.__name__) for original in self.originals}
        alike = all(f is not None and _asks(f) == _asks(original) for original, f in own.items())
        return [Patch(self.id, f, self.about, self.functions[o]) for o, f in own.items() if f] if alike else []

    @cached_property
    def diff(self) -> list[tuple[str, list[str]]]:
        """Where the lines stand, what goes, and what comes."""
        return [(each.edit.place, each.edit.diff()) for each in self.rewritten]


@dataclass(frozen=True, eq=False)
class Patch:
    """A mistake that is no edit of a formula: a function with the signature of `original`, to be called instead of it
    wherever refllm does, or in the module `within` alone. The rest is as in `Edited`."""

    id: str
    original: Function
    about: str
    function: Function
    issue: str | None = None
    dtype: str = "float64"
    within: str = "refllm"
    no_mistake_in: ClassVar[tuple[str, ...]] = ()
    diff: ClassVar[list[tuple[str, list[str]]]] = []

    @property
    def spec(self) -> str:
        return self.id.partition("/")[0]

    @property
    def originals(self) -> tuple[Function, ...]:
        return (self.original,)


Mutant = Edited | Patch


@cache
def _operations() -> dict[str, Function]:
    """The operations of refllm, by name."""
    modules = [importlib.import_module(f"{ops.__name__}.{m.name}") for m in pkgutil.iter_modules(ops.__path__)]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    }


def _asks(function: Function) -> list[str]:
    return list(inspect.signature(function).parameters)


@dataclass(frozen=True)
class Equivalent:
    """A change that is none: the results are the same in exact arithmetic, and `proof` says why."""

    change: Mutant
    proof: str

    @property
    def id(self) -> str:
        return self.change.id

    @property
    def about(self) -> str:
        return self.change.about


@contextmanager
def planted(patch: Patch) -> Iterator[None]:
    """In this context refllm calls the patch wherever it would call the original. For one thread."""
    places = _places(patch.original, patch.within)
    signature = _signature(patch.original)

    @wraps(patch.original)  # under its name, by which refllm's functions are listed
    def imitation(*arguments: Any, **keywords: Any) -> Any:
        bound = signature.bind(*arguments, **keywords)  # what is differentiable comes by position
        return patch.function(*bound.args, **bound.kwargs)

    try:
        for place, name in places:
            _put(place, name, imitation)
        yield
    finally:
        for place, name in places:
            _put(place, name, patch.original)


@contextmanager
def traced(sites: frozenset[Site]) -> Iterator[set[Site]]:
    """In this context the set grows by the sites that refllm calls. For one thread."""
    probes, called = _probes(sites), set[Site]()
    before = probes.called
    try:
        probes.called = called
        for place, name, _, probe in probes.places:
            _put(place, name, probe)
        yield called
    finally:
        probes.called = before
        for place, name, original, _ in probes.places:
            _put(place, name, original)


@dataclass
class _Probes:
    """What stands in the place of functions while they are traced; made once, since every case is traced by itself."""

    called: set[Site]
    places: list[tuple[Any, str, Function, Function]]

    def of(self, original: Function, here: frozenset[Site]) -> Function:
        @wraps(original)
        def through(*arguments: Any, **keywords: Any) -> Any:
            self.called.update(here)
            return original(*arguments, **keywords)

        return through


@cache
def _probes(sites: frozenset[Site]) -> _Probes:
    made = _Probes(set(), [])
    made.places += [(p, name, original, made.of(original, here)) for p, name, original, here in _sites_by_place(sites)]
    return made


def _sites_by_place(sites: frozenset[Site]) -> list[tuple[Any, str, Function, frozenset[Site]]]:
    """Every place of these sites, the function that is held there, and the sites that it belongs to: a module's, and
    those of the packages around it."""
    found: dict[tuple[int, str], tuple[Any, set[Site]]] = {}
    for site in sites:
        for place, name in _places(*site):
            found.setdefault((id(place), name), (place, set()))[1].add(site)
    return [(place, name, next(iter(here))[0], frozenset(here)) for (_, name), (place, here) in found.items()]


_signature = cache(inspect.signature)


def _put(place: Any, name: str, function: Function) -> None:
    if isinstance(place, dict):
        place[name] = function
    else:
        setattr(place, name, function)


@cache
def _places(original: Function, within: str) -> tuple[tuple[Any, str], ...]:
    """Where refllm holds a function: in modules, in dictionaries of theirs, and, a method, in its class."""
    found: list[tuple[Any, str]] = []
    for module_name, module in list(sys.modules.items()):
        if not f"{module_name}.".startswith(f"{within}.") or module_name.startswith(_BANK):
            continue
        for name, value in vars(module).items():
            if value is original:
                found.append((module, name))
            elif isinstance(value, dict) and name.isupper():
                found += [(value, key) for key, entry in value.items() if entry is original]
            elif isinstance(value, type) and value.__module__ == module_name:
                found += [(value, key) for key, entry in vars(value).items() if entry is original]
    return tuple(found)
