"""The mistakes of kernels on the sized cases: which case each one gets wrong.

deaths = measure(sized, plans.plan("eager", "float32"))
print(as_text(deaths))      json.dumps(as_data(deaths))
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from refllm.numbers.plans import Plan
from refllm.verify import runner
from refllm.verify.case import FaultError, UnsupportedError
from refllm.verify.kernels.bank import OPERATIONS, Mistake, implementation
from refllm.verify.kernels.in_type import NARROW, in_type
from refllm.verify.kernels.mistakes import MISTAKES
from refllm.verify.sized import judge
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.work import work

DTYPES = ("float64", "float32", *NARROW)
KNOWN = tuple(dict.fromkeys(m.operation for m in MISTAKES))
WIDTH = 80


@dataclass(frozen=True)
class Death:
    """A mistake, the smallest case that it gets wrong ("" if there is none), and what is said of it there."""

    mistake: Mistake
    case: str
    said: str


def measure(sized: Iterable[SizedCase], plan: Plan, bank: Iterable[Mistake] = MISTAKES) -> list[Death]:
    """A death for each mistake of an operation of these cases, in the order of the bank."""
    held = sorted((case for case in sized if case.operation in OPERATIONS), key=work)
    chosen = [m for m in bank if any(case.operation == m.operation for case in held)]
    found: dict[str, Death] = {}
    for case in held:
        alive = [m for m in chosen if m.operation == case.operation and m.id not in found]
        found |= {death.mistake.id: death for death in killed(case, plan, alive)} if alive else {}
    return [found.get(m.id, Death(m, "", "")) for m in chosen]


def killed(sized: SizedCase, plan: Plan, bank: Iterable[Mistake]) -> Iterator[Death]:
    """The mistakes that one case finds in a run under the plan."""
    dtype, case = plan.dtype, sized.case()
    if runner.unfit_for(case, dtype, 1.0):
        return
    truth = judge.Text(case, plan, gradients=bool(case.cotangents))
    for mistake in bank:
        try:
            response = runner.respond(in_type(implementation(mistake), dtype), case, dtype)
        except (FaultError, UnsupportedError) as error:
            yield Death(mistake, sized.id, str(error))
            continue
        result = judge.judged(sized, case, response, dtype, plan, truth)
        if result.wrong:
            yield Death(mistake, sized.id, next(v.message for v in result.verdicts if v.wrong))


def survivors(deaths: Iterable[Death]) -> list[str]:
    return [death.mistake.id for death in deaths if not death.case]


def as_data(deaths: list[Death]) -> dict[str, Any]:
    """For --json."""
    left = survivors(deaths)
    return {
        "mistakes": len(deaths),
        "killed": len(deaths) - len(left),
        "survivors": left,
        "cases": {
            d.mistake.id: {"about": d.mistake.about, "issue": d.mistake.issue, "first_failing": d.case, "said": d.said}
            for d in deaths
        },
    }


def as_text(deaths: list[Death]) -> str:
    """A block a mistake: its name and what it is, the smallest case that fails, and the public report."""
    lines, operation = list[str](), ""
    for death in deaths:
        if death.mistake.operation != operation:
            operation = death.mistake.operation
            lines += ["", operation]
        lines += textwrap.wrap(f"{death.mistake.id}: {death.mistake.about}", WIDTH, initial_indent="  ",
                               subsequent_indent="    ")  # fmt: skip
        lines.append(f"    {death.case or 'SURVIVES'}")
        lines += [f"    {death.mistake.issue}"] if death.mistake.issue else []
    left = survivors(deaths)
    lines += ["", f"{len(deaths)} mistakes of kernels, {len(deaths) - len(left)} killed"]
    return "\n".join([*lines[1:], *(f"survivor: {name}" for name in left)]) + "\n"
