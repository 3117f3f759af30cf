"""What a mutant is, and how it is put in the place of what it imitates."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any

import refllm.verify.reference  # noqa: F401  (what is planted must be loaded before its places are looked for)
from refllm.verify import families

families.modules()  # so must they
Function = Callable[..., Any]
Site = tuple[Function, str]  # a function of refllm, and the module or package in which it is called
_BANK = __name__.rpartition(".")[0]  # its own modules call the originals and are left alone


@dataclass(frozen=True)
class Mutant:
    """One mistake: a function with the signature of `original`, to be called instead of it wherever refllm does.

    `about` names the mistake so that it reads on after "equal to"; `issue` is a public report of somebody who made
    it. `dtype` is the precision in which it shows, where float64 is too good to show it. `within` names the module to
    plant it in, if not all.
    """

    id: str
    original: Function
    about: str
    function: Function
    issue: str | None = None
    dtype: str = "float64"
    within: str = "refllm"

    @property
    def spec(self) -> str:
        return self.id.partition("/")[0]


@dataclass(frozen=True)
class Equivalent:
    """A change that is none: the results are the same in exact arithmetic, and `proof` says why."""

    id: str
    original: Function
    about: str
    function: Function
    proof: str
    within: str = "refllm"


def with_layers(config: Any, number: int, name: str = "layers") -> Any:
    """The config of a model of so many layers, none at all included, which no config allows: for a mutant that skips
    some of those that it is given."""
    other = copy(config)
    object.__setattr__(other, name, number)
    return other


@contextmanager
def planted(mutant: Mutant | Equivalent) -> Iterator[None]:
    """In this context refllm calls the mutant wherever it would call the original. For one thread."""
    places = _places(mutant.original, mutant.within)
    signature = _signature(mutant.original)

    @wraps(mutant.original)  # under its name, by which refllm's functions are listed
    def imitation(*arguments: Any, **keywords: Any) -> Any:
        bound = signature.bind(*arguments, **keywords)  # what is differentiable comes by position
        return mutant.function(*bound.args, **bound.kwargs)

    try:
        for place, name in places:
            _put(place, name, imitation)
        yield
    finally:
        for place, name in places:
            _put(place, name, mutant.original)


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
