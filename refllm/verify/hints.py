"""What a wrong tensor has in common with its truth, where no known mistake explains it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Case, Response
from refllm.verify.tolerance import LARGEST, UNIT
from refllm.verify.verdict import Verdict

FLOAT32_DIGITS = 8  # of which arithmetic in float32 keeps fewer
SLACK = 64  # roundings of the largest number that a common factor or a common difference may be off by


def without_numbers(case: Case, response: Response, dtype: str) -> list[str]:
    """A line for every output that is zero because the squares of the inputs are beyond the dtype: x / inf."""
    finite = [x[numpy.isfinite(x)] for x in case.inputs.values() if x.dtype.kind == "f"]
    sizes = [float(abs(x).max(initial=0)) for x in finite]
    if max(sizes, default=0.0) ** 2 <= LARGEST[dtype]:
        return []
    lines = []
    for name, truth in case.outputs.items():
        y = response.outputs.get(name)
        if not isinstance(y, numpy.ndarray) or truth.value.dtype.kind != "f":
            continue
        if y.shape == truth.value.shape and truth.value.any() and not y.any():
            lines.append(f"output {name} is zero as x / inf is: the squares of the inputs overflow in {dtype}")
    return lines


def nothing_there(case: Case, response: Response) -> bool:
    """Whether the outputs are not finite in rows alone whose truth is zero throughout: nothing is summed there."""
    found = False
    for name, truth in case.outputs.items():
        y, t = response.outputs.get(name), truth.value
        if isinstance(y, numpy.ndarray) and y.shape == t.shape and y.dtype.kind == t.dtype.kind == "f" and t.ndim:
            lost = (~numpy.isfinite(y) & numpy.isfinite(t)).any(-1)
            if t[lost].any():
                return False
            found = found or bool(lost.any())
    return found


def single_precision(verdicts: list[Verdict], response: Response, dtype: str, digits: int = 0) -> list[str]:
    """A line if every number is right as far as float32 can hold it, in a run of float64, whatever dtype it has. The
    digits are those that are right in all answers to the operation."""
    share = UNIT["float64"] / UNIT["float32"]
    wrong = [v for v in verdicts if v.wrong == "values"]
    others = any(v.wrong not in ("", "values", "dtype") for v in verdicts)
    if dtype != "float64" or not wrong or others or not all(v.ratio * share <= 1 for v in wrong):
        return []
    name = wrong[0].name
    y = {**{f"output {n}": x for n, x in response.outputs.items()},
         **{f"gradient of {n}": x for n, x in (response.gradients or {}).items()}}.get(name)  # fmt: skip
    if isinstance(y, numpy.ndarray) and numpy.array_equal(y, y.astype("float32"), equal_nan=True):
        return [f"{name} holds numbers of float32, and is right as far as that reaches"]
    if digits >= FLOAT32_DIGITS:
        return [
            f"{name} is right to {digits} digits, which is more than float32 has: a constant is written with about as "
            "many, or a function is that precise"
        ]
    return [
        f"{name} is right as far as float32 reaches, not float64: is a part of it in float32, or a small constant "
        "(an eps) another?"
    ]


def right_digits(verdicts: list[Verdict]) -> int:
    """How many digits of the worst elements are right, of each tensor that is wrong."""
    wrong = [verdict for verdict in verdicts if verdict.wrong]
    worst = [verdict.worst for verdict in wrong if verdict.worst is not None]
    if not worst or len(worst) < len(wrong) or not all(w.truth for w in worst):
        return 0
    share = max(abs(w.got / w.truth - 1) for w in worst)
    return int(-math.log10(share)) if 0 < share < 1 else 0


def hints(case: Case, response: Response, dtype: str) -> list[str]:
    """A line for every output and gradient that is the truth but for a factor, a sign, a shift, an order or an
    overflow."""
    lines = []
    parts = ((response.outputs, case.outputs, "output"), (response.gradients or {}, case.gradients, "gradient of"))
    for values, truths, kind in parts:
        for name, truth in truths.items():
            y, t = values.get(name), truth.value
            if isinstance(y, numpy.ndarray) and y.shape == t.shape and t.dtype.kind == y.dtype.kind == "f" and t.size:
                found = _hint(y.astype("float64"), t, SLACK * UNIT[dtype], _sizes(case))
                lines += [f"{kind} {name} {found}"] if found else []
    return lines


def _hint(y: Array, t: Array, rounding: float, sizes: dict[str, int]) -> str:
    """What y is beside the truth; "" if it is the truth, or nothing is found."""
    finite = numpy.isfinite(y) & numpy.isfinite(t)
    allowed = rounding * float(abs(t).max(where=numpy.isfinite(t), initial=0))
    if (lost := numpy.isfinite(t) & ~finite).any():
        return _overflowed(int(lost.sum()), int((abs(y[finite] - t[finite]) > allowed).sum()), t.size)
    if not finite.all() or not t.any() or not y.any():
        return ""
    if _largest(y - t) <= allowed:
        return ""
    factor = float((y * t).sum() / (t * t).sum())
    square = t.ndim > 1 and t.shape[-1] == t.shape[-2]
    several = t.size > 1  # of one number every other is a multiple, and a neighbour
    scaled = _largest(y - factor * t) / max(1.0, abs(factor))
    likenesses = (
        (_largest(y + t), "is the truth with its sign turned"),
        (
            scaled if several or _named(factor, sizes) else math.inf,
            f"is {_times(factor)} times the truth{_named(factor, sizes)}",
        ),
        (_largest(y - t.swapaxes(-1, -2)) if square else math.inf, "is the truth transposed"),
        (
            _largest(y - t - (y - t).mean()) if several else math.inf,
            f"is the truth plus {(y - t).mean():.6g} in every element",
        ),
        (_largest(numpy.sort(y, axis=None) - numpy.sort(t, axis=None)), "has the truth's numbers in another order"),
    )
    return next((text for error, text in likenesses if error <= allowed), "") or _part(y, t, allowed)


def _overflowed(lost: int, wrong: int, size: int) -> str:
    others = f"wrong in {wrong} others" if wrong else "right in the others"
    return f"overflows, or is 0 / 0 or inf - inf: not finite in {lost} of {size} elements, {others}"


def _part(y: Array, t: Array, allowed: float) -> str:
    wrong = abs(y - t) > allowed
    if t.size > 3 and wrong.sum() <= t.size / 2:
        first = [list(map(int, index)) for index in numpy.argwhere(wrong)[:3]]
        more = " ..." if wrong.sum() > 3 else ""
        return f"is wrong in {int(wrong.sum())} of {t.size} elements, at {', '.join(map(str, first))}{more}"
    if t.size > 3 and t.std() and y.std():
        correlation = float(numpy.corrcoef(y.reshape(-1), t.reshape(-1))[0, 1])
        if 0.9 < abs(correlation) < 0.9995:  # what rounds to 1 says no more than that it is near
            return f"correlates with the truth by {correlation:.3f}"
    return ""


def _times(factor: float) -> str:
    """A factor, and of one that is nearly 1 by how much it is not."""
    text = f"{factor:.6g}"
    if text not in ("1", "-1"):
        return text
    return f"{text} {'+' if factor > float(text) else '-'} {abs(factor - float(text)):.1g}"


def _named(factor: float, sizes: dict[str, int]) -> str:
    """A factor in terms of the sizes of the case."""
    for n, where in _factors(sizes):
        if math.isclose(factor, n, rel_tol=1e-4):
            return where
    return ""


def _factors(sizes: dict[str, int]) -> Iterator[tuple[float, str]]:
    for where, n in sizes.items():
        if n > 1:
            yield n, f": {n}, {where}"
            yield 1 / n, f": 1/{n}; {n} is {where}"
            yield math.sqrt(n), f": √{n}; {n} is {where}"
            yield 1 / math.sqrt(n), f": 1/√{n}; {n} is {where}"


def _sizes(case: Case) -> dict[str, int]:
    """The dimensions of the inputs, in words; of equal ones the first."""
    found: dict[str, int] = {}
    arrays: dict[str, Any] = {**case.inputs, **case.keywords}
    for name, x in arrays.items():
        if isinstance(x, numpy.ndarray) and x.ndim:
            for words, n in (("the width", x.shape[-1]), ("the number of rows", math.prod(x.shape[:-1]))):
                if n not in found.values():
                    found[f"{words} of {name}"] = n
    return found


def _largest(x: Array) -> float:
    return float(abs(x).max())
