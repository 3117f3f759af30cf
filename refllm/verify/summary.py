"""What is said at the end about the failures of an operation that the first diagnosis leaves unexplained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from refllm.verify.diagnosis import LINES, ORDER, UNKNOWN
from refllm.verify.explanation import NOTHING_KNOWN, OF_CALLS, Explanation
from refllm.verify.runner import Result

if TYPE_CHECKING:
    from refllm.verify.explanation import Cause


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
    unknown = [
        (r, _seen(r)) for r, names in zip(failures, all_names, strict=True)
        if not names and not _is_said(r) and r is not failures[0]
        and not (r.response is None and _seen(r) == _seen(failures[0]))
    ]  # fmt: skip
    count = sum(not names and not _is_said(r) for r, names in zip(failures, all_names, strict=True))
    first = not all_names[0] and not _is_said(failures[0]) if failures else False
    lines += _unknown(unknown, count, len(all_names), ", the first among them" if first else "")
    return lines


def _unknown(unknown: list[tuple[Result, str]], count: int, wrong: int, among: str) -> list[str]:
    """How many answers no known mistake explains, and what is seen of most of those that were not yet shown."""
    if not unknown:
        return []
    ids = ", ".join(r.case.id for r, _ in unknown[:3]) + (", …" if unknown[3:] else "")
    said = Counter(line for _, line in unknown if line)
    [(seen, times)] = said.most_common(1) or [("", 0)]
    share = "" if times == len(unknown) else f"{times} of them "
    more = f": {share}{seen}" if seen and seen != UNKNOWN else ""
    return [f"{count} of {wrong} wrong answers are explained by no known mistake{among} ({ids}){more}"]


def _seen(result: Result) -> str:
    """What is seen of a failure that no known mistake explains."""
    lines = [line for line in result.diagnosis if not line.startswith(NOTHING_KNOWN)]
    return next((line for line in [*lines, result.reason] if line), "")


def _is_said(result: Result) -> bool:
    """Whether a diagnosis says what it is that names no mistake: a convention, or what earlier calls left."""
    return any(line.startswith(("matches the convention ", OF_CALLS)) for line in result.diagnosis)


def _names(diagnosis: list[str]) -> set[Cause]:
    return {line.cause for line in diagnosis if isinstance(line, Explanation)}


def _count(cause: Cause, names: list[set[Cause]]) -> int:
    return sum(cause in each for each in names)


def _order(cause: Cause) -> int:
    return ORDER.get(getattr(cause, "id", ""), -1)
