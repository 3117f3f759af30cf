"""One verification after another in one process leaves no process, file, thread or memory behind."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from refllm.verify import corpus, laws, reference, runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Case
from refllm.verify.isolated import Isolated
from refllm.verify.processes import _children
from refllm.verify.served import Served
from spec_tests.verify.test_isolated import RIGHT
from spec_tests.verify.test_served import PROGRAM

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a process holds")

MEGABYTES = 16.0  # by which memory may differ between two moments of a process that leaks nothing
Verify = Callable[[], Any]


def held() -> tuple[int, int, int]:
    """Open files, children and threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(_children()), threading.active_count()


def megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def ways(folder: Path, cases: list[Case], C: float) -> dict[str, Verify]:
    """Each a whole verification, laws included, of a new implementation."""
    (folder / "mine.py").write_text(RIGHT + "    return numpy.maximum(x, 0), lambda dy: dy * (x > 0)\n")
    (folder / "crashes.py").write_text(RIGHT + "    os.abort()\n")
    (folder / "program.py").write_text(PROGRAM.replace("RELU", "pass"))
    words = shlex.join([sys.executable, "-I", str(folder / "program.py")])

    def judged(mine: Any) -> None:
        with closing(mine):
            results = list(runner.run(mine, cases, "float64", C))
            results = list(laws.held(mine, results, "float64", C, 1e3))
            assert len({result.status for result in results}) == 1

    def functions() -> None:
        mine = Functions("mine", reference.functions(), {})
        list(laws.held(mine, list(runner.run(mine, cases, "float64", C)), "float64", C, 1e3))

    return {
        "functions": functions,
        "module": lambda: judged(Isolated(folder / "mine.py", 20, alone=True)),
        "module that crashes": lambda: judged(Isolated(folder / "crashes.py", 20, alone=True)),
        "program": lambda: judged(Served(words, {}, 20, alone=True)),
    }


COUNTS = {"functions": 1000, "module": 100, "module that crashes": 50, "program": 1000}
QUICK = {"functions": 40, "program": 8}


@pytest.mark.every
@pytest.mark.parametrize(
    ("way", "count"),
    [*QUICK.items(), *(pytest.param(way, n, marks=pytest.mark.slow) for way, n in COUNTS.items())],
)
def test_many_verifications_in_one_process_leave_nothing_behind(
    way: str, count: int, tmp_path: Path, golden: corpus.Corpus
) -> None:
    verify = ways(tmp_path, [golden.cases["FFN/relu-matrix"]], golden.C)[way]
    for _ in range(4):  # what is made once, and kept
        verify()
    before, memory = held(), megabytes()
    for _ in range(count):
        verify()
    assert held() == before
    assert megabytes() - memory < MEGABYTES
