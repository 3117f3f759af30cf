"""What edited text may say that the text itself never does."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from refllm.backend import Array
from refllm.spec import array
from refllm.spec.tree import plus
from refllm.verify import addresses, arranged, numbered, parts, reduced, stored, sums, whole
from refllm.verify.bounded import power, tick, turn


def columns(f: Callable[..., Any]) -> Callable[..., Any]:
    """An operation of the text on the transposed matrix: what is said of rows holds for columns, and of columns for
    rows."""
    f = OPERATIONS.get(f.__name__, f)

    def along_columns(x: Array, **keywords: Any) -> Any:
        if len(x.shape) == 1:
            return f(x, **keywords)
        found = f(array.swap(x), **keywords)
        if not (isinstance(found, tuple) and callable(found[1])):
            values = found if isinstance(found, tuple) else (found,)
            turned = tuple(array.swap(y) if len(y.shape) > 1 else y for y in values)
            return turned if isinstance(found, tuple) else turned[0]
        y, back = found
        return array.swap(y), lambda dy: array.swap(back(array.swap(dy)))

    return along_columns


def down(f: Callable[[Array], Array], x: Array) -> Array:
    """A function of the columns instead of the rows; a vector is one row."""
    return f(x) if x.ndim < 2 else array.swap(f(array.swap(x)))


def right(f: Callable[..., Any]) -> Callable[..., Any]:
    """The operation as the text has it, for an edit that calls what it is an edit of."""
    return OPERATIONS[f.__name__]


def erf(x: Array) -> Array:
    """The error function with the digits that a float has beside 1."""
    return array.where(x < 0, array.erfc(-x) - 1, 1 - array.erfc(x))


def second_best(p: Array, chosen: Array) -> Array:
    """The place of the largest entry of every row but for the chosen one."""
    values = getattr(p, "value", p)
    return numpy.where(array.one_hot(chosen, p.shape[-1]), -numpy.inf, values).argmax(axis=-1)


def narrow(x: Array, dtype: str) -> Array:
    """x in another dtype, in which what is made of it is computed."""
    return array.like(x, numpy.zeros(0, dtype))


def narrow_angles(positions: Array, D: int, base: float, dtype: str) -> Array:
    """The angles of rotary positions, computed in a narrow type."""
    frequencies = (base ** (-numpy.arange(0, D, 2) / D)).astype(dtype)
    return (positions.astype(dtype)[..., None] * frequencies).astype("float64")


def bucket_by(whole: Callable[[float], int], n: int, K: int, farthest: int, near: int | None = None) -> int:
    """T5's bucket of a distance by logarithms in floats, which `whole` cuts to whole numbers. They are raised by a
    hair, so that a border is reached on it."""
    near = K // 2 if near is None else near
    if n < near:
        return n
    steps = math.log(max(n, 1) / max(near, 1)) / math.log(farthest / max(near, 1)) * (K - near)
    return min(near + int(whole(steps + 1e-9)), K - 1)


def highest(x: Array) -> Array:
    """The largest number of all rows, where that of each is meant."""
    largest = array.top(array.flat(x).reshape(1, -1))
    return largest.reshape(*[1 for _ in x.shape])


def rounded(x: Array, dtype: str) -> Array:
    """x as it is after it was stored in a type of lower precision; the gradient passes."""
    values = getattr(x, "value", x)
    with numpy.errstate(invalid="ignore"):
        change = _stored(values, dtype) - values
    return x + numpy.where(numpy.isfinite(values), change, 0)


def _stored(x: Array, dtype: str) -> Array:
    if dtype == "tf32":
        return to_tf32(x)
    return to_bfloat16(x) if dtype == "bfloat16" else x.astype(dtype).astype(x.dtype)


def to_tf32(x: Array) -> Array:
    """The number without what is behind its 11 significant bits, as hardware cuts it."""
    bits = numpy.asarray(x, numpy.float32).view(numpy.uint32) & numpy.uint32(0xFFFFE000)
    return bits.view(numpy.float32).astype(x.dtype).reshape(numpy.shape(x))


def to_bfloat16(x: Array) -> Array:
    """The nearest number of 8 significant bits, ties to even."""
    bits = numpy.asarray(x, numpy.float32).view(numpy.uint32).astype(numpy.uint64)
    near = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(numpy.uint32).view(numpy.float32)
    return near.astype(x.dtype).reshape(numpy.shape(x))


def narrow_sum(x: Array, dtype: str) -> Array:
    """The sum of every row, one number after the other in an accumulator of a narrow type; the gradient is a sum's."""
    values = getattr(x, "value", x)
    accumulated = numpy.zeros((*values.shape[:-1], 1), values.dtype)
    for i in range(values.shape[-1]):
        accumulated = _stored(accumulated + values[..., i : i + 1], dtype)
    right = array.sum(x)
    return right + (accumulated - getattr(right, "value", right))


def narrow_mean(x: Array, dtype: str) -> Array:
    return narrow_sum(x, dtype) / x.shape[-1]


def narrow_matmul(a: Array, b: Array, dtype: str) -> Array:
    """A product of matrices with an accumulator of a narrow type; the gradient is that of the product."""
    right, (x, y) = a @ b, (getattr(z, "value", z) for z in (a, b))
    accumulated = numpy.zeros(right.shape, x.dtype)
    for i in range(x.shape[-1]):
        accumulated = _stored(accumulated + x[..., i : i + 1] * y[..., i : i + 1, :], dtype)
    return right + (accumulated - getattr(right, "value", right))


def reshaped(x: Array, a: int, b: int) -> Array:
    """The numbers in their order under the shape that x has with two axes exchanged: a view for a transpose."""
    shape = list(x.shape)
    shape[a], shape[b] = shape[b], shape[a]
    return x.reshape(*shape)


def rolled(x: Any, places: int, axis: int = -1) -> Any:
    """x moved along an axis, what leaves it at one end entering at the other."""
    return x if x is None else numpy.roll(x, places, axis)


def displaced(x: Any, places: int) -> Any:
    """x moved along its last axis, zeros or false entering."""
    if x is None:
        return None
    moved = numpy.roll(x, places, -1)
    moved[..., slice(None, places) if places > 0 else slice(places, None)] = 0
    return moved


_sums: list[Any] = []
_states: dict[str, Array] = {}  # what the recurrence before this one left
_name: list[str] = []  # of the tensor that `each_named` is at


def begin() -> None:
    """Nothing is left of an earlier evaluation."""
    _sums.clear()
    _states.clear()
    _name.clear()
    numbered.begin()


def nothing(tree: Any) -> Any:
    """Zeros in the place of every number."""
    if isinstance(tree, dict):
        return {name: nothing(x) for name, x in tree.items()}
    return [nothing(x) for x in tree] if isinstance(tree, list) else 0 * tree


_NONE = object()


def of_call(function: str, argument: str, otherwise: Any = _NONE) -> Any:
    """What an argument is in the call of this function that is being made."""
    frame = sys._getframe(1)
    while frame is not None and not (frame.f_code.co_name == function and argument in frame.f_locals):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None and otherwise is _NONE:
        raise LookupError(f"{function} is not called")
    return otherwise if frame is None else frame.f_locals[argument]


def taken(p: Any, path: str, other: str) -> Any:
    """The parameters with those of one place in the place of others; a star is every layer."""
    names, origin = path.split("."), other.split(".")
    places = range(len(_at(p, names[: names.index("*")]))) if "*" in names else (0,)
    for n in places:
        here, there = ([str(n) if name == "*" else name for name in parts] for parts in (names, origin))
        p = _with(p, here, _at(p, there))
    return p


def _at(tree: Any, names: list[str]) -> Any:
    for name in names:
        tree = tree[int(name)] if isinstance(tree, list) else tree[name]
    return tree


def _with(tree: Any, names: list[str], branch: Any) -> Any:
    """The same tree with another branch at this place."""
    if not names:
        return branch
    if isinstance(tree, list):
        return [_with(x, names[1:], branch) if str(n) == names[0] else x for n, x in enumerate(tree)]
    return {name: _with(x, names[1:], branch) if name == names[0] else x for name, x in tree.items()}


def each_named(f: Callable[..., Any], x: Any, *others: Any) -> Any:
    """As each; the function may ask how the tensor is named."""
    if not isinstance(x, dict | list):
        return f(x, *others)
    found = {}
    for name in x if isinstance(x, dict) else range(len(x)):
        _name.append(str(name))
        found[name] = each_named(f, x[name], *(other[name] for other in others))
        _name.pop()
    return found if isinstance(x, dict) else list(found.values())


def named(*names: str) -> bool:
    """Whether a part of the tensor's name is one of these, or begins with one that ends in a star."""
    return any(part == name or (name.endswith("*") and part.startswith(name[:-1])) for part in _name for name in names)


def carried(f: Callable[..., Any]) -> Callable[..., Any]:
    """A recurrence that begins with the last state of the one before it."""
    names = list(inspect.signature(f).parameters)

    def carried_on(*arguments: Any, **keywords: Any) -> Any:
        given = list(arguments)
        for name, state in _states.items():
            place = names.index(name) if name in names else None
            if place is not None and given[place].shape == state.shape:
                given[place] = state
        y, back = f(*given, **keywords)
        states, cells = y if isinstance(y, tuple) else (y, None)
        if states.shape[1]:
            _states["h"] = states[:, -1]
        if cells is not None:
            _states["c"] = cells
        return y, back

    return carried_on


def carried_apart(f: Callable[..., Any]) -> Callable[..., Any]:
    """A recurrence that begins with the last state of the one before it, to which no gradient goes back."""

    def carried_on(*arguments: Any, **keywords: Any) -> Any:
        _states.update({name: array.constant(x) for name, x in _states.items()})
        return carried(f)(*arguments, **keywords)

    carried_on.__name__ = f.__name__
    return carried_on


def accumulated(g: Any) -> Any:
    """The sum of this tree and of those before it in the same evaluation: gradients that nobody sets to zero."""
    _sums[:] = [plus(_sums[0], g) if _sums else g]
    return _sums[0]


OPERATIONS = parts.OPERATIONS
WORDS: dict[str, Any] = {
    **{name: value for name, value in vars(array).items() if not name.startswith("_")},
    **addresses.WORDS,
    **parts.WORDS,
    **stored.WORDS,
    **sums.WORDS,
    **whole.WORDS,
    **arranged.WORDS,
    **numbered.WORDS,
    **reduced.WORDS,
    "_power": power,
    "_tick": tick,
    "_turn": turn,
    "accumulated": accumulated,
    "bucket_by": bucket_by,
    "carried": carried,
    "carried_apart": carried_apart,
    "columns": columns,
    "displaced": displaced,
    "down": down,
    "each_named": each_named,
    "erf": erf,
    "float32": numpy.float32,
    "highest": highest,
    "math": math,
    "named": named,
    "narrow": narrow,
    "narrow_angles": narrow_angles,
    "narrow_matmul": narrow_matmul,
    "narrow_mean": narrow_mean,
    "narrow_sum": narrow_sum,
    "reshaped": reshaped,
    "rolled": rolled,
    "nothing": nothing,
    "of_call": of_call,
    "right": right,
    "rounded": rounded,
    "taken": taken,
    "second_best": second_best,
}


CALLED = r"\b[a-z_]+(?=\()"  # the words that are called


def explained(lines: Sequence[str]) -> list[str]:
    """What these lines say that no line of the text does, each word with what it means."""
    new, old = (set(re.findall(CALLED, " ".join(x for x in lines if x.startswith(sign)))) for sign in "+-")
    there = new - old
    own_modules = (addresses, arranged, numbered, parts, reduced, stored, sums, whole)
    places = {__name__, *(each.__name__ for each in own_modules)}
    own = {name: f for name, f in WORDS.items() if getattr(f, "__module__", "") in places}
    meant = {name: " ".join(f.__doc__.split(".")[0].split()) for name, f in own.items() if f.__doc__}
    return [f"{name}: {meaning}" for name, meaning in meant.items() if name in there]
