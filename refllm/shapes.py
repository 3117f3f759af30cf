"""The shapes and dtypes that an operation accepts, written as in its docstring and checked at its door."""

from __future__ import annotations

import re
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from refllm.backend import Array, known

Dimensions = tuple[str, ...]


class Argument(NamedTuple):
    name: str
    dimensions: Dimensions  # as written, `...` included
    batched: bool  # begins with `...`: any leading axes, the same for every such argument
    letters: Dimensions


@lru_cache(maxsize=256)
def parse(spec: str) -> tuple[Argument, ...]:
    """`"x (..., C); g (C,)"` as the arguments x and g."""
    arguments = []
    for part in spec.split(";"):
        match = re.fullmatch(r"\s*(\w+)\s*\(([^()]*)\)\s*", part)
        if match is None:
            raise ValueError(f"not a shape specification: {part!r}")
        dimensions = tuple(d.strip() for d in match[2].split(",") if d.strip())
        batched = dimensions[:1] == ("...",)
        arguments.append(Argument(match[1], dimensions, batched, dimensions[1:] if batched else dimensions))
    return tuple(arguments)


def require(operation: str, spec: str, *arrays: Array) -> dict[str, int]:
    """The sizes that `arrays` give to the letters of `spec`.

    Raises: ValueError if two disagree, or two float dtypes do, and for numbers that are not floating-point, except
            where the name is one of indices or masks; TypeError for what is no array.
    """
    try:
        found = [*map(_shape_and_dtype, arrays)]
    except AttributeError:
        name, x = next((a.name, x) for a, x in zip(parse(spec), arrays, strict=True) if not hasattr(x, "dtype"))
        raise TypeError(
            f"{operation}: {name} must be a NumPy or CuPy array, got {type(x).__name__}; convert it first "
            "(with asarray)"
        ) from None
    return _sizes(operation, spec, *found)


_shape_and_dtype = attrgetter("shape", "dtype")
_DISCRETE = ("ids", "targets", "chosen", "slots", "keep", "valid")  # what may hold integers or booleans


@lru_cache(maxsize=4096)  # a model asks the same again at every step; an error is not kept
def _sizes(operation: str, spec: str, *arrays: tuple[tuple[int, ...], Any]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    leading: tuple[int, ...] | None = None
    floating = None
    for argument, (shape, dtype) in zip(parse(spec), arrays, strict=True):
        _, _, batched, letters = argument
        split = len(shape) - len(letters)
        fits = split == 0 or (batched and split > 0)
        if fits and batched:
            leading = shape[:split] if leading is None else leading
            fits = shape[:split] == leading
        if fits:
            for letter, size in zip(letters, shape[split:], strict=True):
                fits = fits and sizes.setdefault(letter, size) == size
        if not fits:
            raise ValueError(_mismatch(operation, parse(spec), [s for s, _ in arrays], argument, sizes, leading))
        if dtype.kind == "f":
            floating = floating or (argument.name, dtype)
            if dtype != floating[1]:
                raise ValueError(
                    f"{operation}: {argument.name} is {dtype} but {floating[0]} is {floating[1]}; "
                    "give both the same dtype"
                )
        elif argument.name not in _DISCRETE:
            raise ValueError(_not_floating(operation, argument.name, dtype))
    return sizes


def require_floating(operation: str, **arrays: Array) -> None:
    """ValueError for an array that holds no floating-point numbers."""
    for name, x in arrays.items():
        if x.dtype.kind != "f":
            raise ValueError(_not_floating(operation, name, x.dtype))


def _not_floating(operation: str, name: str, dtype: Any) -> str:
    return f"{operation}: {name} must be floating-point, got {dtype}; convert it with .astype"


def require_indices(operation: str, **indices: tuple[Array, int]) -> None:
    """Each `name=(index, size)` must hold integers in [0, size): ValueError or IndexError otherwise.

    NumPy would take -1 for the last row. On a device only the dtype is checked: the values would have to be waited for.
    """
    for name, (index, size) in indices.items():
        if index.dtype.kind not in "iu":
            raise ValueError(f"{operation}: {name} must be integers, got {index.dtype}")
        outside = (index < 0) | (index >= size)
        if known(outside.any()):
            raise IndexError(f"{operation}: {name} must be in [0, {size}); got {index[outside].flat[0]}")


def _mismatch(
    operation: str,
    arguments: tuple[Argument, ...],
    shapes: list[tuple[int, ...]],
    argument: Argument,
    sizes: dict[str, int],
    leading: tuple[int, ...] | None,
) -> str:
    wanted: list[str] = []
    for d in argument.dimensions:
        if d == "...":
            wanted += ["..."] if leading is None else [str(n) for n in leading]
        else:
            wanted.append(str(sizes[d]) if d in sizes else d)
    got = shapes[arguments.index(argument)]
    first = arguments[0]
    line = f"{operation}: {argument.name} must be {_tuple(argument.dimensions)}"
    if argument is not first:
        line += f" = {_tuple(wanted)} to match {first.name} {_tuple(first.dimensions)} = {shapes[0]}"
    return f"{line}; got {got}"


def _tuple(parts: list[str] | Dimensions) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
