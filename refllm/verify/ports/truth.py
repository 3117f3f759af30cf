"""What a right port computes on an input, and how far it may be off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy

from refllm.backend import Array
from refllm.numbers.plans import LIMIT
from refllm.parameters import Tree
from refllm.verify.ports import rounding
from refllm.verify.ports.chosen import Input
from refllm.verify.ports.evaluation import evaluated
from refllm.verify.ports.program import Program, State
from refllm.verify.tolerance import UNIT

TOGETHER = (
    4.0  # how many times as large as those of the runs the errors of a whole tensor may be, see docs/published.md
)
LARGE = 1 << 22  # numbers of an intermediate that is not kept: scores of long texts


@dataclass(frozen=True)
class Expected:
    """A value in float64, the size of the error of each of its rows, and where it counts.

    An entry that is larger than the others of its row has an error that is larger by as much: most of them are
    relative.
    """

    value: Array
    error: Array  # (..., 1)
    size: Array  # (..., 1), the root of the mean square of each row
    counts: Array | None  # (..., 1) booleans; None where all of it does

    def far(self, x: Array, *, times: float = 1.0) -> float:
        """How far x is off, in what is allowed: above 1 it is another value. Infinite for no number."""
        with numpy.errstate(all="ignore"):
            off = numpy.abs(x.astype("float64") - self.value)
            if self.counts is not None:
                off = numpy.where(self.counts, off, 0)
            if not numpy.isfinite(off).all():
                off = numpy.where(_same_infinity(x, self.value), 0, off)
                if not numpy.isfinite(off).all():
                    return numpy.inf
            larger = numpy.maximum(1, numpy.abs(self.value) / self.size)
            single = float(numpy.where(off > 0, off / (LIMIT * self.error * larger), 0).max(initial=0))
            expected = numpy.broadcast_to(self.error, off.shape)
            if self.counts is not None:
                expected = numpy.where(self.counts, expected, 0)
            together = float(numpy.sqrt((off * off).mean()) / (TOGETHER * numpy.sqrt((expected * expected).mean())))
        return max(single, together) / times if off.size else 0.0


def _same_infinity(x: Array, value: Array) -> Array:
    return numpy.isinf(x) & numpy.isinf(value) & (numpy.sign(x) == numpy.sign(value))


@dataclass(frozen=True)
class Truth:
    """Of one input: every value by name, in the order in which they are computed; and the states after each step in
    float32, from which mistakes are tried."""

    input: Input
    values: dict[str, Expected]
    states: list[State]

    @property
    def begin(self) -> State:
        return self.states[0]


def truth(program: Program, p: Tree, given: Input, dtype: str) -> Truth:
    """The values of the text, and their errors in that precision."""
    exact = _values(program, p, given, "float64")
    errors = {name: numpy.zeros((*x.shape[:-1], 1)) for name, x in exact.items()}
    for seed in range(rounding.RUNS):
        with rounding.in_a_chain(dtype, seed):
            run = _values(program, p, given, "float32", stores=dtype)
        for name, x in run.items():
            off = numpy.where(numpy.isfinite(exact[name]), x.astype("float64") - exact[name], 0)
            errors[name] = errors[name] + rounding.root_mean_square(off) ** 2 / rounding.RUNS
    states = evaluated(program, p, given.arrays)
    values = {}
    for name, x in exact.items():
        finite = numpy.where(numpy.isfinite(x), x, 0)
        size = rounding.root_mean_square(finite)
        least = size * _unit(dtype)
        least = numpy.maximum(least, least.max(initial=0) * 2.0**-20 + numpy.finfo("float32").tiny)
        error = numpy.sqrt(errors[name]) * (2.0**-29 if dtype == "float64" else 1.0)
        size = numpy.maximum(size, numpy.finfo("float32").tiny)
        values[name] = Expected(x, numpy.maximum(error, least), size, _counts(name, exact, given))
    return Truth(given, values, [dict(given.arrays), *states])


def _unit(dtype: str) -> float:
    return UNIT[dtype]


def _values(program: Program, p: Tree, given: Input, dtype: str, *, stores: str = "") -> dict[str, Array]:
    found: dict[str, Array] = {}

    def look(name: str, x: Array) -> Array:
        x = rounding.stored(stores, x)
        if x.size <= LARGE or "." not in name:
            found[name] = x
        return x

    evaluated(program, p, given.arrays, dtype=dtype, look=look)
    return found


def _counts(name: str, values: Mapping[str, Array], given: Input) -> Array | None:
    """The places that mean something: rows of padding do not, nor do scores of keys that are not seen."""
    x, mask = values[name], given.mask
    weights = values.get(name.removesuffix("scores") + "weights") if name.endswith(".scores") else None
    seen = None if weights is None else weights != 0
    of_source = name.startswith("encoder.") or ".cross.k" in name or ".cross.v" in name or "source" not in given.arrays
    if mask is None or mask.all() or not of_source or x.ndim < 3 or x.shape[-2] != mask.shape[1]:
        return seen
    rows = mask.reshape(mask.shape[0], *(1 for _ in range(x.ndim - 3)), mask.shape[1], 1)
    return rows if seen is None else rows & seen
