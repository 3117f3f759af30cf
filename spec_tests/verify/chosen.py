"""Some of the golden cases, where all of them would take long and tell no more."""

from __future__ import annotations

from collections import Counter

from refllm.verify.case import Case
from refllm.verify.corpus import Corpus


def representatives(golden: Corpus) -> list[Case]:
    """Every case up to level 1, and two of each operation above."""
    seen: Counter[str] = Counter()
    chosen = []
    for case in golden.cases.values():
        seen[case.operation] += 1
        if case.level <= 1 or seen[case.operation] <= 2:
            chosen.append(case)
    return chosen
