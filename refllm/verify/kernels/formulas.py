"""Functions of single numbers as kernels approximate them: fast powers, rational functions, constants of few digits.

formulas("silu")      causes, each with the words that follow the operation
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy

from refllm.backend import Array
from refllm.verify.case import Case, Response

Of = Callable[[Array], Array]
ROOT = math.sqrt(2 / math.pi)
CUBE = 0.044715


@dataclass(frozen=True, eq=False)
class Formula:
    """What gives the value alone: how its gradient is formed is another matter."""

    id: str
    about: str
    function: Of
    issue: str | None = None
    gradients_alone: bool = False
    diff: list[tuple[str, list[str]]] = field(default_factory=list)

    def answer(self, case: Case, dtype: str) -> Response | None:
        [x] = case.arguments(dtype)
        with numpy.errstate(all="ignore"):
            return Response({next(iter(case.outputs)): self.function(x)}, None)


def formulas(operation: str) -> Iterator[Formula]:
    for name, about, function in _all(operation):
        yield Formula(f"{operation}/{name}", f"{operation} {about}", function)


def _all(operation: str) -> Iterator[tuple[str, str, Of]]:
    if operation == "gelu_tanh":
        for digits in (2, 3, 4, 5):
            yield "short-constant", f"whose √(2/π) is {ROOT:.{digits}g}", _gelu_tanh(float(f"{ROOT:.{digits}g}"), CUBE)
            cut = math.floor(ROOT * 10**digits) / 10**digits
            yield "short-constant", f"whose √(2/π) is cut to {cut:g}", _gelu_tanh(cut, CUBE)
        for cube in (0.0447, 0.04472, 0.045, 0.044, 0.04):
            yield "short-constant", f"whose 0.044715 is {cube:g}", _gelu_tanh(ROOT, cube)
        yield "other-gelu", "by the error function", _gelu(_erf)
        for words, tanh in _tanhs():
            yield "approximated-tanh", f"whose tanh is {words}", _gelu_tanh(ROOT, CUBE, tanh)
    if operation in ("gelu_erf", "gelu_tanh"):
        yield "sigmoid-of-1.702", "as x σ(1.702 x)", lambda x: x * _sigmoid(1.702 * x)
        for root in (1.41, 1.414, 1.4142):
            yield "short-constant", f"whose √2 is {root:g}", _gelu(lambda z, r=root: _erf(z * math.sqrt(2) / r))  # type: ignore[misc]
    if operation == "gelu_erf":
        yield "other-gelu", "by the tanh", _gelu_tanh(ROOT, CUBE)
        for words, erf in _erfs():
            yield "approximated-erf", f"whose error function is {words}", _gelu(erf)
    if operation == "tanh":
        for words, tanh in _tanhs():
            yield "approximated-tanh", f"that is {words}", tanh
    if operation == "silu":
        yield "hard-sigmoid", "whose sigmoid is clip(x / 6 + 1/2, 0, 1)", lambda x: x * numpy.clip(x / 6 + 0.5, 0, 1)
        for words, power in _powers():
            yield "approximated-exponential", f"whose exponential is {words}", _silu(power)


def _gelu_tanh(root: float, cube: float, tanh: Of = numpy.tanh) -> Of:
    return lambda x: 0.5 * x * (1 + tanh(root * (x + cube * x * x * x)))


def _gelu(erf: Of) -> Of:
    return lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2)))


def _erf(x: Array) -> Array:
    return numpy.vectorize(math.erf, otypes=[float])(x).astype(x.dtype) if x.size else x


def _sigmoid(x: Array) -> Array:
    e = numpy.exp(-abs(x))
    return numpy.where(x >= 0, 1, e) / (1 + e)


def _silu(power: Of) -> Of:
    return lambda x: x / (1 + power(-x))


def _tanhs() -> Iterator[tuple[str, Of]]:
    yield "x (27 + x²) / (27 + 9 x²), cut off at ±1", lambda x: numpy.clip(x * (27 + x * x) / (27 + 9 * x * x), -1, 1)
    yield "x (27 + x²) / (27 + 9 x²)", lambda x: x * (27 + x * x) / (27 + 9 * x * x)
    yield "cut off at ±1", lambda x: numpy.clip(x, -1, 1)
    yield "x / (1 + |x|)", lambda x: x / (1 + abs(x))
    yield "x (15 + x²) / (15 + 6 x²), cut off at ±1", lambda x: numpy.clip(x * (15 + x * x) / (15 + 6 * x * x), -1, 1)
    yield "x (135135 + 17325 x² + 378 x⁴ + x⁶) / (135135 + 62370 x² + 3150 x⁴ + 28 x⁶), cut off at ±1", _continued


def _continued(x: Array) -> Array:
    z = x * x
    above = x * (135135 + z * (17325 + z * (378 + z)))
    return numpy.clip(above / (135135 + z * (62370 + z * (3150 + 28 * z))), -1, 1)


def _erfs() -> Iterator[tuple[str, Of]]:
    five = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    three = (0.3480242, -0.0958798, 0.7478556)
    yield "Abramowitz and Stegun's 7.1.26 (five terms)", _rational(0.3275911, five)
    yield "Abramowitz and Stegun's 7.1.25 (three terms)", _rational(0.47047, three)
    yield "tanh(√(2/π) …), as in the other GELU", lambda z: numpy.tanh(2 / math.sqrt(math.pi) * (z + 0.08943 * z**3))


def _rational(p: float, a: tuple[float, ...]) -> Of:
    def erf(x: Array) -> Array:
        t = 1 / (1 + p * abs(x))
        total = sum(coefficient * t ** (n + 1) for n, coefficient in enumerate(a))
        return numpy.sign(x) * (1 - total * numpy.exp(-x * x))

    return erf


def _powers() -> Iterator[tuple[str, Of]]:
    for bias in (0.0, 0.0430, 0.0573, 0.0450, 0.0607):
        yield "2^n (1 + f), of the bits of a number", lambda x, b=bias: _by_bits(x, lambda f: 1 + f - b)  # type: ignore[misc]
    yield "(1 + x/256)^256", lambda x: (1 + x / 256) ** 256
    yield "(1 + x/1024)^1024", lambda x: (1 + x / 1024) ** 1024


def _by_bits(x: Array, mantissa: Of) -> Array:
    n = x * math.log2(math.e)
    whole = numpy.floor(n)
    return numpy.exp2(whole) * mantissa(n - whole)
