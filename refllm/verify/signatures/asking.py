"""Asks a function by its table: the arrays around the call are traced, the call itself is one step with a pullback."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.numbers.traced import Traced, pull
from refllm.verify.arrays.bridge import Bridge, Called, Variable, leaves, mapped
from refllm.verify.case import CARRIERS, FaultError, UnsupportedError
from refllm.verify.signatures import Signed


def operation(signed: Signed, bridge: Bridge, dtype: str, *, gradients: bool) -> Callable[..., Any]:
    """The function as the golden files call it: of NumPy's arrays, with a pullback where there is one."""
    if signed.entry.native:
        asked = functools.partial(signed.entry.ask, signed.target)
        return bridge.over(functools.update_wrapper(asked, signed.entry.ask), dtype, gradients=gradients)
    return _traced(signed, bridge, dtype, gradients)


def _traced(signed: Signed, bridge: Bridge, dtype: str, gradients: bool) -> Callable[..., Any]:
    def asked(*arguments: Any, **keywords: Any) -> Any:
        call = _Call(signed, bridge, dtype, gradients)
        inputs = mapped(_as_traced, arguments)
        y = signed.entry.ask(call, *inputs, **keywords)
        value = mapped(lambda x: x.value if isinstance(x, Traced) else x, y)
        if not gradients or call.without_gradient:
            return value

        def back(*dy: Any) -> Any:
            found = pull(leaves(y), leaves(dy))
            dx = mapped(lambda x: found.get(x, _zeros(x)) if isinstance(x, Traced) else None, inputs)
            return dx if len(dx) != 1 else dx[0]

        return value, back

    asked.__wrapped__ = signed.target  # type: ignore[attr-defined]
    return asked


def _as_traced(x: Any) -> Any:
    return Traced(x) if isinstance(x, numpy.ndarray) and x.dtype.kind == "f" else x


def _zeros(x: Traced) -> Array:
    return numpy.zeros_like(x.value)


class _Call:
    """The function that is verified, for traced arrays and NumPy's."""

    def __init__(self, signed: Signed, bridge: Bridge, dtype: str, gradients: bool) -> None:
        self.signed, self.bridge, self.dtype, self.gradients = signed, bridge, dtype, gradients
        self.without_gradient = False
        self.__name__ = signed.entry.name

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        _require_taken(self.signed, arguments, keywords)
        variables = [x for x in leaves((arguments, keywords)) if isinstance(x, Traced)]
        marked, named = mapped(self._marked, (arguments, keywords))
        called = self.bridge.call(self.signed.target, marked, named, self.dtype)
        if called.back is None:
            self.without_gradient |= bool(variables)
            return called.value
        return _results(called, variables, self.dtype)

    def of(self, library: str) -> bool:
        """Whether the function is a library's own, which says what it takes."""
        return str(getattr(self.signed.target, "__module__", "")).startswith(library)

    def takes(self, name: str) -> bool:
        """Whether the function has a parameter of that name; so it seems where nobody can tell."""
        try:
            return name in inspect.signature(self.signed.target).parameters
        except (TypeError, ValueError):
            return True

    def _marked(self, x: Any) -> Any:
        if not isinstance(x, Traced):
            return x
        return Variable(x.value) if self.gradients else x.value


def _results(called: Called, variables: list[Traced], dtype: str) -> Any:
    """The value in traced arrays, each with the rules that lead to the variables."""
    outputs = [numpy.asarray(y) for y in leaves(called.value)]

    def rule(place: int, variable: int) -> Callable[[Array], Array]:
        def of(d: Array) -> Array:
            held = kept.get(place)
            if held is None or held[0] is not d:
                along = [d.astype(y.dtype, copy=False) if i == place else numpy.zeros_like(y)
                         for i, y in enumerate(outputs)]  # fmt: skip
                assert called.back is not None
                held = kept[place] = (d, called.back(along))
            return _array(held[1][variable], called)

        return of

    kept: dict[int, tuple[Array, list[Any]]] = {}
    places = iter(range(len(outputs)))

    def traced(y: Any) -> Any:
        place = next(places)
        if isinstance(y, numpy.generic | float):
            y = numpy.asarray(y, getattr(y, "dtype", CARRIERS[dtype]))  # Python's number is of any precision
        if not isinstance(y, numpy.ndarray) or y.dtype.kind != "f":
            return y
        return Traced(y, *((x, rule(place, i)) for i, x in enumerate(variables)))

    return mapped(traced, called.value)


def _array(gradient: Any, called: Called) -> Array:
    if not isinstance(gradient, numpy.ndarray | numpy.generic | float):
        raise FaultError(f"a gradient is a {type(gradient).__name__}, not an array")
    return numpy.asarray(gradient)


def _require_taken(signed: Signed, arguments: Any, keywords: dict[str, Any]) -> None:
    """UnsupportedError if the function lacks a parameter, FaultError if it takes another number of arrays."""
    try:
        parameters = inspect.signature(signed.target)
    except (TypeError, ValueError):  # in C, mostly: the call will tell
        return
    try:
        parameters.bind(*arguments, **keywords)
    except TypeError as error:
        any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.parameters.values())
        lacking = [name for name in keywords if name not in parameters.parameters and not any_name]
        name = signed.entry.name
        if lacking:
            raise UnsupportedError(f"{name}{parameters} takes no {lacking[0]}") from None
        raise FaultError(f"{name}{parameters} does not take what its table calls it with: {error}") from None
