"""One tensor of an answer against its truth: what is wrong with it, in words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import CARRIERS, Case, Response, Truth, cast
from refllm.verify.frames import Foreign, plain
from refllm.verify.tensors import same_bits
from refllm.verify.tolerance import TINY, UNIT, Worst, worst

# The dtypes of arrays that a run accepts. A wider one in a run of float32 would hide where precision is lost.
ACCEPTED = {
    "float64": ("float64",),
    "float32": ("float32",),
    "tf32": ("float32", "float64"),
    "float16": ("float16", "float32", "float64"),
    "bfloat16": ("float32", "float64"),
}
_NUMBERS = {"f": "floating-point", "i": "integer", "u": "integer", "b": "boolean"}
_UNREADABLE = 1e9  # a ratio that says no more than that it is far beyond


@dataclass(frozen=True)
class Verdict:
    """What one tensor of the answer is worth: `wrong` is "" or says which mistake it was."""

    name: str  # "output y", "gradient of q", "intermediate norm"
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
    """One for every output and gradient of the case, and for every intermediate value that was given."""
    for name, truth in case.outputs.items():
        yield _verdict(f"output {name}", response.outputs.get(name), truth, case, dtype, C)
    if response.gradients is not None:
        for name, truth in case.gradients.items():
            yield _verdict(f"gradient of {name}", response.gradients.get(name), truth, case, dtype, C)
    for name, truth in case.taps.items():
        if name in response.taps:
            yield _verdict(f"intermediate {name}", response.taps[name], truth, case, dtype, C)


def as_array(value: Any, like: Array, dtype: str) -> Any:
    """A NumPy scalar, or an array of a subclass, as an ordinary array; everything else as it is. A Python number has
    the dtype of any run where one number is asked for, and an integer is a floating-point number too. FaultError if
    entries are masked."""
    if isinstance(value, numpy.ndarray | numpy.generic):
        return plain(value)
    if isinstance(value, bool | int | float) and like.ndim == 0 and _fits(value, like):
        with contextlib.suppress(OverflowError):  # an integer that no array holds stays what it is
            return cast(numpy.asarray(value, like.dtype), dtype)
    return value


def _fits(value: float, like: Array) -> bool:
    kinds = {"f": (float, int), "i": (int,), "u": (int,), "b": (bool,)}
    return isinstance(value, kinds.get(like.dtype.kind, ())) and (isinstance(value, bool) == (like.dtype.kind == "b"))


def converted(value: Any, like: Array, dtype: str) -> tuple[Any, str]:
    """The number or numbers in the dtype of the run, and the dtype that they had if it was another ("" if not)."""
    wanted = CARRIERS[dtype]
    if not isinstance(value, numpy.ndarray) or like.dtype.kind != "f" or value.dtype.kind not in "fiu":
        return value, ""
    if str(value.dtype) in (wanted, *ACCEPTED[dtype]):
        return value, ""
    with numpy.errstate(over="ignore"):
        return value.astype(wanted), str(value.dtype)


def _verdict(name: str, value: Any, truth: Truth, case: Case, dtype: str, C: float) -> Verdict:
    if (misformed := form(name, value, truth.value.shape)) is not None:
        return misformed
    if expected := other_dtype(value, truth, case, dtype):
        return _other_dtype(name, value, truth, expected, case, dtype, C)
    if case.level == 0:
        return _bits(name, value, truth.value)
    return _numbers(name, value, truth, dtype, C)


def form(name: str, value: Any, wanted: tuple[int, ...]) -> Verdict | None:
    """What is wrong with a tensor before any number of it is looked at; None if it is an array of that shape."""
    if value is None:
        return Verdict(name, "missing", f"{name} is missing (None)")
    shape = value.shape if isinstance(value, Foreign | numpy.ndarray) else None
    if shape is None:
        kind = value.kind if isinstance(value, Foreign) else f"{type(value).__module__}.{type(value).__qualname__}"
        kind = kind.removeprefix("builtins.")
        return Verdict(name, "type", f"{name} is a {kind}, not a NumPy array; convert it before returning it")
    if shape != wanted:
        return Verdict(name, "shape", f"{name} has the wrong shape: {shape}, it must be {wanted}")
    return None


def other_dtype(value: Any, truth: Truth, case: Case, dtype: str) -> str:
    """Which dtype was expected and which it is, if these differ."""
    if case.level and truth.value.dtype.kind == "f" and str(value.dtype) in ACCEPTED[dtype]:
        return ""  # as almost always, whatever else is accepted
    accepted = _accepted(truth, case, dtype)
    if any(str(value.dtype) == d or (d in ("integer", "boolean") and _of(value) == d) for d in accepted):
        return ""
    return f"expected {' or '.join(accepted)}, got {value.dtype}"


def _other_dtype(name: str, value: Any, truth: Truth, text: str, case: Case, dtype: str, C: float) -> Verdict:
    """A dtype is wrong by itself where the numbers are as right as the coarser of the two dtypes holds them."""
    if case.level and isinstance(value, numpy.ndarray) and truth.value.dtype.kind == "f" and value.dtype.kind in "fiu":
        own = str(value.dtype) if str(value.dtype) in UNIT else dtype
        verdict = _numbers(name, value, truth, max(own, dtype, key=lambda d: UNIT[d]), C)
        if verdict.wrong:
            return Verdict(name, verdict.wrong, f"{verdict.message}; its dtype is another too: {text}", verdict.worst)
    return Verdict(name, "dtype", f"{name} has the wrong dtype: {text}")


def _accepted(truth: Truth, case: Case, dtype: str) -> tuple[str, ...]:
    if case.level == 0:
        return (str(truth.value.dtype),)
    if truth.value.dtype.kind != "f":
        return (_of(truth.value),)
    given = [*case.inputs.values(), *case.keywords.values()]
    if any(isinstance(x, numpy.ndarray) and x.dtype.kind == "f" for x in given):
        return ACCEPTED[dtype]
    return tuple(dict.fromkeys([*ACCEPTED[dtype], "float64"]))  # nothing that is given says a narrower one


def _of(x: Any) -> str:
    return _NUMBERS.get(x.dtype.kind, str(x.dtype)) if isinstance(x, numpy.ndarray) else str(x.dtype)


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
    return Verdict(name, "values", f"{name} is wrong{_where(furthest, dtype)}", furthest)


def _where(worst: Worst, dtype: str) -> str:
    at = f" at {list(worst.index)}" if worst.index else ""
    return f"{at}: got {worst.got:.9g}, truth {worst.truth:.9g}, {_measured(worst, dtype)}"


def _measured(worst: Worst, dtype: str) -> str:
    if worst.tolerance == 0:
        return "it must be met exactly"
    error = f"error {abs(worst.got - worst.truth):.3g}"
    if worst.tolerance <= 2 * TINY[dtype]:
        return f"{error}, where rounding leaves {worst.truth:g} exactly"
    ulp = f", {worst.ulp:.3g} ulp" if worst.ulp < 1e15 else ""
    times = f"{worst.ratio:.3g}" if worst.ratio < _UNREADABLE else "more than a billion"
    return f"{error} = {times} times the tolerance{ulp}"
