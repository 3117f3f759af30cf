"""A number of the text that is another one: which, is found from the answer.

    for edit in numbers_solved(result, functions, values=True, dtype="float64"): edit.diff()     + 0.07 * log(x)

Each number that something is calculated with is moved until one number of the answer is met. What is found is told if
it is a number that people write: of few digits, a ratio, a root of one, or one of these times pi.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import FunctionType
from typing import Any

import numpy

from refllm.verify import bounded, plain
from refllm.verify.case import Response
from refllm.verify.edits import Edit, source_of
from refllm.verify.edits.source import Source, tight
from refllm.verify.runner import Result

STEPS = 8  # of the secant
COST = 1.15
NEAR = {"float64": 1e-9, "float32": 1e-5}  # as a share, what a number that people write may be off by
DIGITS = {"float64": 4, "float32": 2}
SMALL = 16  # numerators and denominators of ratios
CALCULATES = ("power", "log", "max", "min", "sqrt", "exp", "where", "ratio")


def numbers_solved(result: Result, functions: Sequence[FunctionType], *, values: bool, dtype: str) -> Iterator[Edit]:
    """Edits by which one number of the text is another one, and one number of this answer is met."""
    aim = _aim(result, values=values)
    if aim is None:
        return
    places = (_Place(f, text, node) for f in functions for text in [Source(source_of(f))] for node in _constants(text))
    for place in places:
        if not (place.inside and values) and not bounded.is_over():
            found = _solved(place, result, aim)
            yield from () if found is None else place.told(found, dtype if dtype in NEAR else "float32")


@dataclass(frozen=True)
class _Place:
    """A number that stands in the text."""

    function: FunctionType
    text: Source
    node: ast.Constant

    @property
    def inside(self) -> bool:
        return self.text.in_pullback(self.node)

    def edit(self, words: str) -> Edit:
        return Edit(self.function, self.text.exchanged(self.node, words), COST, self.inside)

    def told(self, number: float, dtype: str) -> Iterator[Edit]:
        """The edit by which this number stands here, if people write it; a factor for what would be a divisor."""
        words, parent = written(number, dtype), self.text.parents.get(self.node)
        if words is not None and words != self.text.segment(self.node):
            yield self.edit(words)
        elif isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Div) and parent.right is self.node:
            factor = written(1 / number, dtype)
            if words is None and factor is not None:
                product = f"{tight(self.text.segment(parent.left))} * {factor}"
                yield Edit(self.function, self.text.exchanged(parent, product), COST, self.inside)


def _constants(text: Source) -> Iterator[Any]:
    """The numbers that something is calculated with."""
    for node in text.expressions():
        if not isinstance(node, ast.Constant) or isinstance(node.value, bool | str) or node.value is None:
            continue
        parent = text.parents.get(node)
        while isinstance(parent, ast.UnaryOp):
            parent = text.parents.get(parent)
        called = isinstance(parent, ast.Call) and text.segment(parent.func) in CALCULATES
        if called or (isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Add | ast.Sub | ast.Mult | ast.Div)):
            yield node


Aim = tuple[str, bool, int, float]  # the name of a tensor, whether a gradient's, the place in it, and the number there


def _aim(result: Result, *, values: bool) -> Aim | None:
    """The number of the answer that is most wrong."""
    got, truths = result.response, result.case.outputs if values else result.case.gradients
    given = {} if got is None else got.outputs if values else got.gradients or {}
    found = list[tuple[float, Aim]]()
    for name, truth in truths.items():
        x, t = given.get(name), truth.value
        if not isinstance(x, numpy.ndarray) or x.shape != t.shape or x.dtype.kind != "f" or not x.size:
            continue
        apart = numpy.where(numpy.isfinite(x) & numpy.isfinite(t), abs(x - t), 0).reshape(-1)
        place = int(apart.argmax())
        if apart[place] > 0:
            found.append((float(apart[place]), (name, not values, place, float(x.reshape(-1)[place]))))
    return max(found)[1] if found else None


def _solved(place: _Place, result: Result, aim: Aim) -> float | None:
    """The number with which this number of the answer is met, by the secant."""
    values, first = not aim[1], float(place.node.value)  # type: ignore[arg-type]

    def off(number: float) -> float | None:
        function = place.edit(repr(number)).function() if math.isfinite(number) else None
        if function is None:
            return None
        functions, traced = {place.function: function}, not values and not place.inside
        return _reached(plain.answer(result.case, "float64", functions, traced=traced, values=values), aim)

    a, b = first, first * 1.25 or 0.125
    at_a, at_b = off(a), off(b)
    for _ in range(STEPS):
        if at_a is None or at_b is None or at_a == at_b or bounded.is_over():
            return None
        a, b, at_a = b, b - at_b * (b - a) / (at_b - at_a), at_b
        if abs(b - a) <= 1e-13 * abs(b):
            return b
        at_b = off(b)
        if at_b == 0:
            return b
    return b if at_b is not None and abs(at_b) <= 1e-6 * abs(aim[3]) else None


def _reached(other: Response | None, aim: Aim) -> float | None:
    """How far an answer is from the number that is aimed at."""
    name, of_gradient, place, number = aim
    given = {} if other is None else (other.gradients or {}) if of_gradient else other.outputs
    x = given.get(name)
    if not isinstance(x, numpy.ndarray) or place >= x.size:
        return None
    reached = float(x.reshape(-1)[place]) - number
    return reached if math.isfinite(reached) else None


def written(number: float, dtype: str = "float64") -> str | None:
    """A number as people write it; None if it is none that they would write."""

    def near(other: float) -> bool:
        return abs(other - number) <= NEAR[dtype] * abs(number)

    if number == 0 or not math.isfinite(number):
        return None
    whole = round(number)
    if near(whole) and 0 < abs(whole) < 1e6:
        return repr(whole)
    for digits in range(1, DIGITS[dtype] + 1):
        words = f"{number:.{digits}g}"
        if near(float(words)):
            return words
    for form, value in (("{}", number), ("{} * pi()", number / math.pi), ("{} / pi()", number * math.pi)):
        ratio = Fraction(value).limit_denominator(SMALL)
        if ratio and abs(ratio.numerator) <= SMALL and abs(float(ratio) - value) <= NEAR[dtype] * abs(value):
            return f"({form.format(_words(ratio))})" if form != "{}" or ratio.denominator > 1 else _words(ratio)
    ratio = Fraction(number * number).limit_denominator(SMALL)
    if ratio and ratio.numerator <= SMALL and near(math.copysign(math.sqrt(ratio), number)):
        return f"{'-' * (number < 0)}sqrt({_words(ratio)})"
    return None


def _words(ratio: Fraction) -> str:
    return f"{ratio.numerator} / {ratio.denominator}" if ratio.denominator > 1 else str(ratio.numerator)
