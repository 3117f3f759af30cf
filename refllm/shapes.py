"""The shapes and dtypes that an operation accepts, written as in its docstring and checked at its door."""

from __future__ import annotations

import re
from functools import lru_cache

from refllm.backend import Array, known

Dimensions = tuple[str, ...]


@lru_cache(maxsize=256)
def parse(spec: str) -> tuple[tuple[str, Dimensions], ...]:
    """`"x (..., C); g (C,)"` as `(("x", ("...", "C")), ("g", ("C",)))`."""
    arguments = []
    for part in spec.split(";"):
        match = re.fullmatch(r"\s*(\w+)\s*\(([^()]*)\)\s*", part)
        if match is None:
            raise ValueError(f"not a shape specification: {part!r}")
        arguments.append((match[1], tuple(d.strip() for d in match[2].split(",") if d.strip())))
    return tuple(arguments)


def require(operation: str, spec: str, *arrays: Array) -> dict[str, int]:
    """The sizes that `arrays` give to the letters of `spec`; ValueError if two disagree, or two float dtypes do."""
    sizes: dict[str, int] = {}
    leading: tuple[int, ...] | None = None
    arguments = parse(spec)
    floating: tuple[str, Array] | None = None
    for (name, dimensions), x in zip(arguments, arrays, strict=True):
        batched = dimensions[:1] == ("...",)
        letters = dimensions[1:] if batched else dimensions
        split = x.ndim - len(letters)
        fits = split >= 0 if batched else split == 0
        if fits and batched:
            leading = x.shape[:split] if leading is None else leading
            fits = x.shape[:split] == leading
        if not fits or any(sizes.setdefault(d, n) != n for d, n in zip(letters, x.shape[split:], strict=True)):
            raise ValueError(_mismatch(operation, arguments, arrays, name, dimensions, sizes, leading))
        if x.dtype.kind == "f":
            if floating is not None and x.dtype != floating[1].dtype:
                other, kind = floating[0], floating[1].dtype
                raise ValueError(f"{operation}: {name} is {x.dtype} but {other} is {kind}; give both the same dtype")
            floating = (name, x)
    return sizes


def require_floating(operation: str, **arrays: Array) -> None:
    """ValueError for an array that holds no floating-point numbers."""
    for name, x in arrays.items():
        if x.dtype.kind != "f":
            raise ValueError(f"{operation}: {name} must be floating-point, got {x.dtype}; convert it with .astype")


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
    arguments: tuple[tuple[str, Dimensions], ...],
    arrays: tuple[Array, ...],
    name: str,
    dimensions: Dimensions,
    sizes: dict[str, int],
    leading: tuple[int, ...] | None,
) -> str:
    wanted: list[str] = []
    for d in dimensions:
        if d == "...":
            wanted += ["..."] if leading is None else [str(n) for n in leading]
        else:
            wanted.append(str(sizes[d]) if d in sizes else d)
    got = next(x.shape for (n, _), x in zip(arguments, arrays, strict=True) if n == name)
    first, first_dimensions = arguments[0]
    line = f"{operation}: {name} must be {_tuple(dimensions)}"
    if name != first:
        line += f" = {_tuple(wanted)} to match {first} {_tuple(first_dimensions)} = {arrays[0].shape}"
    return f"{line}; got {got}"


def _tuple(parts: list[str] | Dimensions) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
