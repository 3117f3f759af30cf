"""What right implementations answer to the sized cases: one table, an operation at a time.

    measured("torch.compile", "softmax", "bfloat16")      adds to docs/data/sized_calibration.json
    table(data)                                           the lines of docs/conformance.md

Each case is put to every implementation under the plan that fits it; the text is evaluated once a plan.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from refllm.numbers import plans
from refllm.verify import corpus, runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Case, FaultError, UnsupportedError
from refllm.verify.sized import cases, judge
from refllm.verify.sized.work import work
from spread import libraries, parts

DATA = Path(__file__).resolve().parents[2] / "docs/data/sized_calibration.json"
MOST = 40  # characters of what was off by how much; an exception has more
RIGHT, WRONG = ("pass", "value"), ("fail", "fault", "dtype")
Answers = dict[str, dict[str, Any]]  # of a row and an operation


def measured(only: str, operation: str, dtype: str, *, write: bool = True) -> dict[str, Any]:
    """What implementations whose names match answer to the cases of operations that do. `write`: it is kept after each
    operation."""
    data: dict[str, Any] = {}
    there = [one for one in parts.implementations() if re.search(only, one.name)]
    made = {one.name: one.parts() for one in there}
    sized = [c for c in cases.load(corpus.folder(None)).values() if not c.slow]
    for name in sorted({c.operation for c in sized if re.search(operation, c.operation)}):
        found: Answers = defaultdict(lambda: {"right": 0, "largest": 0.0, "where": "", "wrong": {}})
        for each in (c for c in sized if c.operation == name):
            _measure(each, there, made, dtype, found)
        joined(data, name, found)
        if write:
            keep(name, found)
        print(name, {row: (a["right"], list(a["wrong"])) for row, a in found.items()}, file=sys.stderr, flush=True)
    return data


def _measure(
    sized: cases.SizedCase, there: list[parts.Whole], made: Mapping[str, list[Functions]], dtype: str, found: Answers
) -> None:
    case = sized.case()
    for run in parts.EVERY:
        if dtype not in ("", run) or runner.unfit_for(case, run, 1.0):
            continue
        texts: dict[str, judge.Text] = {}
        for one in there:
            if run not in one.fits or work(sized) > one.most:
                continue
            said = one.fits[run]
            plan, name = plans.plan(said, run), libraries.in_words(said)
            key = f"{one.name} | {run} | {name}"
            response, reason = _answer(made[one.name], case, run)
            if response is None:
                if reason:
                    found[key]["wrong"][sized.id] = reason
                continue
            text = texts.setdefault(name, judge.Text(case, plan, gradients=True))
            _count(judge.judged(sized, case, response, run, plan, text), found[key], plan)


def _answer(functions: list[Functions], case: Case, dtype: str) -> tuple[Any, str]:
    """The answer of the first part that has one; or what went wrong, nothing if it is not there."""
    for part in functions:
        met = all(part.conventions.get(name, own) == own for name, own in case.conventions.items())
        if case.operation not in part.operations or not met:
            continue
        try:
            return runner.respond(part, case, dtype), ""
        except UnsupportedError:
            continue
        except FaultError as error:
            return None, str(error)[:160]
    return None, ""


def _count(result: runner.Result, answers: dict[str, Any], plan: plans.Plan) -> None:
    z = (result.ratio or 0.0) * plan.limit
    if result.status in RIGHT:
        answers["right"] += 1
        if z >= answers["largest"]:
            answers["largest"], answers["where"] = round(z, 1), result.case.id
    elif result.status in WRONG:
        wrong = [v for v in result.verdicts if v.wrong]
        answers["wrong"][result.case.id] = f"{wrong[0].name}: {z:.3g}" if wrong else result.reason[:160]


def keep(operation: str, found: Answers) -> None:
    """Adds an operation to what was measured before."""
    data = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    joined(data, operation, found)
    DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def joined(data: dict[str, Any], operation: str, found: Answers) -> None:
    """Puts the answers to an operation into their rows."""
    for key, answers in found.items():
        row = data.setdefault(key, {"version": "", "operations": {}})
        row["version"] = libraries.version(key.partition(" | ")[0])
        row["operations"][operation] = answers
        row["operations"] = dict(sorted(row["operations"].items()))


def table(data: Mapping[str, Any]) -> Iterator[str]:
    """The two tables of the page."""
    yield "| implementation | version | dtype | plan | operations | right | largest | where |"
    yield "|---|---|---|---|---|---|---|---|"
    for key, row in data.items():
        answers = row["operations"].values()
        right, failed = sum(a["right"] for a in answers), sum(len(a["wrong"]) for a in answers)
        worst = max(answers, key=lambda a: a["largest"])
        name, dtype, plan = key.split(" | ")
        cells = [name, row["version"], dtype, plan, len(row["operations"]), f"{right} of {right + failed}"]
        yield f"| {' | '.join(map(str, [*cells, worst['largest'], worst['where']]))} |"
    yield ""
    yield "| implementation | dtype | plan | beyond the limit: operation, how many cases, the first, its deviations |"
    yield "|---|---|---|---|"
    for key, row in data.items():
        wrong = {operation: a["wrong"] for operation, a in row["operations"].items() if a["wrong"]}
        if wrong:
            yield f"| {key} | {'; '.join(_in_words(*each) for each in wrong.items())} |"


def _in_words(operation: str, wrong: Mapping[str, str]) -> str:
    case, said = next(iter(wrong.items()))
    said = said if len(said) < MOST else "refused"
    return f"`{operation}` {len(wrong)}: {case.rpartition('/')[2].removeprefix('kernel-')} ({said})"
