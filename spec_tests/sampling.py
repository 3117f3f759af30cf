"""Laws that are dear and have many subjects: a run of the whole suite examines a sample of these."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest


def is_sampled(config: pytest.Config) -> bool:
    """Whether dear laws are tried on a sample: all tests are asked for, not some by name, and not each of them."""
    whole = [Path(config.rootpath, name) for name in config.args] == [config.rootpath / "spec_tests"]
    return whole and not (config.getoption("--every") or config.getoption("--slow"))


def left_out(items: Iterable[pytest.Item]) -> set[pytest.Item]:
    """What is marked `every`, and of each law that is marked `one_in(k)` all but every k-th of its subjects.

    Where the counting begins differs from law to law, so that every subject is examined by some of them.
    """
    items = list(items)
    subjects_of: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("one_in") and not item.get_closest_marker("skip"):
            subjects_of[item.nodeid.partition("[")[0]].append(item)
    found = {item for item in items if item.get_closest_marker("every")}
    for law, subjects in subjects_of.items():
        [k] = subjects[0].get_closest_marker("one_in").args  # type: ignore[union-attr]
        first = zlib.crc32(law.encode()) % min(k, len(subjects))
        found |= set(subjects) - set(subjects[first::k])
    return found
