"""What README and the documents count is what there is: every such number has a function that computes it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from refllm.verify import corpus, runner
from refllm.verify.kernels.mistakes import MISTAKES
from refllm.verify.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "golden/README.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def golden() -> corpus.Corpus:
    return corpus.load(ROOT / "golden")


def cases() -> int:
    return len(golden().cases)


def megabytes() -> float:
    """Of what the manifest lists, and the pages beside it."""
    return round(sum(path.stat().st_size for path in (ROOT / "golden").rglob("*") if path.is_file()) / 1e6, 1)


def decided(dtype: str) -> int:
    """The cases with numbers that arithmetic of this dtype can be asked."""
    return sum(case.level > 0 and not runner.unfit_for(case, dtype, golden().C) for case in golden().cases.values())


# A pattern with one number in it, as the pages have it with their lines joined, and what that number must be.
COUNTED: list[tuple[str, Callable[[], float]]] = [
    (r"The (\d+) golden cases", cases),
    (r"passes all (\d+) in float64", cases),
    (r"golden cases \(([\d.]+) MB", megabytes),
    (r"bank of (\d+) realistic mistakes", lambda: len(MUTANTS)),
    (r"[Aa]ll (\d+) fail, and the", lambda: len(MUTANTS)),
    (r"(\d+) mistakes of kernels", lambda: len(MISTAKES)),
    (r"(\d+) of them with a public report", lambda: sum(mistake.issue is not None for mistake in MISTAKES)),
    (r"(\d+) of them with the public issue", lambda: sum(mutant.issue is not None for mutant in MUTANTS)),
    (r"\| refllm \(NumPy\) \| float64 \| (\d+) \|", lambda: decided("float64")),
    (r"\| refllm \(NumPy\) \| float32 \| (\d+) \|", lambda: decided("float32")),
    (r"So C = ([\d.]+) leaves", lambda: golden().C),
]


def stated(pattern: str, text: str) -> list[float]:
    return [float(number) for number in re.findall(pattern, text)]


def joined(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8").split())


@pytest.mark.parametrize(("pattern", "count"), COUNTED, ids=[pattern for pattern, _ in COUNTED])
def test_a_number_of_the_pages_is_what_is_counted(pattern: str, count: Callable[[], float]) -> None:
    found = {page.name: numbers for page in PAGES if (numbers := stated(pattern, joined(page)))}
    assert found, f"no page says {pattern!r}: a pattern that finds nothing checks nothing"
    stale = [f"{name} says {n:g}" for name, numbers in found.items() for n in numbers if n != float(count())]
    assert stale == [], f"write {float(count()):g} for {pattern!r}, as is counted: {', '.join(stale)}"


@pytest.mark.parametrize(("pattern", "count"), COUNTED, ids=[pattern for pattern, _ in COUNTED])
def test_another_number_would_be_noticed(pattern: str, count: Callable[[], float]) -> None:
    text = " ".join(map(joined, PAGES))
    [first] = re.findall(pattern, text)[:1]
    assert stated(pattern, text.replace(first, "7" + first))[0] != float(count())


def test_the_table_of_what_fails_on_which_level_is_of_this_bank() -> None:
    stored = json.loads((ROOT / "docs/data/kill_matrix.json").read_text(encoding="utf-8"))
    again = (
        "the bank is another than in docs/data/kill_matrix.json: ./scripts/book_data.py kill_matrix measures it again"
    )
    of_ids = {name: counts["all"] for name, counts in stored["by_id"].items()}
    assert of_ids == Counter(mutant.spec for mutant in MUTANTS), again
    assert stored["mutants"] == stored["killed"] == len(MUTANTS), again


def test_no_count_of_cases_or_mistakes_stands_in_the_pages_unchecked() -> None:
    """A number beside one of these words is found by a pattern of the table, or measured on something else."""
    loose = re.compile(r"\b(\d{3,}) (?:golden )?(?:cases|mutants|mistakes|known mistakes|realistic mistakes)\b")
    measured = {"284"}  # cases of an earlier calibration
    for page in PAGES:
        text = joined(page)
        checked = {number for pattern, _ in COUNTED for number in re.findall(pattern, text)}
        assert set(loose.findall(text)) - checked - measured == set(), page.name
