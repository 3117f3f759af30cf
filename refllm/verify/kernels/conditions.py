"""What tells the cases that a mistake explains from those whose right answers speak against it: a size, a step.

condition = separating([{"K": 1025}, {"K": 4097}], [{"K": 31}, {"K": 1024}])
condition.words                     "K > 1,024"
condition.holds({"K": 2049})        True

`clean` says where answers are wrong which nothing explains. It asks for two wrong and two right ones at least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

Numbers = dict[str, Any]
GROUND = 2  # cases on either side that a condition has at least
MANY = 5  # wrong cases of a condition that one right case meets too
LARGE = (1024, 512, 2048)
TILES = (64, 32, 128, 16, 8, 4, 2, 256)  # the first that fits is named


@dataclass(frozen=True)
class Condition:
    words: str
    holds: Callable[[Numbers], bool]
    between: str = ""  # what lies on either side of a limit


def separating(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Condition | None:
    """The first condition that all the former meet and none of the latter; None if there is none."""
    if not wrong or not right:
        return None
    for condition in _conditions(wrong, right):
        if all(map(condition.holds, wrong)) and not any(map(condition.holds, right)):
            return condition
    return None


def clean(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Condition | None:
    """The simplest condition that all wrong cases meet and no right one, if both sides have ground; else one that does
    so among the cases of one choice ("causal = True and T < S")."""
    if min(len(wrong), len(right)) < GROUND:
        return None
    if found := separating(wrong, right):
        return replace(found, words=f"{found.words}{found.between}")
    for choice in (*_choices(wrong), *_choices_of_several(wrong, right)):
        left = [each for each in right if choice.holds(each)]
        if GROUND <= len(left) < len(right) and (found := separating(wrong, left)):
            return _both(choice, found)
    if found := _beyond(wrong, right):
        return found
    return _but_for_one(wrong, right) if len(wrong) >= MANY else None


def _beyond(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Condition | None:
    """Several lengths above a limit that are no multiples of a tile, where right ones above it are: the last, partial
    block of several is the one that is wrong."""
    for name in [n for n in wrong[0] if n.isalpha() and len(n) == 1 and all(n in each for each in (*wrong, *right))]:
        least = min(each[name] for each in wrong)
        below, above = ([x for x in right if (x[name] < least) is side] for side in (True, False))
        if min(len(wrong), len(below)) <= GROUND or not above:
            continue
        [limit] = _above(name, [least], [each[name] for each in below])
        tile = _round_number(max(each[name] for each in below), least)
        found = _of_tiles(name, [*wrong, *above], (tile, *LARGE, *TILES))
        if condition := next((c for c in found if all(map(c.holds, wrong)) and not any(map(c.holds, above))), None):
            return _both(replace(limit, words=f"{limit.words}{limit.between}"), condition)
    return None


def _but_for_one(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Condition | None:
    """How two lengths compare in many wrong cases, and in one right case too: it may be too small for the mistake."""
    names = [
        name for name in wrong[0] if name.isalpha() and len(name) == 1 and all(name in x for x in (*wrong, *right))
    ]
    compared = [_compared(a, b) for a in names for b in names if a != b]
    for choice in (Condition("", lambda each: True), *_choices(wrong), *_choices_of_several(wrong, right)):
        left = [each for each in right if choice.holds(each)]
        for condition in compared:
            if all(map(condition.holds, wrong)) and len(left) > GROUND and sum(map(condition.holds, left)) == 1:
                both = _both(choice, condition) if choice.words else condition
                return replace(both, words=f"{both.words} (which one right case meets too)")
    return None


def _choices(wrong: Sequence[Numbers]) -> Iterator[Condition]:
    """What all of these have in common that is no number."""
    for name, value in wrong[0].items():
        if (value is None or isinstance(value, bool | str)) and all(each.get(name, 0) == value for each in wrong):
            yield _is(name, value)


def _choices_of_several(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Iterator[Condition]:
    """The same where an axis has several places: of one query, or one key, many a mistake shows nothing."""
    for name in (name for name in wrong[0] if name.isalpha() and len(name) == 1):
        one = any(each.get(name) == 1 for each in right) and all(each.get(name, 0) > 1 for each in wrong)
        if one:
            several = Condition(f"{name} > 1", lambda each, name=name: bool(each.get(name, 0) > 1))  # type: ignore[misc]
            yield several
            yield from (_both(choice, several) for choice in _choices(wrong))


def _is(name: str, value: Any) -> Condition:
    return Condition(f"{name} = {value}", lambda each: bool(each.get(name, 0) == value))


def _both(one: Condition, other: Condition) -> Condition:
    return Condition(
        f"{one.words} and {other.words}{other.between}", lambda each: one.holds(each) and other.holds(each)
    )


def _conditions(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Iterator[Condition]:
    names = [name for name in wrong[0] if all(name in each for each in (*wrong, *right))]
    yield from (condition for name in names for condition in _equal(name, wrong, right))
    sized = [name for name in names if name.isalpha() and len(name) == 1]
    ordered = [name for name in names if all(_is_number(each[name]) for each in (*wrong, *right))]
    bounds = {name: ([each[name] for each in wrong], [each[name] for each in right]) for name in ordered}
    yield from (condition for name, (own, others) in bounds.items() for condition in _above(name, own, others))
    yield from (condition for name, (own, others) in bounds.items() for condition in _below(name, own, others))
    yield from (_compared(a, b) for a in sized for b in sized if a != b)
    for name in sized:
        yield from _remainders(name, (*wrong, *right))
    yield from (condition for name in sized for condition in _above_a_tile(name))


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
        between = f" (right up to {max(others):,}, wrong from {min(own):,})"
        yield Condition(f"{name} > {limit:,}", lambda each: bool(each[name] > limit), between)


def _below(name: str, own: list[Any], others: list[Any]) -> Iterator[Condition]:
    if max(own) < min(others):
        limit = _round_number(max(own), min(others))
        between = f" (wrong up to {max(own):,}, right from {min(others):,})"
        yield Condition(f"{name} ≤ {limit:,}", lambda each: bool(each[name] <= limit), between)


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


def _above_a_tile(name: str) -> Iterator[Condition]:
    """That a length has a whole tile and a part of one."""
    for tile in (1024, 512, 2048, 256, 128, 4096, 64, 32):
        words = f"{name} is above {tile:,} and no multiple of it"
        yield Condition(words, lambda each, t=tile: bool(each[name] > t and each[name] % t))  # type: ignore[misc]


def _remainders(name: str, cases: Iterable[Numbers]) -> Iterator[Condition]:
    """That a length is no multiple of a tile. Several tiles may divide the cases alike: then the usual one is named."""
    yield from _of_tiles(name, cases, TILES)


def _of_tiles(name: str, cases: Iterable[Numbers], among: Sequence[Any]) -> Iterator[Condition]:
    alike: dict[tuple[bool, ...], list[int]] = {}
    lengths = [each[name] for each in cases]
    for tile in dict.fromkeys(among):
        alike.setdefault(tuple(bool(n % tile) for n in lengths), []).append(tile)
    for tiles in alike.values():
        others = f" ({min(tiles):,} to {max(tiles):,} fit as well)" if len(tiles) > 1 else ""
        yield _remainder(name, tiles[0], others)


def _remainder(name: str, tile: int, others: str) -> Condition:
    return Condition(f"{name} is no multiple of {tile:,}{others}", lambda each: bool(each[name] % tile))
