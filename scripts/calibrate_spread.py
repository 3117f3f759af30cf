"""Measure the limit of the tolerance by spread: how many standard deviations right implementations are off.

    python scripts/calibrate_spread.py                    the tables of docs/conformance.md, on standard output
    python scripts/calibrate_spread.py --write            what is measured -> docs/data/calibration.json, and the page
    python scripts/calibrate_spread.py --render           the page from what was measured before
    python scripts/calibrate_spread.py --sized --operation softmax --dtype bfloat16      the same of the sized cases
    python scripts/calibrate_spread.py --only flash --problem attention --dtype bfloat16 --each

The implementations (scripts/spread): the text and refllm in NumPy, sums in several orders; PyTorch eager, by its
fused kernels and compiled; JAX; ONNX Runtime. The operations are those of the sized cases, at rows up to 32,000 and
sums up to 16,384, each with every profile of values. A right implementation beyond the limit of refllm/numbers/plans.py
says that the model of the spread is wrong there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from libraries import require  # noqa: E402  (from this checkout)

require(__doc__, "numpy")

from refllm.numbers import plans  # noqa: E402  (from this checkout)
from refllm.verify.case import CARRIERS  # noqa: E402
from spread import libraries as spread_libraries  # noqa: E402
from spread import sized as spread_sized  # noqa: E402
from spread.measured import Distances, Expected  # noqa: E402
from spread.problems import problems  # noqa: E402

DATA, PAGE = ROOT / "docs/data/calibration.json", ROOT / "docs/conformance.md"
BEGIN, END = "<!-- calibration: written by scripts/calibrate_spread.py -->", "<!-- end of calibration -->"
SIZED = "<!-- sized cases: written by scripts/calibrate_spread.py -->", "<!-- end of sized cases -->"
Row = tuple[str, str, str]  # implementation, dtype, plan
Measured = dict[Row, dict[tuple[str, str], Distances]]  # of every problem and profile


def measured(only: str, problem: str, dtype: str, profile: str, *, write: bool = False) -> tuple[Measured, list[str]]:
    """What every implementation is off by, and what could not be called. `write`: it is kept after each problem."""
    found: Measured = defaultdict(dict)
    refused: list[str] = []
    there = [one for one in spread_libraries.implementations() if only in one[0]]
    chosen = [each for each in problems() if re.search(problem, each.name)]
    with contextlib.suppress(KeyboardInterrupt):  # what was measured before is shown
        for each in chosen:
            for of_values in (name for name in each.profiles if profile in name):
                _measure(each, of_values, there, dtype, found, refused)
                print(".", end="", file=sys.stderr, flush=True)
            if write:
                keep(found)
    print(file=sys.stderr)
    return found, refused


def _measure(problem, profile, there, dtype, found, refused) -> None:  # type: ignore[no-untyped-def]
    known: dict[tuple[str, str], Expected] = {}
    for name, functions, use, fits in there:
        for run, said in fits.items():
            if problem.operation not in functions or dtype not in run:
                continue
            plan = spread_libraries.in_words(said)
            if (run, plan) not in known:
                known[run, plan] = Expected(problem, profile, plans.plan(said, run))
            try:
                use(run)
                z = known[run, plan].distances(functions[problem.operation], CARRIERS[run])
            except Exception as error:
                refused.append(f"{name}, {run}, {problem.name}, {profile}: {type(error).__name__}: {str(error)[:80]}")
                continue
            found[name, run, plan][problem.name, profile] = z


def record(found: Measured) -> dict[str, dict[str, object]]:
    """By implementation, dtype and plan: the problems, what those within the limit need, and those that are beyond."""
    made: dict[str, dict[str, object]] = {}
    for (name, dtype, plan), each in found.items():
        right = Distances()
        beyond = {" of ".join(key): z for key, z in each.items() if z.largest > plans.LIMIT}
        for z in each.values():
            if z.largest <= plans.LIMIT:
                right.join(z)
        made[f"{name} | {dtype} | {plan}"] = {
            "version": spread_libraries.version(name), "measured": len(each), "elements": right.elements,
            "rms": round(right.rms, 2), "largest": round(right.largest, 1), "where": right.where,
            "beyond": {key: [z.where, f"{z.largest:.3g}"] for key, z in beyond.items()},
        }  # fmt: skip
    return made


def table(data: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The two tables of the page."""
    yield "| implementation | version | dtype | plan | measured | rms | largest | where |"
    yield "|---|---|---|---|---|---|---|---|"
    for key, row in data.items():
        name, dtype, plan = key.split(" | ")
        right = row["measured"] - len(row["beyond"])
        cells = [name, row["version"], dtype, plan, f"{right} of {row['measured']}", row["rms"], row["largest"]]
        yield f"| {' | '.join(map(str, cells))} | {row['where']} |"
    yield ""
    yield "| implementation | dtype | plan | beyond the limit, and by how many deviations |"
    yield "|---|---|---|---|"
    for key, row in data.items():
        if row["beyond"]:
            yield f"| {key} | {'; '.join(f'{where} ({z})' for where, z in row['beyond'].values())} |"


def render() -> None:
    """Puts the tables between the marks of the page."""
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def rendered(page: str) -> str:
    """The page with what was measured."""
    for (begin, end), path, lines in (((BEGIN, END), DATA, table), (SIZED, spread_sized.DATA, spread_sized.table)):
        before, _, rest = page.partition(begin)
        found = "\n".join(lines(json.loads(path.read_text(encoding="utf-8"))))
        page = f"{before}{begin}\n\n{found}\n\n{end}{rest.partition(end)[2]}"
    return page


def keep(found: Measured) -> None:
    """Adds to what was measured before; who is measured again has what is new alone."""
    data = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    DATA.write_text(json.dumps(data | record(found), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    render()


def rows(found: Measured) -> Iterator[str]:
    yield "| implementation | dtype | plan | operations × profiles | numbers | rms z | largest z | where |"
    yield "|---|---|---|---|---|---|---|---|"
    for (name, dtype, plan), each in found.items():
        total = Distances()
        for z in each.values():
            total.join(z)
        yield (
            f"| {name} | {dtype} | {plan} | {len(each)} | {total.elements:,} | {total.rms:.2f} | {total.largest:.1f} | "
            f"{total.where} |"
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure how many standard deviations right implementations are off.")
    for name in ("only", "problem", "dtype", "profile", "operation"):
        parser.add_argument(f"--{name}", default="", metavar="TEXT", help=f"what has TEXT in its name ({name})")
    parser.add_argument("--each", action="store_true", help="also every problem and profile beyond half the limit")
    parser.add_argument("--sized", action="store_true", help="the sized cases, in the place of the problems")
    parser.add_argument("--write", action="store_true", help="keep what is measured, and write the page")
    parser.add_argument("--render", action="store_true", help="write the page from what was measured before")
    chosen = parser.parse_args(arguments)
    if chosen.render:
        render()
        return 0
    warnings.simplefilter("ignore")
    if chosen.sized:
        found_there = spread_sized.measured(chosen.only, chosen.operation, chosen.dtype, write=chosen.write)
        print("\n".join(spread_sized.table(found_there)))
        if chosen.write:
            render()
        return 0
    found, refused = measured(chosen.only, chosen.problem, chosen.dtype, chosen.profile, write=chosen.write)
    print("\n".join(rows(found)))
    if chosen.each:
        for row, each in found.items():
            for z in each.values():
                if z.largest > plans.LIMIT / 2:
                    print(f"  {', '.join(row)}: {z.where}: rms {z.rms:.2f}, largest {z.largest:.1f}")
        print("\n".join(refused))
    print(f"\n{len(refused)} calls refused. The limit is {plans.LIMIT:g} standard deviations.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
