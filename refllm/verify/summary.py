"""What is said at the end about the failures of an operation that the first diagnosis leaves unexplained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from refllm.verify.diagnosis import LINES, ORDER
from refllm.verify.explanation import NOT_COMPARED, NOTHING_KNOWN, Explanation, causes_of, is_said
from refllm.verify.runner import Result

if TYPE_CHECKING:
    from refllm.verify.explanation import Cause

SHOWN = 3  # cases that no known mistake explains whose names are said


def summary(failures: Iterable[Result], said: list[str]) -> list[str]:
    """What explains most of the failures that nothing of what is said explains, then most of the rest, and so on; of
    those that nothing known explains, how many there are, and what is seen of the first."""
    failures = [result for result in failures if result.status != "law"]
    all_names = [_names(result.diagnosis) for result in failures]
    left, lines = [names for names in all_names if not names & _names(said)], list[str]()
    while len(lines) < LINES and any(left):
        named = {cause for names in left for cause in names}
        best = min(named, key=lambda cause: (-_count(cause, left), _order(cause)))
        count = _count(best, all_names)
        share = f"{count} of {len(all_names)} wrong answers are explained by"
        name, about = getattr(best, "id", ""), getattr(best, "about", "")
        what = f"{about} ({name})" if name else "an edit of the specification:"
        lines.append(Explanation.of(f"{share} {what}", best))
        left = [names for names in left if best not in names]
    lines += [f"{len(rest)} more have other causes"] if (rest := [names for names in left if names]) else []
    return [*lines, *_unexplained(failures), *_not_compared(failures)]


def _unexplained(failures: list[Result]) -> list[str]:
    """How many answers no known mistake explains, and what is seen of most of those after the first. One that gave no
    answer in the way of the first, or that was held against nothing, is not among them."""
    if not any(result.diagnosis or result.response for result in failures):  # sized ones are without their responses
        return []
    first = failures[0]
    unknown = [r for r in failures if not _names(r.diagnosis) and not is_said(r.diagnosis) and not _fails_as(r, first)]
    others = [result for result in unknown if result is not first]
    if not others:
        return []
    seen = _most_seen(others, first.diagnosis)
    if len(unknown) == len(failures):
        return [f"none of the {len(failures)} wrong answers is explained by a known mistake{seen}"]
    ids = ", ".join(r.case.id for r in others[:SHOWN]) + (", …" if others[SHOWN:] else "")
    among = ", the first among them" if first in unknown else ""
    share = f"{len(unknown)} of {len(failures)} wrong answers are explained by no known mistake"
    return [f"{share}{among} ({ids}){seen}"]


def _not_compared(failures: list[Result]) -> list[str]:
    """How many answers were held against nothing, as they are large, or others were enough."""
    left = [result for result in failures if result.diagnosis == [NOT_COMPARED]]
    if not left:
        return []
    ids = ", ".join(r.case.id for r in left[:SHOWN]) + (", …" if left[SHOWN:] else "")
    return [
        f"{len(left)} of {len(failures)} wrong answers were not compared, large ones or beyond those that were ({ids})"
    ]


def _fails_as(result: Result, first: Result) -> bool:
    return result.status == first.status == "fault" and result.reason == first.reason


def _most_seen(results: list[Result], said: list[str]) -> str:
    """What is seen of these that was not said yet, if it is of more than one, or of the only one."""
    found = Counter(line for result in results if (line := _seen(result)) and line not in said)
    [(seen, times)] = found.most_common(1) or [("", 0)]
    if times < min(2, len(results)):
        return ""
    return f": {'' if times == len(results) else f'{times} of them '}{seen}"


def _seen(result: Result) -> str:
    """What is seen of a failure that no known mistake explains."""
    lines = [line for line in result.diagnosis if not line.startswith(NOTHING_KNOWN)]
    return next((line for line in [*lines, result.reason] if line), "")


def _names(diagnosis: list[str]) -> set[Cause]:
    return causes_of(diagnosis)


def _count(cause: Cause, names: list[set[Cause]]) -> int:
    return sum(cause in each for each in names)


def _order(cause: Cause) -> int:
    return ORDER.get(getattr(cause, "id", ""), -1)
