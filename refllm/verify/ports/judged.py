"""What a port gave, beside what it should have given: the first value that differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.frames import Foreign
from refllm.verify.ports.program import Program
from refllm.verify.ports.truth import Expected, Truth

HEADS = ("q", "k", "v", "q_mapped", "k_mapped", "q_normed", "k_normed", "attention")


@dataclass(frozen=True)
class Compared:
    """One value of a port: it, what it should be, and how far it is off, 1 being what is allowed."""

    given: Array | None
    expected: Expected
    far: float
    problem: str = ""  # where nothing can be compared

    @property
    def wrong(self) -> bool:
        return self.far > 1


@dataclass(frozen=True)
class Judged:
    """The answer to one input: what was compared, in the order of the text, or the fault for which nothing was."""

    truth: Truth
    compared: dict[str, Compared]
    fault: str = ""
    unknown: list[str] = field(default_factory=list)  # names that the text does not have

    @property
    def wrong(self) -> list[str]:
        return [name for name, one in self.compared.items() if one.wrong]

    @property
    def unfit(self) -> dict[str, str]:
        """What is no array of finite numbers of the right shape, in words: no mistake of the model explains it."""
        return {name: one.problem for name, one in self.compared.items() if one.problem}

    @property
    def fit(self) -> Judged:
        """The answer without what is unfit."""
        return replace(self, compared={name: one for name, one in self.compared.items() if not one.problem})

    @property
    def right(self) -> bool:
        return not self.fault and not self.wrong


def judged(program: Program, truth: Truth, outputs: Mapping[str, Any], taps: Mapping[str, Any]) -> Judged:
    """An answer held to the truth. The answer of the model counts as one of the values."""
    given = {**taps}
    if len(outputs) == 1 and program.answer not in given:
        given[program.answer] = next(iter(outputs.values()))
    unknown = [name for name in given if name not in truth.values]
    compared = {name: _compared(name, given[name], truth.values[name]) for name in truth.values if name in given}
    return Judged(truth, compared, unknown=unknown)


def _compared(name: str, value: Any, expected: Expected) -> Compared:
    if not isinstance(value, numpy.ndarray) or value.dtype.kind not in "fiub":
        return Compared(None, expected, numpy.inf, f"{name} is {_kind(value)}, not an array of numbers")
    found = fitted(name, value, expected)
    if found is None:
        return Compared(None, expected, numpy.inf, _misshapen(name, value.shape, expected.value.shape))
    x, own = found
    far = own.far(x)
    problem = "" if numpy.isfinite(x).all() or far <= 1 else f"{name} has entries that are no finite numbers"
    if x.dtype.kind in "iub" and far > 1:
        problem = f"{name} is {_kind(x)}, whole numbers; give what is computed before it is rounded or chosen from"
    return Compared(x, own, far, problem)


def _kind(value: Any) -> str:
    if isinstance(value, numpy.ndarray):
        return f"an array of {value.dtype}"
    kind = value.kind if isinstance(value, Foreign) else type(value).__name__
    return "None" if kind == "NoneType" else f"a {kind}"


def _misshapen(name: str, got: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    more = ""
    if got[-1:] != wanted[-1:] and got[:-1] == wanted[:-1]:
        more = ": the vocabulary is cut or padded" if name == "logits" else ": its last axis is another"
    elif len(wanted) == 3 and got == (wanted[0], wanted[2]):
        more = ": one place alone, and all are asked for"
    return f"{name} has the shape {got}, it must be {wanted}{more}"


def fitted(name: str, x: Array, expected: Expected) -> tuple[Array, Expected] | None:
    """A value in the layout of the text, with what it should be: the axis of one text may be missing, heads may stand
    behind places or side by side, and shared keys may be there once for each query head."""
    wanted = expected.value.shape
    if x.shape == wanted:
        return x, expected
    if wanted[:1] == (1,) and x.ndim == len(wanted) - 1 and (inner := fitted(name, x[None], expected)) is not None:
        return inner
    if len(wanted) != 4 or name.rpartition(".")[2] not in HEADS or x.ndim < 3 or x.shape[0] != wanted[0]:
        return None
    return _in_heads(x, expected)


def _in_heads(x: Array, expected: Expected) -> tuple[Array, Expected] | None:
    """Heads as the text has them: from heads behind places, side by side, or repeated for the queries."""
    B, H, T, D = expected.value.shape
    if x.ndim == 3 and x.shape[1:] == (T, H * D):
        return x.reshape(B, T, H, D).swapaxes(1, 2), expected
    if x.ndim != 4 or x.shape[-1] != D:
        return None
    if x.shape[1] == T and (x.shape[2] == H or x.shape[2] != T):
        x = x.swapaxes(1, 2)
    if x.shape[2] != T or x.shape[1] % H:
        return None
    times = x.shape[1] // H
    return x, (expected if times == 1 else repeated(expected, times))


def repeated(expected: Expected, times: int) -> Expected:
    """Keys or values once for each query head."""
    counts = expected.counts
    if counts is not None and counts.shape[1] != 1:
        counts = numpy.repeat(counts, times, axis=1)
    value, error, size = (numpy.repeat(z, times, axis=1) for z in (expected.value, expected.error, expected.size))
    return Expected(value, error, size, counts)
