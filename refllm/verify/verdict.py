"""One tensor of an answer against its truth: what is wrong with it, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Case, FaultError, Response, Truth, cast
from refllm.verify.tensors import same_bits
from refllm.verify.tolerance import Worst, worst

# The dtypes of arrays that a run accepts. A wider one in a run of float32 would hide where precision is lost.
ACCEPTED = {
    "float64": ("float64",),
    "float32": ("float32",),
    "tf32": ("float32", "float64"),
    "float16": ("float16", "float32", "float64"),
    "bfloat16": ("float32", "float64"),
}
_NUMBERS = {"f": "floating-point", "i": "integer", "u": "integer", "b": "boolean"}


@dataclass(frozen=True)
class Verdict:
    """What one tensor of the answer is worth: `wrong` is "" or says which mistake it was."""

    name: str  # "output y", "gradient of q", "tap norm"
    wrong: str  # "", "missing", "type", "shape", "dtype", "not finite", "zeros", "values"
    message: str
    worst: Worst | None = None

    @property
    def ratio(self) -> float:
        """Error / tolerance of the worst element; infinite where none could be formed."""
        if self.worst is not None:
            return self.worst.ratio
        return float("inf") if self.wrong else 0.0

    @property
    def comparable(self) -> bool:
        """Whether the answer is an array of numbers like the truth, so that it can be compared with other answers."""
        return self.wrong in ("", "zeros", "values", "not finite")


def verdicts(case: Case, response: Response, dtype: str, C: float) -> Iterator[Verdict]:
    """One for every output and gradient of the case, and for every tap that was given."""
    for name, truth in case.outputs.items():
        yield _verdict(f"output {name}", response.outputs.get(name), truth, case, dtype, C)
    if response.gradients is not None:
        for name, truth in case.gradients.items():
            yield _verdict(f"gradient of {name}", response.gradients.get(name), truth, case, dtype, C)
    for name, truth in case.taps.items():
        if name in response.taps:
            yield _verdict(f"tap {name}", response.taps[name], truth, case, dtype, C)


def as_array(value: Any, like: Array, dtype: str) -> Any:
    """A NumPy scalar as an array, and so a Python number where one number is asked for, which has the dtype of any
    run; an array of a subclass as an ordinary one; everything else as it is. FaultError if entries are masked: they
    have no value."""
    if isinstance(value, numpy.ma.MaskedArray) and (mask := numpy.ma.getmaskarray(value)).any():
        masked = f"{int(mask.sum())} of {mask.size} entries"
        raise FaultError(f"what was returned is a masked array with {masked} masked; return the numbers of all")
    if isinstance(value, numpy.ndarray | numpy.generic):
        return numpy.asarray(value)
    if isinstance(value, bool | int | float) and like.ndim == 0:
        same_kind = like.dtype.kind == numpy.asarray(value).dtype.kind
        return cast(numpy.asarray(value, like.dtype), dtype) if same_kind else value
    return value


def _verdict(name: str, value: Any, truth: Truth, case: Case, dtype: str, C: float) -> Verdict:
    if value is None:
        return Verdict(name, "missing", f"{name} is missing (None)")
    if not isinstance(value, numpy.ndarray):
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        return Verdict(name, "type", f"{name} is a {kind}, not a NumPy array; convert it before returning it")
    if value.shape != truth.value.shape:
        return Verdict(name, "shape", f"{name} has the wrong shape: {value.shape}, it must be {truth.value.shape}")
    accepted = _accepted(truth, case, dtype)
    if not any(value.dtype == d or (d in ("integer", "boolean") and _of(value) == d) for d in accepted):
        return Verdict(name, "dtype", f"{name} has the wrong dtype: {value.dtype}, it must be {' or '.join(accepted)}")
    if case.level == 0:
        return _bits(name, value, truth.value)
    return _numbers(name, value, truth, dtype, C)


def _accepted(truth: Truth, case: Case, dtype: str) -> tuple[str, ...]:
    if case.level == 0:
        return (str(truth.value.dtype),)
    return ACCEPTED[dtype] if truth.value.dtype.kind == "f" else (_of(truth.value),)


def _of(x: Array) -> str:
    return _NUMBERS.get(x.dtype.kind, str(x.dtype))


def _bits(name: str, y: Array, truth: Array) -> Verdict:
    if same_bits(y, truth):
        return Verdict(name, "", "")
    width = y.dtype.itemsize
    got, wanted = (numpy.frombuffer(x.tobytes(), f"V{width}") for x in (y, truth))
    at = int((got != wanted).argmax())
    bits = [x[at].tobytes()[::-1].hex() for x in (got, wanted)]
    if y.size and not y.any() and truth.any():
        return Verdict(name, "zeros", f"{name} is all zeros")
    return Verdict(name, "values", f"{name} differs in its bits: element {at} is {bits[0]}, it must be {bits[1]}")


def _numbers(name: str, y: Array, truth: Truth, dtype: str, C: float) -> Verdict:
    furthest = worst(y, truth, dtype, C)
    if furthest is None or furthest.ratio <= 1:
        return Verdict(name, "", "", furthest)
    t = truth.value
    if y.dtype.kind == "f":
        bad = ~numpy.isfinite(y) & numpy.isfinite(t)
        if bad.any():
            kind = "NaN" if numpy.isnan(y[bad]).any() else "infinite"
            share = f"{int(bad.sum())} of {y.size} elements"
            return Verdict(name, "not finite", f"{name} is {kind} in {share}, where the truth is finite", furthest)
    if not y.any() and t.any():
        return Verdict(name, "zeros", f"{name} is all zeros; the truth reaches {numpy.abs(t).max():.3g}", furthest)
    return Verdict(name, "values", f"{name} is wrong{_where(furthest)}", furthest)


def _where(worst: Worst) -> str:
    at = f" at {list(worst.index)}" if worst.index else ""
    return f"{at}: got {worst.got:.9g}, truth {worst.truth:.9g}, {_measured(worst)}"


def _measured(worst: Worst) -> str:
    if worst.tolerance == 0:
        return "it must be met exactly"
    ulp = f", {worst.ulp:.3g} ulp" if worst.ulp < 1e15 else ""
    return f"error {abs(worst.got - worst.truth):.3g} = {worst.ratio:.3g} times the tolerance{ulp}"
