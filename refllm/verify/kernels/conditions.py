"""What tells the cases that a mistake explains from those whose right answers speak against it: a size, a step.

condition = separating([{"K": 1025}, {"K": 4097}], [{"K": 31}, {"K": 1024}])
condition.words                     "K > 1,024"
condition.holds({"K": 2049})        True
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Condition:
    words: str
    holds: Callable[[Numbers], bool]


def separating(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Condition | None:
    """The first condition that all the former meet and none of the latter; None if there is none."""
    if not wrong or not right:
        return None
    for condition in _conditions(wrong, right):
        if all(map(condition.holds, wrong)) and not any(map(condition.holds, right)):
            return condition
    return None


def _conditions(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Iterator[Condition]:
    names = [name for name in wrong[0] if all(name in each for each in (*wrong, *right))]
    yield from (condition for name in names for condition in _equal(name, wrong, right))
    sized = [name for name in names if name.isalpha() and len(name) == 1]
    ordered = [name for name in names if all(_is_number(each[name]) for each in (*wrong, *right))]
    bounds = {name: ([each[name] for each in wrong], [each[name] for each in right]) for name in ordered}
    yield from (condition for name, (own, others) in bounds.items() for condition in _above(name, own, others))
    yield from (condition for name, (own, others) in bounds.items() for condition in _below(name, own, others))
    yield from (_compared(a, b) for a in sized for b in sized if a != b)
    yield from (_remainder(name, n) for name in sized for n in (2, 4, 8, 16, 32, 64, 128))


def _equal(name: str, wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Iterator[Condition]:
    """One value, as T = 1 or causal = True; a larger number is one only if several cases have it."""
    value = wrong[0][name]
    said = isinstance(value, bool | str) or value is None
    if said or value == 1 or (len(wrong) > 1 and isinstance(value, int) and not _is_size(name)):
        yield Condition(f"{name} = {value}", lambda each: bool(each[name] == value))
    if said and isinstance(value, bool) is False and value is not None:
        other = next((each[name] for each in right if each[name] is None), 0)
        if other is None:
            yield Condition(f"there is {name}", lambda each: each[name] is not None)


def _is_size(name: str) -> bool:
    return name.startswith("the number") or (name.isalpha() and len(name) == 1)


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def _above(name: str, own: list[Any], others: list[Any]) -> Iterator[Condition]:
    if min(own) > max(others):
        limit = _round_number(max(others), min(own))
        yield Condition(f"{name} > {limit:,}", lambda each: bool(each[name] > limit))


def _below(name: str, own: list[Any], others: list[Any]) -> Iterator[Condition]:
    if max(own) < min(others):
        limit = _round_number(max(own), min(others))
        yield Condition(f"{name} ≤ {limit:,}", lambda each: bool(each[name] <= limit))


def _round_number(low: float, high: float) -> float:
    """The most usual limit of those at or above `low` and below `high`: a power of two, a multiple of 1,000 or 100."""
    if not isinstance(low, int) or not isinstance(high, int) or low < 2:
        return low
    power = 1 << int(math.log2(high - 1)) if high > 1 else 0
    for limit in (power, *((high - 1) // n * n for n in (1000, 500, 100, 64, 32))):
        if low <= limit < high and limit:
            return limit
    return low


def _compared(a: str, b: str) -> Condition:
    return Condition(f"{a} < {b}", lambda each: bool(each[a] < each[b]))


def _remainder(name: str, n: int) -> Condition:
    return Condition(f"{name} is no multiple of {n}", lambda each: bool(each[name] % n))
