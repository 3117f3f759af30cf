"""What may tell wrong cases from right ones, what is likely first: a choice, how two lengths compare, a multiple, a
limit.

    for condition in conditions(wrong, right): ...

A limit of a length has cases near it on both sides, and that of a product of lengths comes before it where it has them
nearer. A limit of the numbers in an input needs two cases that differ in nothing else: chance gives others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Numbers = dict[str, Any]
LARGE = (1024, 512, 2048)
TILES = (64, 32, 128, 16, 8, 4, 2, 256)  # the first that fits is named
BITS = (1 << 16, 1 << 31, 1 << 32, 1 << 15)  # what whole numbers of 16 and 32 bits end at
NEAR = 8.0  # times the largest right length that the smallest wrong one may be
TIGHT = 1.1  # the same where a limit is that of a power of two, and no multiple is looked for
PRODUCT = 1.0  # powers of two by which a product has to be nearer than a length
NUMBERS = "the largest number of "
THERE, NONE = "there are ", "there are no "


@dataclass(frozen=True)
class Condition:
    words: str
    holds: Callable[[Numbers], bool]
    between: str = ""  # what lies on either side of a limit
    kind: str = "choice"
    of: str = ""  # what it speaks of
    gap: float = 1.0  # of a limit: the smallest wrong one by the largest right one, or the other way round

    @property
    def is_near(self) -> bool:
        """Whether it has cases near it on both sides."""
        return self.gap <= NEAR

    def is_open_to(self, other: Condition) -> bool:
        """Whether nothing decides between the two: a limit and a multiple of one length, or limits of two lengths."""
        if self.kind == "limit":
            alike = other.kind == "limit" and abs(math.log2(other.gap / self.gap)) < 0.1
            return other.kind == "multiple" or (alike and other.of != self.of)
        return self.kind == other.kind == "multiple" and other.of != self.of


def is_letter(name: str) -> bool:
    return name.isalpha() and len(name) == 1


def conditions(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Iterator[Condition]:
    names = [name for name in wrong[0] if all(name in each for each in (*wrong, *right))]
    yield from (condition for name in names for condition in _equal(name, wrong, right))
    sized = [name for name in names if is_letter(name)]
    whole = [name for name in names if is_letter(name) or _is_whole_keyword(name, (*wrong, *right))]
    limits = sorted(_limits(names, wrong, right), key=_far)
    yield from (limit for limit in limits if limit.gap <= TIGHT)
    yield from (compared(a, b) for a in sized for b in sized if a != b)
    for name in whole:
        if len({each[name] for each in wrong}) > 1 or len(wrong) == 1:
            yield from of_tiles(name, (*wrong, *right), TILES)
    yield from (limit for limit in limits if limit.gap > TIGHT)
    lengths = [name for name in names if not name.startswith(NUMBERS) and _all_numbers(name, (*wrong, *right))]
    for name in lengths:
        yield from _below(name, [each[name] for each in wrong], [each[name] for each in right])
    yield from (condition for name in sized for condition in _above_a_tile(name, right))
    if _differ_in_numbers_alone(wrong, right):
        for name in (name for name in names if name.startswith(NUMBERS)):
            own, others = ([each[name] for each in cases] for cases in (wrong, right))
            yield from above(name, own, others)
            yield from _below(name, own, others)


# --- choices ----------------------------------------------------------------------------------------------------------


def _equal(name: str, wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Iterator[Condition]:
    """One value, as T = 1 or causal = True; a larger number is one only if several cases have it."""
    value = wrong[0][name]
    said = isinstance(value, bool | str) or value is None
    if said or value == 1 or (len(wrong) > 1 and isinstance(value, int) and not _is_size(name)):
        yield equal_to(name, value)
    if said and isinstance(value, bool) is False and value is not None:
        other = next((each[name] for each in right if each[name] is None), 0)
        if other is None:
            yield Condition(f"there is {name}", lambda each: each[name] is not None, of=name)


def equal_to(name: str, value: Any) -> Condition:
    words = f"{name} = {value}"
    if name.startswith(THERE) and isinstance(value, bool):
        words = name if value else NONE + name.removeprefix(THERE)
    return Condition(words, lambda each: bool(each.get(name, 0) == value), of=name)


def _is_size(name: str) -> bool:
    return name.startswith("the number") or is_letter(name)


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def _all_numbers(name: str, cases: Iterable[Numbers]) -> bool:
    return all(_is_number(each[name]) for each in cases)


def _is_whole_keyword(name: str, cases: Sequence[Numbers]) -> bool:
    """Whether it is how many there are of something, as heads: an odd number of these is no rare mistake."""
    return "heads" in name and all(type(each[name]) is int for each in cases)


def _differ_in_numbers_alone(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> bool:
    """Whether a wrong case and a right one are alike but for what is in their inputs."""

    def shape(case: Numbers) -> Numbers:
        return {name: value for name, value in case.items() if not name.startswith(NUMBERS)}

    return any(shape(one) == shape(other) for one in wrong for other in right)


# --- limits -----------------------------------------------------------------------------------------------------------


def _limits(names: Sequence[str], wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Iterator[Condition]:
    """Lengths, and products of two of them, that are larger in wrong cases."""
    held = (*wrong, *right)
    letters = [name for name in names if is_letter(name)]
    products = list(itertools.combinations(letters, 2))
    of_two = any(all(x[a] * x[b] == x.get("the number of elements") for x in held) for a, b in products)
    for name in names:
        if (
            not (of_two and name == "the number of elements")
            and not name.startswith(NUMBERS)
            and _all_numbers(name, held)
        ):
            yield from above(name, [each[name] for each in wrong], [each[name] for each in right])
    for a, b in products:
        own, others = ([each[a] * each[b] for each in cases] for cases in (wrong, right))
        yield from above(f"{a} · {b}", own, others, lambda each, a=a, b=b: each[a] * each[b])  # type: ignore[misc]


def _far(limit: Condition) -> float:
    """How far its cases are from it, in powers of two; a product, or how many there are of it, counts for more."""
    return math.log2(limit.gap) + PRODUCT * ("·" in limit.of or limit.of.startswith("the number"))


def above(
    name: str, own: list[Any], others: list[Any], of: Callable[[Numbers], Any] | None = None
) -> Iterator[Condition]:
    if min(own) > max(others):
        value = of or (lambda each: each[name])
        limit = round_number(max(others), min(own), is_product=of is not None)
        between = f" (right up to {max(others):,}, wrong from {min(own):,})"
        gap = min(own) / max(others) if max(others) > 0 else 1.0
        yield Condition(f"{name} > {limit:,}", lambda each: bool(value(each) > limit), between, "limit", name, gap)


def _below(name: str, own: list[Any], others: list[Any]) -> Iterator[Condition]:
    if max(own) < min(others):
        limit = round_number(max(own), min(others))
        between = f" (wrong up to {max(own):,}, right from {min(others):,})"
        gap = min(others) / max(own) if max(own) > 0 else 1.0
        yield Condition(f"{name} ≤ {limit:,}", lambda each: bool(each[name] <= limit), between, "limit", name, gap)


def round_number(low: float, high: float, *, is_product: bool = False) -> float:
    """The most usual limit of those at or above `low` and below `high`: a power of two, a multiple of 1,000 or 100; of
    a product first the numbers at which whole numbers of few bits end."""
    if not isinstance(low, int) or not isinstance(high, int) or low < 2:
        return low
    power = 1 << int(math.log2(high - 1)) if high > 1 else 0
    usual = BITS if is_product else ()
    for limit in (*usual, power, *((high - 1) // n * n for n in (1000, 500, 100, 64, 32))):
        if low <= limit < high and limit:
            return limit
    return low


# --- several lengths, and multiples -----------------------------------------------------------------------------------


def compared(a: str, b: str) -> Condition:
    return Condition(f"{a} < {b}", lambda each: bool(each[a] < each[b]), kind="compared", of=f"{a} {b}")


def _above_a_tile(name: str, right: Sequence[Numbers]) -> Iterator[Condition]:
    """That a length has a whole tile and a part of one, where others have several whole ones."""
    for tile in (1024, 512, 2048, 256, 128, 4096, 64, 32):
        if sum(each[name] > tile for each in right) < 2:
            continue
        words = f"{name} is above {tile:,} and no multiple of it"
        yield Condition(words, lambda each, t=tile: bool(each[name] > t and each[name] % t), kind="tile", of=name)  # type: ignore[misc]


def of_tiles(name: str, cases: Iterable[Numbers], among: Sequence[Any]) -> Iterator[Condition]:
    """That a length is no multiple of a tile. Several tiles may divide the cases alike: then the usual one is named."""
    alike: dict[tuple[bool, ...], list[int]] = {}
    lengths = [each[name] for each in cases]
    for tile in dict.fromkeys(among):
        alike.setdefault(tuple(bool(n % tile) for n in lengths), []).append(tile)
    for tiles in alike.values():
        others = f" ({min(tiles):,} to {max(tiles):,} fit as well)" if len(tiles) > 1 else ""
        yield _remainder(name, tiles[0] if is_letter(name) else min(tiles), others)


def _remainder(name: str, tile: int, others: str) -> Condition:
    words = f"{name} is no multiple of {tile:,}{others}"
    if tile == 2:
        words = f"{name} is odd" if is_letter(name) else f"the number of {name} is odd"
    return Condition(words, lambda each: bool(each[name] % tile), kind="multiple", of=name)
