"""What the tiny cases of an operation say where nothing explains its wrong answers to sized ones.

    beside_tiny(implementation, results, golden.cases.values(), "float32", golden.C, seconds=4)

A mistake of the formula shows in a few numbers too, and there the whole of the search is done in no time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from refllm.verify import runner
from refllm.verify.case import Case
from refllm.verify.explaining import explained
from refllm.verify.explanation import NOTHING_KNOWN, Elsewhere, Explanation
from refllm.verify.runner import Implementation, Result

Gives = Callable[[str, object], bool]
LONGEST = 5.0  # seconds that the tiny cases of all operations may take


def beside_tiny(
    implementation: Implementation, results: Sequence[Result], tiny: Iterable[Case], dtype: str, C: float,
    seconds: float, gives: Gives, *, casts: bool = False, values: bool = False, done: Sequence[Result] = (),
) -> list[Result]:  # fmt: skip
    """The results of sized cases, those of operations of which nothing is known with what their tiny cases say. `done`
    are results of tiny cases that are there already; the others are asked for. What explains most of the tiny ones is
    named if it `gives` the answers to sized ones too."""
    unknown, end = _unknown(results), time.monotonic() + LONGEST
    asked = list[Case]()
    for case in tiny if unknown else ():
        if case.operation in unknown and not any(r.case.operation == case.operation for r in done):
            asked.append(case.values_alone() if values else case)
    found = list[Result]()
    for result in runner.run(implementation, asked, dtype, C, casts=casts):
        found.append(result)
        if time.monotonic() > end:
            break
    said = _said([*done, *explained(runner.settled(found, dtype, C), dtype, C, max(seconds, 0.0))], unknown, gives)
    return [_with(result, said) for result in results]


def _unknown(results: Sequence[Result]) -> set[str]:
    """The operations with wrong answers of which nothing explains any."""
    wrong = [result for result in results if result.status == "fail"]
    named = {r.case.operation for r in wrong if any(isinstance(x, Explanation) for x in r.diagnosis)}
    return {r.case.operation for r in wrong if any(x.startswith(NOTHING_KNOWN) for x in r.diagnosis)} - named


def _said(results: Sequence[Result], operations: set[str], gives: Gives) -> dict[str, str]:
    """A line for each operation."""
    found = dict[str, str]()
    for operation in operations:
        ran = [r for r in results if r.case.operation == operation and r.status != "skip"]
        wrong = [r for r in ran if r.wrong]
        if not ran:
            continue
        cases = f"{len(ran)} tiny case{'s' if ran[1:] else ''}"
        if not wrong:
            found[operation] = f"its {cases} pass{'' if ran[1:] else 'es'}: it is wrong at larger sizes alone"
            continue
        share = f"{len(wrong)} of its {cases} fail{'' if wrong[1:] else 's'} as well (--size all shows them)"
        line = _most(wrong)
        named = line is not None and gives(operation, line.cause)
        found[operation] = Elsewhere.of(f"{share}: {line}", line.cause) if line is not None and named else share
    return found


def _most(wrong: Sequence[Result]) -> Explanation | None:
    """The line that names what explains more than half of these."""
    lines = [x for r in wrong for x in r.diagnosis[:1] if isinstance(x, Explanation)]
    counts = Counter(line.cause for line in lines)
    return next((line for line in lines if 2 * counts[line.cause] > len(wrong)), None)


def _with(result: Result, said: dict[str, str]) -> Result:
    line = said.get(result.case.operation) if result.status == "fail" else None
    return result if line is None else replace(result, diagnosis=[*result.diagnosis[:1], line, *result.diagnosis[1:]])
