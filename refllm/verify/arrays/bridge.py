"""A function of a library's arrays, called with NumPy's.

bridge = Bridge("torch", device="cuda")
y, back = bridge.over(layer_norm, "bfloat16")(x, g, b, eps=1e-5)      # a function of tensors, if only its value
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify import arrays
from refllm.verify.case import FaultError


@dataclass
class Variable:
    """An array among the arguments of a call of which the gradient is asked for."""

    value: Array


@dataclass
class Called:
    """What a call gave, in NumPy's arrays. `back` takes a gradient for each leaf of the value, and gives one for each
    variable in the order of the arguments; it is None where there is no gradient."""

    value: Any
    back: Callable[[list[Array]], list[Any]] | None
    taps: dict[str, Any]


class Bridge:
    """The way between NumPy's arrays and those of a library, on one device."""

    def __init__(self, name: str, device: str | None = None) -> None:
        """UserError if there is no such library."""
        self.name, self.device, self.library = name, device, arrays.library(name)

    @property
    def dtypes(self) -> tuple[str, ...]:
        return self.library.DTYPES

    def over(self, function: Callable[..., Any], dtype: str, *, gradients: bool = True) -> Callable[..., Any]:
        """The function as one of NumPy's arrays, with a pullback if it has one or the library finds it."""

        @functools.wraps(function)
        def operation(*arguments: Any, **keywords: Any) -> Any:
            marked = mapped(_variable, arguments) if gradients else arguments
            called = self.call(function, marked, keywords, dtype)
            if called.back is None:
                return (called.value, None, called.taps) if called.taps else called.value
            pull = called.back

            def back(*dy: Any) -> Any:
                found = iter(pull(leaves(dy)))
                dx = mapped(lambda x: next(found) if isinstance(x, Variable) else None, marked)
                return dx if len(dx) != 1 else dx[0]

            return (called.value, back, called.taps) if called.taps else (called.value, back)

        return operation

    def call(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any], dtype: str
    ) -> Called:
        """What the function gives for these arguments, among which the variables are marked."""
        library, variables = self.library, list[Any]()
        with library.using(dtype):

            def native(x: Any) -> Any:
                if isinstance(x, Variable):
                    variables.append(library.watched(library.given(x.value, dtype, self.device)))
                    return variables[-1]
                return library.given(x, dtype, self.device) if isinstance(x, numpy.ndarray) else x

            structure = mapped(native, (arguments, keywords))
            returned = function(*structure[0], **structure[1])
            value, own_back, taps = parts(returned)
            outputs = leaves(value)
            pull = None
            if own_back is not None:
                pull = self._own(own_back, value, len(variables))
            elif variables:
                again = self._again(function, arguments, keywords, structure)
                pull = library.pullback(again, variables, outputs)
            done = Called(arrays.all_arrived(value, dtype), None, arrays.all_arrived(taps, dtype))
        if pull is not None:
            done.back = lambda dy: self._pulled(pull, dy, dtype)
        return done

    def _pulled(self, pull: Callable[[list[Any]], list[Any]], dy: list[Array], dtype: str) -> list[Any]:
        with self.library.using(dtype):
            found = pull([self.library.given(d, dtype, self.device) for d in dy])
            return [arrays.all_arrived(x, dtype) for x in found]

    @staticmethod
    def _own(back: Callable[..., Any], value: Any, count: int) -> Callable[[list[Any]], list[Any]]:
        """The pullback that the function returned itself: one gradient for each variable."""

        def pull(dy: list[Any]) -> list[Any]:
            left = iter(dy)
            along = mapped(lambda _: next(left), value if isinstance(value, tuple) else (value,))
            found = leaves(back(*along))
            if len(found) != count:
                raise FaultError(f"the pullback returned {len(found)} gradients; it must return {count}")
            return found

        return pull

    @staticmethod
    def _again(
        function: Callable[..., Any], arguments: Any, keywords: Any, structure: Any
    ) -> Callable[[list[Any]], list[Any]]:
        """The leaves of the value as a function of the variables alone."""

        def f(variables: list[Any]) -> list[Any]:
            left = iter(variables)
            paired = zipped((arguments, keywords), structure)
            filled = mapped(lambda pair: next(left) if isinstance(pair[0], Variable) else pair[1], paired)
            return leaves(parts(function(*filled[0], **filled[1]))[0])

        return f


def _variable(x: Any) -> Any:
    return Variable(x) if isinstance(x, numpy.ndarray) and x.dtype.kind == "f" else x


class _Pair(tuple[Any, Any]):
    """Two leaves in the same place."""


def zipped(a: Any, b: Any) -> Any:
    """The tree of the pairs of leaves; b has at least the structure of a."""
    if isinstance(a, dict):
        return {name: zipped(branch, b[name]) for name, branch in a.items()}
    if isinstance(a, list | tuple):
        branches = [zipped(x, y) for x, y in zip(a, b, strict=True)]
        return branches if isinstance(a, list) else tuple(branches)
    return _Pair((a, b))


def mapped(f: Callable[[Any], Any], tree: Any) -> Any:
    """The tree of dicts, lists and tuples with f at every leaf."""
    if isinstance(tree, _Pair):
        return f(tree)
    if isinstance(tree, dict):
        return {name: mapped(f, branch) for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        branches = [mapped(f, branch) for branch in tree]
        return branches if isinstance(tree, list) else tuple(branches)
    return f(tree)


def leaves(tree: Any) -> list[Any]:
    found = list[Any]()
    mapped(found.append, tree)
    return found


def parts(returned: Any) -> tuple[Any, Callable[..., Any] | None, dict[str, Any]]:
    """The value, its pullback if there is one, and the intermediate values. FaultError if there is no value."""
    with_taps = isinstance(returned, tuple) and len(returned) == 3 and isinstance(returned[2], dict)
    if (isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1])) or (
        with_taps and (returned[1] is None or callable(returned[1]))
    ):
        return (*returned, {})[:3]
    return returned, None, {}
