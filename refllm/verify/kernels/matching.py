"""Whether a wrong answer is that of a mistake, tensor by tensor.

equal       every element is that of the mistake, within the spread of a right one
partly      every wrong element is that of the mistake, and the others are right: it is made on one path alone
unwritten   as equal, where the mistake leaves memory unwritten and the answer looks like it
roundings   the mistake loses digits, and the errors are its errors, element by element
digits      the mistake only loses digits, and the errors are of the size that it predicts, in groups of elements
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy

from refllm.backend import Array
from refllm.numbers.plans import Plan
from refllm.verify.case import Response
from refllm.verify.kernels.machine import is_unwritten
from refllm.verify.sized import judge
from refllm.verify.sized.evaluate import Expected
from refllm.verify.tolerance import UNIT

Tensors = dict[str, Array]
DIGITS = 64.0  # roundings of an element that may differ between two implementations of one mistake
ROUGH = 8.0  # times what a mistake loses in float32 that an answer may lose
LOSS = 0.1  # the share of the truth that errors may be which are lost digits
FACTOR = 4.0  # how far apart the errors of two that lose the same digits may be
SOME = 256  # places of which is asked whether it may be a mistake
GROUPS = 8  # of elements by the size of the predicted error, in each of which that is looked at
CLEAR = 8.0  # times what is allowed that a mistake's answer must be off, so that being equal to it says something
NEAR = 0.2  # the share of a mistake's own error that an answer may be off for its float32 to be looked at
FEWEST = 8  # elements that must be written, and be the mistake's, for the others to be called unwritten
LEAST = 32  # elements of which the errors together say something
SAME, MOSTLY = 0.5, 0.75  # the share of an error that may be another, and of the elements of which that must hold
LONG, UNLIKE = 8, 0.5  # the length of a row whose errors are compared, and by how much what they share may differ
WAYS = ("equal", "partly", "unwritten", "roundings", "digits", "nothing")


@dataclass(frozen=True)
class Given:
    """An answer, and the truth of each of its tensors."""

    tensors: Tensors
    truth: Callable[[str], Expected]
    dtype: str
    plan: Plan
    _wrong: Tensors = field(default_factory=dict)
    _places: Tensors = field(default_factory=dict)

    def wrong(self, name: str, x: Array | None = None) -> Array:
        if x is None:
            if name not in self._wrong:
                self._wrong[name] = self.wrong(name, self.tensors[name])
            return self._wrong[name]
        return judge.deviations(x, self.truth(name), self.dtype, self.plan) > 1

    def places(self, name: str) -> Array:
        """Some places of a tensor, of those that are wrong if there are any."""
        if name not in self._places:
            off = self.wrong(name)
            there = numpy.flatnonzero(off) if off.any() else numpy.arange(off.size)
            self._places[name] = there[numpy.unique(numpy.linspace(0, max(len(there) - 1, 0), SOME, dtype=int))][:SOME]
        return self._places[name]


def tensors(response: Response) -> Tensors:
    found = {f"outputs.{n}": x for n, x in response.outputs.items()}
    found |= {f"gradients.{n}": x for n, x in (response.gradients or {}).items()}
    return {n: x for n, x in found.items() if isinstance(x, numpy.ndarray) and x.dtype.kind == "f"}


def way(given: Given, name: str, exact: Array, rough: Callable[[str], Array | None], narrows: bool = False) -> str:
    """How a tensor of an answer is that of a mistake, whose answers in float64 and in float32 these are; "" if not.
    What overflows in float32 alone is no number there. `narrows`: it rounds to a narrow type."""
    x, truth = given.tensors[name].astype("float64"), given.truth(name)
    if x.shape != exact.shape:
        return ""
    with numpy.errstate(all="ignore"):
        found = _equal(given, name, x, exact.astype("float64"), truth, numpy.zeros(()))
        if found or given.dtype == "float64":
            return found
        if not _is_near(x, exact, truth):
            return ""
        other = rough(name)
        other = exact if other is None or other.shape != x.shape else other
        lost = numpy.nan_to_num(abs(other.astype("float64") - exact), nan=0.0, posinf=0.0)
        exact = _overflown(exact.astype("float64"), other.astype("float64"))
        lost = lost.max(axis=-1, keepdims=True, initial=0) if lost.ndim else lost
        if found := _equal(given, name, x, exact.astype("float64"), truth, lost):
            return found
        if (beyond := _beyond_range(x, exact, other)) is not None:
            return _equal(given, name, x, beyond, truth, lost)
        return _by_digits(given, name, x, exact, other.astype("float64"), narrows=narrows)


def _beyond_range(x: Array, exact: Array, other: Array) -> Array | None:
    """The answer of a mistake where a part of it overflows in float32 alone, if that of a kernel does so there too."""
    too_large = numpy.isfinite(exact) & ~numpy.isfinite(other)
    if not too_large.any() or numpy.isfinite(x[too_large]).any():
        return None
    made: Array = numpy.where(too_large, other, exact).astype("float64")
    return made


def _by_digits(given: Given, name: str, x: Array, exact: Array, other: Array, *, narrows: bool) -> str:
    truth = given.truth(name)
    if narrows and _errs_alike(given, name, x, other, truth):
        return "roundings"
    rounds = not given.wrong(name, exact).any() or (narrows and _is_small(exact, truth))
    return "digits" if rounds and _loses_alike(given, name, x, other, truth) else ""


def _overflown(exact: Array, other: Array) -> Array:
    """What a mistake gives in float64, and where it overflows in float32 what comes of that."""
    return numpy.where(numpy.isfinite(exact) & ~numpy.isfinite(other), other, exact)


def _is_near(x: Array, exact: Array, truth: Expected) -> bool:
    """Whether an answer may be that of the mistake with other roundings."""
    value, here = truth.value, numpy.isfinite(x) & numpy.isfinite(exact) & numpy.isfinite(truth.value)
    if not here.any():
        return True
    if not here.all():
        x, exact, value = x[here], exact[here], value[here]
    far = _squares(x - exact)
    return far <= NEAR**2 * _squares(exact - value) or far <= LOSS**2 * _squares(value)


def _is_small(exact: Array, truth: Expected) -> bool:
    """Whether what a mistake does in float64 are lost digits too."""
    here = numpy.isfinite(exact) & numpy.isfinite(truth.value)
    error, size = exact[here] - truth.value[here], truth.value[here]
    return bool(here.any()) and float((error**2).mean()) <= 2.0**-14 * float((size**2).mean())


def _equal(given: Given, name: str, x: Array, exact: Array, truth: Expected, lost: Array) -> str:
    if x.size > 2 * SOME and not _is_same_somewhere(given, name, x, exact, truth, lost):
        return ""
    return _equal_everywhere(given, name, x, exact, truth, lost)


def _equal_everywhere(given: Given, name: str, x: Array, exact: Array, truth: Expected, lost: Array) -> str:
    wrong, mistaken = given.wrong(name), given.wrong(name, exact)
    allowed, same = _same(given, x, exact, truth.deviation, lost)
    unwritten = is_unwritten(exact) & numpy.isfinite(truth.value)
    if not wrong.any():
        return "equal" if same.all() else ""
    if not x.any() and exact.any():  # an answer of zeros may be that of anything
        return "nothing" if (same | unwritten).all() else ""
    clear = mistaken & ~unwritten & ~(abs(exact - truth.value) <= CLEAR * allowed)
    clear = clear | (mistaken & numpy.isinf(exact) & (exact != truth.value))
    if (same | unwritten).all() and 2 * mistaken.sum() >= wrong.sum():
        if unwritten.any():
            return _unwritten(x, wrong, unwritten)
        nearer = clear.any() or _is_nearer(x[wrong], exact[wrong], truth.value[wrong])
        return "equal" if nearer or _is_barely(x, exact, truth) else ""
    if same.all() and not unwritten.any() and _is_barely(x, exact, truth):
        return "equal"
    told = wrong & same & clear & numpy.isfinite(exact) & (exact != 0)
    partly = (same | ~wrong).all() and 2 * told.sum() >= wrong.sum() and not unwritten.any()
    return "partly" if partly else ""


def _same(given: Given, x: Array, exact: Array, deviation: Array, lost: Array) -> tuple[Array, Array]:
    """By how much an answer may differ from that of a mistake, and where it is the same."""
    allowed = given.plan.limit * deviation + DIGITS * UNIT[given.dtype] * abs(exact)
    allowed = allowed + ROUGH * UNIT[given.dtype] / UNIT["float32"] * lost
    near = numpy.isfinite(exact) & (abs(x - exact) <= allowed)  # an infinity is near to nothing
    same = near | (x == exact) | (numpy.isnan(x) & numpy.isnan(exact))
    return allowed, same | numpy.isposinf(deviation)


def _is_same_somewhere(given: Given, name: str, x: Array, exact: Array, truth: Expected, lost: Array) -> bool:
    """Whether it is the same at some places, or not written there, as it must be wherever the answer is wrong."""
    at = given.places(name)
    one, other, deviation, off = (
        numpy.broadcast_to(z, x.shape).reshape(-1)[at] for z in (x, exact, truth.deviation, lost)
    )
    _, same = _same(given, one, other, deviation, off)
    return bool((same | is_unwritten(other)).all())


def _is_barely(x: Array, exact: Array, truth: Expected) -> bool:
    """Whether an answer is far nearer to a mistake than to the truth in all of its numbers together, where none is off
    by much more than is allowed: the mistake's own may be off by less."""
    here = numpy.isfinite(x) & numpy.isfinite(exact) & numpy.isfinite(truth.value)
    return bool(here.sum() >= LEAST) and _is_nearer(x[here], exact[here], truth.value[here])


def _is_nearer(x: Array, exact: Array, truth: Array) -> bool:
    """Whether an answer is far nearer to a mistake than to the truth."""
    return _root(x - exact) <= NEAR * _root(x - truth)


def _unwritten(x: Array, wrong: Array, unwritten: Array) -> str:
    """Whether these places may be memory that nobody has written: not right, and where they are much of the answer,
    all zeros, or all no numbers, or all the same; `nothing` if next to nothing is written."""
    held, written = x[unwritten], ~unwritten & (x != 0)
    right = ~wrong[unwritten] & (held != 0)  # memory of zeros is right where the truth is nearly 0
    if not wrong[unwritten].any() or 2 * right.sum() > unwritten.sum():
        return ""
    same = (held == held[0]).all() or not numpy.isfinite(held).any() or (abs(held) < 1e-30).all()
    if written.sum() < min(FEWEST, x.size // 8):
        return "nothing" if same else ""
    return "unwritten" if same or 4 * unwritten.sum() <= x.size else ""


def _errs_alike(given: Given, name: str, x: Array, other: Array, truth: Expected) -> bool:
    """Whether the errors of an answer are those of a mistake, and not only as large: two that round at other places
    have nothing in common but their size."""
    if not numpy.array_equal(numpy.isfinite(x), numpy.isfinite(other)):
        return False
    mine, theirs = given.wrong(name), given.wrong(name, other)
    here = mine & numpy.isfinite(x) & numpy.isfinite(truth.value)
    if not here.any():
        return not mine.any() and not theirs.any()
    left, error = abs(x[here] - other[here]), abs(x[here] - truth.value[here])
    most = (left <= SAME * error).sum() >= MOSTLY * here.sum()
    return bool(most and _root(left) <= SAME * _root(error) and (theirs & ~mine).sum() <= max(1, mine.sum() // 4))


def is_small_error(given: Given, name: str) -> bool:
    """Whether the errors of a tensor may be lost digits: small beside its numbers, and none is no number."""
    x, truth = given.tensors[name].astype("float64"), given.truth(name).value
    if not numpy.array_equal(numpy.isfinite(x), numpy.isfinite(truth)):
        return False
    here = numpy.isfinite(truth)
    return 0 < _root(x[here] - truth[here]) <= LOSS * _root(truth[here])


def bits_apart(given: Given, name: str, other: Array) -> float:
    """How far the errors of a mistake are from those of an answer in size: the logarithm to base 2 of their ratio."""
    x, truth = given.tensors[name].astype("float64"), given.truth(name).value
    here = numpy.isfinite(x) & numpy.isfinite(truth) & numpy.isfinite(other)
    one, two = _root(x[here] - truth[here]), _root(other[here].astype("float64") - truth[here])
    return abs(math.log2(one / two)) if one and two else math.inf if one != two else 0.0


def bits_left(x: Array, truth: Array) -> float:
    """How many significant bits numbers have whose roundings are as large as the errors of an answer: of p bits the
    middle one is 0.35 · 2^-p of its number. Nothing is said of few that are wrong: the middle one is right then."""
    here = numpy.isfinite(x) & numpy.isfinite(truth) & (truth != 0)
    relative = abs(x[here] - truth[here]) / abs(truth[here])
    middle = float(numpy.median(relative)) if relative.size else 0.0
    return -math.log2(middle / 0.35) if middle else math.inf


def _loses_alike(given: Given, name: str, x: Array, other: Array, truth: Expected) -> bool:
    """Whether an answer is off where a mistake is that loses digits, by about as much: all in all, in how many places,
    and in groups of elements by the size of their truth."""
    if not numpy.array_equal(numpy.isfinite(x), numpy.isfinite(other)):
        return False
    mine, theirs = given.wrong(name), given.wrong(name, other)
    if not mine.any() or not theirs.any():
        return bool(mine.any() == theirs.any())
    if not 1 / FACTOR <= mine.sum() / theirs.sum() <= FACTOR:
        return False
    here = numpy.isfinite(x) & numpy.isfinite(truth.value)
    size = math.sqrt(float((truth.value[here] ** 2).mean())) if here.any() else 0.0
    a, b = _root(x[here] - truth.value[here]), _root(other[here] - truth.value[here])
    if not (max(a, b) <= FACTOR * min(a, b) and b < LOSS * size):
        return False
    return _is_alike_by_size(x[here], other[here], truth.value[here], a) and all(
        abs(_common(x, truth, axis) - _common(other, truth, axis)) <= UNLIKE for axis in (-1, -2)
    )


def _is_alike_by_size(x: Array, other: Array, truth: Array, a: float) -> bool:
    """Whether two have errors alike in groups of elements by the size of their truth; `a` is the error of all."""
    order = numpy.argsort(abs(truth), kind="stable")
    errors, others = (x - truth)[order], (other - truth)[order]
    for one, two in zip(numpy.array_split(errors, GROUPS), numpy.array_split(others, GROUPS), strict=True):
        p, q = _root(one), _root(two)
        if len(one) >= 16 and max(p, q) > 2 * FACTOR * min(p, q) and max(p, q) > a / FACTOR:
            return False
    return True


def _common(x: Array, truth: Expected, axis: int) -> float:
    """How much of the relative errors the numbers of a row have in common, or those of a column (axis -2): all of it
    where the sum of the row is off, next to nothing where each number is."""
    if x.ndim < -axis or x.shape[axis] < LONG:
        return 0.0
    there = numpy.isfinite(x) & numpy.isfinite(truth.value) & (truth.value != 0)
    relative = numpy.where(there, x - truth.value, 0) / numpy.where(there, truth.value, 1)
    count = numpy.maximum(there.sum(axis=axis), 1)
    total = float((relative**2).sum())
    return float((relative.sum(axis=axis) ** 2 / count).sum()) / total if total else 0.0


def _squares(x: Array) -> float:
    return float(numpy.vdot(x, x))


def _root(x: Array) -> float:
    return math.sqrt(float((x**2).mean())) if x.size else 0.0
