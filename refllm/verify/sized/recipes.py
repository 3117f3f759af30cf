"""What a recipe of a tensor must be, before anything is made of it."""

from __future__ import annotations

import math
from typing import Any

from refllm.verify.sized.profiles import BOOLEANS, INTEGERS, PROFILES
from refllm.verify.tensors import MalformedError

MOST = 1 << 27  # elements of a tensor
_AXES = 8
_LARGEST_INTEGER = 1 << 32
_NEEDS = {
    "constant": {"value"}, "integers": {"below"}, "listed": {"values"}, "bits": {"chance"}, "lengths": {"lengths"},
    "documents": {"borders"},
}  # fmt: skip
_MAY = {"integers": {"start", "instead"}, "count": {"start", "step", "modulus"}}


def shape_of(recipe: Any, where: str = "a tensor") -> tuple[int, ...]:
    """The shape that is said. MalformedError if it is none."""
    shape = recipe.get("shape") if isinstance(recipe, dict) else None
    if not isinstance(shape, list) or len(shape) > _AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise MalformedError(f"{where}: shape must be a list of at most {_AXES} sizes, is {shape!r:.60}")
    if math.prod(shape) > MOST:
        raise MalformedError(f"{where}: {math.prod(shape)} elements are more than the {MOST} that a case may have")
    return tuple(shape)


def require_recipe(recipe: Any, where: str, *, floats: bool) -> None:
    """MalformedError unless a tensor can be made of it, of floating-point numbers if `floats`."""
    shape = shape_of(recipe, where)
    profile = recipe.get("profile")
    if not isinstance(profile, str) or profile not in PROFILES:
        raise MalformedError(f"{where}: {profile!r:.40} is no profile; known are {', '.join(PROFILES)}")
    if floats and profile in (*INTEGERS, *BOOLEANS):
        raise MalformedError(f"{where}: {profile} makes no floating-point numbers")
    own = set(recipe) - {"profile", "shape"}
    may = _NEEDS.get(profile, set()) | _MAY.get(profile, set()) | ({"exponent"} if floats else set())
    if not _NEEDS.get(profile, set()) <= own <= may:
        raise MalformedError(f"{where}: {profile} needs {_listed(_NEEDS.get(profile))} and may have {_listed(may)}")
    for name in own - {"values", "lengths", "borders"}:
        if type(recipe[name]) is not int or abs(recipe[name]) >= _LARGEST_INTEGER:
            raise MalformedError(f"{where}: {name} must be a whole number below 2^32, is {recipe[name]!r:.40}")
    if recipe.get("below", 1) < 1 or recipe.get("modulus", 1) < 1 or abs(recipe.get("exponent", 0)) > 900:
        raise MalformedError(f"{where}: below and modulus must be above 0, exponent between -900 and 900")
    rows = math.prod(shape[:-1])
    for name, length in (("values", math.prod(shape)), ("lengths", rows), ("borders", None)):
        if name in own:
            _require_list(recipe[name], f"{where}: {name}", length)


def _require_list(numbers: Any, what: str, length: int | None) -> None:
    held = isinstance(numbers, list) and all(type(n) is int and abs(n) < _LARGEST_INTEGER for n in numbers)
    if not held or (length is not None and len(numbers) != length):
        many = "" if length is None else f"{length} "
        raise MalformedError(f"{what} must be a list of {many}whole numbers, is {numbers!r:.60}")


def _listed(names: set[str] | None) -> str:
    return ", ".join(sorted(names or ())) or "nothing more"
