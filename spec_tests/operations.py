"""Finds every operation of refllm, reads what it declares, and draws arguments for it.

There is no list of operations. A public function defined in a module of `refllm.ops` is one; its signature and the
`Shapes:` line of its docstring say which arrays it takes and returns:

    Shapes:  x (..., I); W (I, parts*heads*D); ids (...) in [0, V); dropout_mask bool (...) -> y[parts] (..., heads, T,
             D)

refllm itself reads the line, and checks it at every call (refllm/shapes.py has the grammar). Positional parameters are
the differentiable arrays, in that order. Keyword-only parameters have no default; their values come from `KEYWORDS` by
name, and an integer one may be a size in a shape. `y[n]` is a tuple of n arrays, and `y () or, for "none", (...)` has
the second shape when a keyword has that value.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy
from hypothesis import strategies as st

import refllm.ops
from refllm.shapes import Declared, ShapesError, parse, sections

# Of refllm.optim: parts of `clip_factor`, which ranks call with what it has been given.
PARTS_OF_CLIPPING = {"factor_of_parts", "square", "largest"}

Shape = tuple[int, ...]

# No mean of nothing: the one refusal of an empty batch, which the operation's own test demands.
NEEDS_AN_ELEMENT = {"mean_squared_error"}


class UndeclaredError(ValueError):
    """An operation that does not say what the tests must know. The message says what to add."""


@dataclass(frozen=True, repr=False)
class Operation:
    """What a function of `refllm.ops` declares about itself."""

    name: str
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    positional: tuple[str, ...]
    keywords: tuple[str, ...]

    def __repr__(self) -> str:
        return self.name

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """Hypothesis writes the name into a falsifying example, not every field."""
        printer.text(self.name)

    @property
    def returns_a_tuple(self) -> bool:
        return len(self.outputs) > 1 or self.outputs[0].count is not None


def operation_functions() -> list[Callable[..., Any]]:
    """Every public function defined in a module of refllm.ops."""
    found: list[Callable[..., Any]] = []
    for _, name, _ in pkgutil.walk_packages(refllm.ops.__path__, "refllm.ops."):
        module = importlib.import_module(name)
        for function_name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == name and not function_name.startswith("_"):
                found.append(function)
    return found


def declared(function: Callable[..., Any]) -> Operation:
    """The declaration of an operation; UndeclaredError with the remedy if it is incomplete."""
    name = function.__name__
    parts = sections(function.__doc__ or "")
    for section in ("Source", "Shapes", "Back"):
        if not parts.get(section):
            raise UndeclaredError(f"{name}: the docstring has no `{section}:` section; add one")
    try:
        inputs, outputs = parse(name, parts["Shapes"])
    except ShapesError as error:
        raise UndeclaredError(str(error)) from error

    parameters = inspect.signature(function).parameters.values()
    for p in parameters:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise UndeclaredError(f"{name}: parameter *{p.name} hides what is passed; name every argument")
        if p.default is not p.empty:
            raise UndeclaredError(f"{name}: parameter {p.name} has a default; every argument is said, remove it")
    positional = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
    keywords = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    floating = tuple(a.name for a in inputs if a.kind == "float")
    if not positional or positional != floating:
        raise UndeclaredError(
            f"{name}: positional parameters are the differentiable arrays, in the order of `Shapes:`; "
            f"got {positional} and {floating}. Make the others keyword-only, or add them to `Shapes:`"
        )
    arrays = {a.name for a in inputs}
    if strangers := arrays - set(positional) - set(keywords):
        raise UndeclaredError(f"{name}: `Shapes:` names {', '.join(sorted(strangers))}, which is no parameter")
    for keyword in keywords:
        if keyword not in arrays and keyword not in KEYWORDS:
            raise UndeclaredError(
                f"{name}: no values are known for keyword {keyword}; add a strategy to KEYWORDS in {__name__}"
            )
    return Operation(name, inputs, outputs, positional, keywords)


@dataclass(frozen=True)
class Case:
    """Arguments for one call of an operation, and the shapes that its values must have."""

    operation: Operation
    arrays: tuple[Any, ...]
    keywords: dict[str, Any]
    shapes: tuple[Shape, ...]
    seed: int

    @property
    def dtype(self) -> Any:
        return self.arrays[0].dtype

    def cotangents(self, number: int = 0) -> tuple[Any, ...]:
        """Random gradients of the values; another number gives others."""
        random = numpy.random.default_rng([self.seed, number])
        return tuple(numpy.asarray(random.standard_normal(shape), self.dtype) for shape in self.shapes)

    def with_arrays(self, arrays: tuple[Any, ...]) -> Case:
        return Case(self.operation, arrays, self.keywords, self.shapes, self.seed)


# A strategy takes longer to make than to draw from, so each is made once.


@cache
def _one_of(count: int) -> st.SearchStrategy[int]:
    return st.sampled_from(range(count))


@cache
def _leading(axes: tuple[int, ...], most: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.sampled_from(axes), max_size=most)


_SEEDS = st.integers(0, 2**32 - 1)


@dataclass
class Draw:
    """One case in the making: sizes and keywords are drawn when first asked for, and then stay."""

    draw: Callable[[Any], Any]
    operation: Operation
    leading: Shape
    letters: tuple[int, ...]
    random: numpy.random.Generator
    sizes: dict[str, int] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def choose(self, *options: Any) -> Any:
        return options[self.draw(_one_of(len(options)))]

    def size(self, name: str) -> int:
        if name in self.operation.keywords:
            return int(self.keyword(name))
        if name not in self.sizes:
            self.sizes[name] = self.choose(*self.letters)
        return self.sizes[name]

    def shape(self, dimensions: tuple[str, ...]) -> Shape:
        shape: list[int] = []
        for d in dimensions:
            shape += self.leading if d == "..." else [self.dimension(d)]
        return tuple(shape)

    def dimension(self, text: str) -> int:
        """`T+S-1` or `2*I` as a number."""
        total = 0
        for sign, term in re.findall(r"([+-]?)([^+-]+)", text):
            product = math.prod(int(f) if f.isdigit() else self.size(f) for f in term.split("*"))
            total += -product if sign == "-" else product
        return total

    def keyword(self, name: str) -> Any:
        if name not in self.values:
            self.values[name] = KEYWORDS[name](self) if name in KEYWORDS else self.array(name)
        return self.values[name]

    def array(self, name: str) -> Any:
        """A boolean or integer array as `Shapes:` declares it."""
        array = next(a for a in self.operation.inputs if a.name == name)
        shape = self.shape(array.dimensions)
        if array.bound is None:
            return numpy.asarray(self.random.random(shape) < 0.6)
        return self.indices(shape, array.bound)

    def indices(self, shape: Shape, bound: str) -> Any:
        return numpy.asarray(self.random.integers(0, self.dimension(bound), shape), self.choose("int64", "int32"))

    def output_shapes(self) -> Iterator[Shape]:
        for array in self.operation.outputs:
            dimensions = array.dimensions
            if array.other and any(isinstance(v, str) and v == array.other[0] for v in self.values.values()):
                dimensions = array.other[1]
            for _ in range(self.size(array.count) if array.count else 1):
                yield self.shape(dimensions)


def _causal(d: Draw) -> bool:
    return d.choose(True, False) if d.size("S") >= d.size("T") else False


def _attention_mask(d: Draw) -> Any:
    full = (*d.shape(d.operation.inputs[0].dimensions[:-1]), d.size("S"))  # of q (..., T, D), and of (..., H, T, D)
    shape = d.choose(None, full, full[-2:], (1, full[-1]), (full[-2], 1))
    return None if shape is None else numpy.asarray(d.random.random(shape) < 0.6)


def _targets(d: Draw) -> Any:
    targets, ignore = d.indices(d.leading, "V"), d.keyword("ignore")
    return targets if ignore is None else numpy.where(d.random.random(d.leading) < 0.3, ignore, targets)


def _positions(d: Draw) -> Any:
    full = d.shape(d.operation.inputs[0].dimensions[:-1])
    axes = d.choose(*range(len(full) + 1))
    return d.indices(full[len(full) - axes :], "S")


def _token_mask(d: Draw) -> Any:
    return d.choose(None, d.array("token_mask"))


KEYWORDS: dict[str, Callable[[Draw], Any]] = {
    "attention_mask": _attention_mask,
    "base": lambda d: d.choose(10000.0, 500.0),
    "cap": lambda d: d.choose(50.0, 1.0, 0.3),
    "capacity": lambda d: d.choose(1, 2, 3),
    "causal": _causal,
    "eps": lambda d: d.choose(1e-5, 1e-3, 0.1),
    "experts": lambda d: d.choose(1, 2, 4),
    "farthest": lambda d: d.choose(6, 9),
    "groups": lambda d: d.choose(1, 2, 3),
    "heads": lambda d: d.choose(1, 2, 3),
    "ignore": lambda d: d.choose(None, -100, 0),
    "keys": lambda d: d.choose(1, 2, 5, 8),
    "parts": lambda d: d.choose(3, 1, 2),
    "places": lambda d: d.choose(1, 2, 3, 6),
    "positions": _positions,
    "queries": lambda d: d.choose(1, 2, 5, 8),
    "rate": lambda d: d.choose(0.0, 0.1, 0.5),
    "reduction": lambda d: d.choose("mean", "sum", "none"),
    "strength": lambda d: d.choose(0.0, 0.1, 3.0),
    "smoothing": lambda d: d.choose(0.0, 0.1, 0.5),
    "targets": _targets,
    "temperature": lambda d: d.choose(1.0, 0.5, 0.2),
    "token_mask": _token_mask,
    "width": lambda d: d.choose(1, 2, 3, 6),
}


@st.composite
def cases(
    draw: Callable[[Any], Any],
    operation: Operation,
    *,
    dtypes: tuple[str, ...] = ("float64", "float32"),
    letters: tuple[int, ...] = (1, 2, 3, 5),
    axes: tuple[int, ...] = (1, 2, 3, 0),
    most_axes: int = 3,
    magnitudes: tuple[float, ...] = (1, 30),
) -> Case:
    """Cases of an operation: one-element, odd and even sizes, no, one or several leading axes, empty ones too.

    Numbers are normal with 0.1 added to their size: away from 0, where relu has a kink.
    """
    if operation.name in NEEDS_AN_ELEMENT:
        axes = tuple(n for n in axes if n > 0)
    leading = tuple(draw(_leading(axes, most_axes)))
    seed = draw(_SEEDS)
    d = Draw(draw, operation, leading, letters, numpy.random.default_rng(seed))
    dtype = d.choose(*dtypes)
    keywords = {name: d.keyword(name) for name in operation.keywords}
    arrays = []
    for array in operation.inputs:
        if array.name in operation.positional:
            z = numpy.asarray(d.random.standard_normal(d.shape(array.dimensions)))
            z = (z + numpy.copysign(0.1, z)) * d.choose(*magnitudes)  # a scalar if 0-d
            arrays.append(numpy.asarray(z, dtype))
    return Case(operation, tuple(arrays), keywords, tuple(d.output_shapes()), seed)
