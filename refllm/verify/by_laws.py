"""What broken laws say of wrong answers that no known mistake explains, in the place of that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from refllm.verify.explanation import of_calls, of_law
from refllm.verify.laws.calls import AGAIN
from refllm.verify.runner import Result


def with_laws(results: Iterable[Result]) -> Iterator[Result]:
    """The results, each wrong one that nothing explains with what a second call to its operation shows, or else with
    the laws that it breaks itself. What passes alone is explained by that."""
    results = list(results)
    left = _what_calls_leave(results)
    for result in results:
        if result.status != "fail" or result.alone:
            yield result
        elif result.case.operation in left:
            id, message = left[result.case.operation]
            said = message if id == result.case.id else f"{id}, called a second time, gives other numbers"
            yield replace(result, diagnosis=of_calls(result.diagnosis, said))
        else:
            broken = list(dict.fromkeys(law.name for law in result.broken))
            yield replace(result, diagnosis=of_law(result.diagnosis, broken)) if broken else result


def _what_calls_leave(results: list[Result]) -> dict[str, tuple[str, str]]:
    """By operation the first case that gives other numbers in a second call, wrong at first or right, and how."""
    left: dict[str, tuple[str, str]] = {}
    for wrong_first in ("fail", "law"):
        for result in results:
            for law in result.broken if result.status == wrong_first and not result.alone else ():
                if law.name == AGAIN:
                    left.setdefault(result.case.operation, (result.case.id, law.message))
    return left
