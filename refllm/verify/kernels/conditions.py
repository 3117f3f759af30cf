"""What tells the cases that a mistake explains from those whose right answers speak against it: a size, a step.

`properties` has what may tell them apart, what is likely first; here it is said which of that does.

condition = separating([{"K": 1025}, {"K": 4097}], [{"K": 31}, {"K": 1024}])
condition.words                     "K > 1,024"
condition.holds({"K": 2049})        True

`clean` says where answers are wrong which nothing explains. It asks for two wrong and two right ones at least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from refllm.verify.kernels import properties
from refllm.verify.kernels.properties import Condition, Numbers, is_letter

GROUND = 2  # cases on either side that a condition has at least
MANY = 5  # wrong cases of a condition that one right case meets too


def separating(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Condition | None:
    """The first condition that all the former meet and none of the latter; None if there is none."""
    return next(_separating(wrong, right), None)


def alone(numbers: Numbers) -> Condition:
    """That of one case, of which nothing is known that tells it from others."""
    return Condition("", lambda each: each == numbers)


def _separating(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Iterator[Condition]:
    for condition in properties.conditions(wrong, right) if wrong and right else ():
        if all(map(condition.holds, wrong)) and not any(map(condition.holds, right)):
            yield condition


def _said(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Condition | None:
    """The first whose cases are near enough on both sides, with another one where nothing decides between them."""
    near = [condition for condition in _separating(wrong, right) if condition.is_near]
    if not near:
        return None
    first = near[0]
    other = next((condition for condition in near[1:] if first.is_open_to(condition)), None)
    return first if other is None else replace(first, between=f"{first.between}, or as well {other.words}")


def clean(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Condition | None:
    """The simplest condition that all wrong cases meet and no right one, if both sides have ground; else one that does
    so among the cases of one choice ("causal = True and T < S")."""
    if min(len(wrong), len(right)) < GROUND:
        return None
    if found := _said(wrong, right):
        return replace(found, words=f"{found.words}{found.between}")
    for choice in (*_choices(wrong), *_choices_of_several(wrong, right)):
        left = [each for each in right if choice.holds(each)]
        if GROUND <= len(left) < len(right) and (found := _said(wrong, left)):
            return _both(choice, found)
    if found := _beyond(wrong, right):
        return found
    return _but_for_one(wrong, right) if len(wrong) >= MANY else None


def _beyond(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Condition | None:
    """Several lengths above a limit that are no multiples of a tile, where right ones above it are: the last, partial
    block of several is the one that is wrong."""
    for name in [n for n in wrong[0] if is_letter(n) and all(n in each for each in (*wrong, *right))]:
        least = min(each[name] for each in wrong)
        below, above = ([x for x in right if (x[name] < least) is side] for side in (True, False))
        if min(len(wrong), len(below)) <= GROUND or not above:
            continue
        [limit] = properties.above(name, [least], [each[name] for each in below])
        tile = properties.round_number(max(each[name] for each in below), least)
        found = properties.of_tiles(name, [*wrong, *above], (tile, *properties.LARGE, *properties.TILES))
        if condition := next((c for c in found if all(map(c.holds, wrong)) and not any(map(c.holds, above))), None):
            return _both(replace(limit, words=f"{limit.words}{limit.between}"), condition)
    return None


def _but_for_one(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Condition | None:
    """How two lengths compare in many wrong cases, and in one right case too: it may be too small for the mistake."""
    names = [name for name in wrong[0] if is_letter(name) and all(name in x for x in (*wrong, *right))]
    compared = [properties.compared(a, b) for a in names for b in names if a != b]
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
            yield properties.equal_to(name, value)


def _choices_of_several(wrong: Sequence[Numbers], right: Sequence[Numbers]) -> Iterator[Condition]:
    """The same where an axis has several places: of one query, or one key, many a mistake shows nothing."""
    for name in filter(is_letter, wrong[0]):
        one = any(each.get(name) == 1 for each in right) and all(each.get(name, 0) > 1 for each in wrong)
        if one:
            several = Condition(f"{name} > 1", lambda each, name=name: bool(each.get(name, 0) > 1))  # type: ignore[misc]
            yield several
            yield from (_both(choice, several) for choice in _choices(wrong))


def _both(one: Condition, other: Condition) -> Condition:
    return Condition(
        f"{one.words} and {other.words}{other.between}", lambda each: one.holds(each) and other.holds(each)
    )
