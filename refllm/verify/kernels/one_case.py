"""The only wrong answer to an operation: what gives it, though right answers to other cases speak against that.

A mistake on a path that one case takes, as a loop for one row, or zeros in place of lanes that are not there, leaves
nothing but that case to be told from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from refllm.verify.kernels import conditions
from refllm.verify.kernels.causes import Cause
from refllm.verify.kernels.known import Operation
from refllm.verify.kernels.properties import Condition

FEW = 64  # numbers that it must give, every one of them
CLEARLY = 4  # times as many right answers that contradict every other mistake which gives the same zeros


def named(
    known: Operation, likely: Sequence[Cause], contradicted: Mapping[Cause, Sequence[str]]
) -> dict[Cause, Condition]:
    """What gives every number of the only wrong answer, and which the fewest right ones contradict, with the condition
    that these tell. Of an answer of zeros, which many mistakes give, one alone may be nearly uncontradicted."""
    if len(known.looked) != 1 or len(known.tell_right) < conditions.GROUND:
        return {}
    [looked] = known.looked.values()
    full = [c for c in likely if set(looked.matches[c].ways.values()) == {"equal"} and not looked.matches[c].left]
    times = {c: len(contradicted[c]) for c in full if contradicted.get(c)}
    if not times or looked.count < FEW:
        return {}
    least = min(times.values())
    best = {_kind(c) for c, n in times.items() if n == least}
    others = [n for c, n in times.items() if _kind(c) not in best]
    if looked.zeros and (len(best) > 1 or min(others, default=CLEARLY * least) < CLEARLY * least):
        return {}
    found = dict[Cause, Condition]()
    for cause in (c for c, n in times.items() if n == least):
        against = [known.tell_right[id] for id in contradicted[cause] if id in known.tell_right]
        several = len(against) >= conditions.GROUND
        of_them = conditions.separating([looked.numbers], against) if several else conditions.alone(looked.numbers)
        found |= {cause: of_them} if of_them is not None else {}
    return found


def where(condition: Condition, right: Sequence[str]) -> str:
    """In words, with the right answers that are not those of the mistake."""
    others = f"{len(right)} right answers are not" if right[1:] else f"{right[0]} is not" if right else ""
    there = f", where {condition.words}" if condition.words else ""
    return f", in the one case that is wrong{there}{f' ({others})' if others else ''}"


def _kind(cause: Cause) -> str:
    """Its name without that of its operation: softmax and its logarithm have mistakes alike."""
    return cause.id.partition("/")[2]
