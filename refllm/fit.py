"""Whether the arrays of a call fit what a `Shapes:` line declares, and the line that says how they do not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from refllm.backend import Array, is_array_class, known
from refllm.errors import KindError, UserError
from refllm.shapes import Declared, Dimension, ShapesError, dimension, written

Shape = tuple[int, ...]
Source = tuple[Declared, Shape]  # an argument and its shape


@dataclass
class Fit:
    """The arrays of one call against what is declared: the sizes that letters and whole-number arguments have."""

    operation: str
    inputs: tuple[Declared, ...]
    sizes: dict[str, int]
    sources: dict[str, Source] = field(default_factory=dict)  # where a letter, or `...`, has its size from
    leading: Shape | None = None
    floating: tuple[str, Any] | None = None

    def require(self, arrays: dict[str, Any]) -> None:
        """ValueError if shapes or dtypes disagree with the line, KindError for what is not an array."""
        for declared in self.inputs:
            x = arrays[declared.name]
            if x is None and declared.optional:
                continue
            for part in [x] if declared.count is None else self._several(declared, x):
                require_array(self.operation, declared.name, part)
                self._require_dtype(declared, part.dtype)
                self._require_shape(declared, part.shape)

    def _several(self, declared: Declared, x: Any) -> Any:
        count = str(declared.count)
        count = count if count.isdigit() else str(self.sizes.get(count, count))
        rows = isinstance(x, (list, tuple)) or (is_array_class(type(x)) and x.ndim > 0)  # the rows of one array, too
        if not rows or (count.isdigit() and len(x) != int(count)):
            got = len(x) if rows else type(x).__name__
            raise KindError(f"{self.operation}: {declared.name} must be {count} arrays; got {got}")
        return x

    def _require_dtype(self, declared: Declared, dtype: Any) -> None:
        name, kind = declared.name, dtype.kind
        if declared.kind == "float":
            if kind != "f":
                raise UserError(
                    f"{self.operation}: {name} must be floating-point, got {dtype}; convert it with .astype"
                )
            if dtype.itemsize > 8:  # bounds are formed with the numbers of Python, which are float64
                raise UserError(
                    f"{self.operation}: {name} must be float64 or narrower, got {dtype}; convert it with .astype"
                )
            self.floating = self.floating or (name, dtype)
            if dtype != self.floating[1]:
                raise UserError(
                    f"{self.operation}: {name} is {dtype} but {self.floating[0]} is {self.floating[1]}; "
                    "give both the same dtype"
                )
        elif declared.kind == "bool" and kind != "b":
            raise UserError(f"{self.operation}: {name} must be boolean, got {dtype}; convert it with .astype(bool)")
        elif declared.kind == "int" and kind not in "iu":
            raise UserError(f"{self.operation}: {name} must be integers, got {dtype}; convert it with .astype(int)")
        elif declared.kind == "real" and kind not in "iuf":
            raise UserError(f"{self.operation}: {name} must be real numbers, got {dtype}; convert it with .astype")

    def _require_shape(self, declared: Declared, shape: Shape) -> None:
        before = dict(self.sizes), self.leading
        fits = self._fits_whole(declared, shape) if declared.how else self._fits(declared, shape)
        if not fits:
            self.sizes, self.leading = before
            raise ValueError(self._mismatch(declared, shape))
        for letter in _letters(declared):
            self.sources.setdefault(letter, (declared, shape))

    def _fits(self, declared: Declared, shape: Shape) -> bool:
        letters = declared.letters
        split = len(shape) - len(letters)
        if split < 0 or (split and not declared.batched):
            return False
        if declared.batched:
            self.leading = shape[:split] if self.leading is None else self.leading
            if shape[:split] != self.leading:
                return False
        return all(self._binds(d, size) for d, size in zip(letters, shape[split:], strict=True))

    def _fits_whole(self, declared: Declared, shape: Shape) -> bool:
        """Whether the shape broadcasts to the declared one, or is its end. A size that nothing has said is any."""
        leading = self.leading if declared.batched and self.leading is not None else ()
        whole = (*leading, *[self._value(d) for d in declared.letters])
        end = whole[len(whole) - len(shape) :]
        if len(shape) > len(whole):
            return False
        few = () if declared.how == "end of" else (1,)
        return all(m is None or n in (m, *few) for n, m in zip(shape, end, strict=True))

    def _value(self, dimension: Dimension) -> int | None:
        """The size of a dimension whose letters are all known."""
        total = 0
        for sign, factors in dimension.terms:
            product = self._product(factors)
            if product is None:
                return None
            total += sign * product
        return max(0, total)

    def _product(self, factors: tuple[str, ...]) -> int | None:
        product = 1
        for factor in factors:
            size = int(factor) if factor.isdigit() else self.sizes.get(factor)
            if size is None:
                return None
            product *= size
        return product

    def _binds(self, dimension: Dimension, size: int) -> bool:
        """Whether the dimension can have that size; its one unknown letter, if it has one, then stands for a size."""
        value = self._value(dimension)
        if value is not None:
            return value == size
        rest, unknown = size, None
        for sign, factors in dimension.terms:
            product = self._product(factors)
            if product is not None:
                rest -= sign * product
            else:
                unknown = factors
        letters = [f for f in unknown or () if not f.isdigit() and f not in self.sizes]
        times = self._product(tuple(f for f in unknown or () if f not in letters))
        if len(letters) != 1 or times is None:
            raise ShapesError(f"{self.operation}: `Shapes:` leaves two sizes of {dimension.text} open")
        if times < 1:
            return rest == 0
        if rest < 0 or rest % times:
            return False
        self.sizes[letters[0]] = rest // times
        return True

    def _mismatch(self, declared: Declared, shape: Shape) -> str:
        verb = {"": "must be", "broadcast to": "must broadcast to", "end of": "must be the end of"}[declared.how]
        line = f"{self.operation}: {declared.name} {verb} {written(declared.dimensions)}"
        sources = [self.sources[letter] for letter in _letters(declared) if letter in self.sources]
        others = dict.fromkeys(f"{d.name} {written(d.dimensions)} = {size}" for d, size in sources)
        if others:
            line += f" = {self._wanted(declared)} to match {' and '.join(others)}"
        return f"{line}; got {shape}"

    def _wanted(self, declared: Declared) -> str:
        wanted: list[str] = []
        for d in declared.dimensions:
            if d == "...":
                wanted += ["..."] if self.leading is None else [str(n) for n in self.leading]
                continue
            value = self._value(dimension(d))
            known_parts = re.sub(r"[A-Za-z_]\w*", lambda m: str(self.sizes.get(m[0], m[0])), d)
            wanted.append(known_parts if value is None else str(value))
        return written(wanted)


def _letters(declared: Declared) -> list[str]:
    """The letters of a declaration, and `...`."""
    return re.findall(r"[^\W\d]\w*|\.\.\.", " ".join(declared.dimensions))


def require_array(operation: str, name: str, x: Any) -> None:
    """KindError unless `x` is an array of NumPy or CuPy that an operation can take as it is."""
    if is_array_class(type(x)):
        return
    if hasattr(x, "filled"):
        raise KindError(
            f"{operation}: {name} is a masked array, whose mask would be lost; give {name}.filled(...) and say what "
            "does not count by an argument that is a mask"
        )
    raise KindError(
        f"{operation}: {name} must be a NumPy or CuPy array, got {type(x).__name__}; convert it first (with asarray)"
    )


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
