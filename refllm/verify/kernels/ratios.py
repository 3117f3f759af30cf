"""The number by which answers are their truth, as a formula of what their cases have: 19/21, 7/9, … are the targets
that count over all targets.

    said([Scaled(19 / 21, {"targets that count": 19, "all targets": 21}, 65), …], unit)
        "targets that count / all targets (19/21, 7/9): divided by all 21 targets instead of the 19 that count"

A formula is said if it holds for all cases and these have different numbers, or one number of so many digits that
chance gives no such formula: few others come near to it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from refllm.verify.kernels.quantities import counted

NEAR = 64.0  # roundings that a number may be off by which many elements give
WINDOW, FEW = 100.0, 5  # times as far, and formulas within that, for one number to be no chance
LISTED = 3  # numbers that are said one by one
SLOPES = {("", "dy"): "dy is not multiplied", ("dy", ""): "dy is multiplied once more"}
Quantities = Mapping[str, float]


class Scaled(NamedTuple):
    """An answer that is its truth times a number: the number, what its case has, and how many elements gave it."""

    factor: float
    quantities: dict[str, float]
    elements: int


class Formula(NamedTuple):
    words: str
    of: Callable[[Quantities], float]
    above: str = ""  # of a ratio, its parts
    below: str = ""


def _root(x: float) -> float:
    return math.sqrt(x) if x > 0 else math.nan


ONE: tuple[tuple[str, Callable[[float], float]], ...] = (
    ("{}", lambda n: n), ("1 / {}", lambda n: 1 / n), ("√{}", _root), ("1 / √{}", lambda n: 1 / _root(n)),
    ("1 - {}", lambda n: 1 - n), ("1 / (1 - {})", lambda n: 1 / (1 - n) if n != 1 else math.nan),
    ("{}²", lambda n: n * n), ("1 / {}²", lambda n: 1 / (n * n)), ("2 {}", lambda n: 2 * n),
    ("{} / 2", lambda n: n / 2), ("({0} - 1) / {0}", lambda n: (n - 1) / n),
    ("{0} / ({0} - 1)", lambda n: n / (n - 1) if n != 1 else math.nan),
    ("({0} + 1) / {0}", lambda n: (n + 1) / n), ("{0} / ({0} + 1)", lambda n: n / (n + 1)),
)  # fmt: skip


def formulas(names: Sequence[str]) -> Iterator[Formula]:
    """The simple ones first."""
    for name in names:
        for words, function in ONE:
            parts = {"{}": (name, ""), "1 / {}": ("", name)}.get(words, ("", ""))
            yield Formula(words.format(name), lambda q, n=name, f=function: f(q[n]), *parts)  # type: ignore[misc]
    for a, b in itertools.permutations(names, 2):
        yield Formula(f"{a} / {b}", lambda q, a=a, b=b: q[a] / q[b], a, b)  # type: ignore[misc]
        yield Formula(f"√({a} / {b})", lambda q, a=a, b=b: _root(q[a] / q[b]))  # type: ignore[misc]
    for a, b in itertools.combinations(names, 2):
        yield Formula(f"{a} · {b}", lambda q, a=a, b=b: q[a] * q[b])  # type: ignore[misc]
        yield Formula(f"1 / ({a} · {b})", lambda q, a=a, b=b: 1 / (q[a] * q[b]))  # type: ignore[misc]


def fitting(cases: Sequence[Scaled], unit: float) -> Formula | None:
    """The first formula that gives every number; None where chance may have given it."""
    if not cases or not all(math.isfinite(each.factor) and each.factor for each in cases):
        return None
    names = [name for name in cases[0].quantities if all(name in each.quantities for each in cases)]
    first, allowed = cases[0], NEAR * unit
    near, found = 0, list[Formula]()
    for formula in formulas(names):
        off = _off(formula, first)
        near += off <= WINDOW * allowed
        if off <= allowed and all(_off(formula, each) <= allowed for each in cases[1:]):
            found.append(formula)
    numbers = sorted(each.factor for each in cases)
    several = any(b - a > 4 * allowed * abs(b) for a, b in itertools.pairwise(numbers))
    alone = near - len(found) <= FEW and WINDOW * allowed < 0.01 and any(each.elements > 2 for each in cases)
    return found[0] if found and (alone if not several else allowed < 1e-3 or len(cases) > 2) else None


def _off(formula: Formula, case: Scaled) -> float:
    """How far a formula is from the number of a case; a formula that is 1 says nothing."""
    value = formula.of(case.quantities)
    if not math.isfinite(value) or abs(value - 1) < 1e-12:
        return math.inf
    return abs(value / case.factor - 1)


def said(cases: Sequence[Scaled], unit: float) -> str:
    """The formula in words, with its numbers and what it means; "" if there is none."""
    formula = fitting(cases, unit)
    if formula is None:
        return ""
    numbers = list(dict.fromkeys(_number(formula, each) for each in cases))
    more = ", …" if len(numbers) > LISTED else ""
    return f"{formula.words} ({', '.join(numbers[:LISTED])}{more}){_meaning(formula, cases[0].quantities)}"


def _number(formula: Formula, case: Scaled) -> str:
    above, below = (case.quantities.get(name) for name in (formula.above, formula.below))
    if isinstance(above, int) and isinstance(below, int):
        return f"{above:,}/{below:,}"
    return f"{case.factor:.6g}"


def _meaning(formula: Formula, quantities: dict[str, float]) -> str:
    if (formula.above, formula.below) in SLOPES:
        return f": {SLOPES[formula.above, formula.below]}"
    for part, whole, what in counted(quantities):
        n, all = quantities[part], quantities[whole]
        meanings = {
            (part, whole): f"divided by all {all:,} {what} instead of the {n:,} that count",
            (whole, part): f"divided by the {n:,} {what} that count instead of all {all:,}",
            (part, ""): f"not divided by the {n:,} {what} that count",
            ("", part): f"divided once more by the {n:,} {what} that count",
        }
        if (formula.above, formula.below) in meanings:
            return f": {meanings[formula.above, formula.below]}"
    return ""
