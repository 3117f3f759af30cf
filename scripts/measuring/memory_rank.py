"""One process of `scripts/measure_scaling.py memory`, which mpiexec starts: a command of refllm on several ranks, and
the most memory that each rank had by the end of each part of it.

It is called with a file for what is found, and the words of the command; rank 0 reads what Linux counts of all of them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]
from refllm import ranks
from refllm.cli import main as refllm
from refllm.run import Run
from refllm.train import Trainer

PARTS = {
    "begin": (Run, "begin"), "resume": (Run, "_resumed"), "step": (Trainer, "step"), "validate": (Run, "validate"),
    "keep": (Trainer, "keep_best"), "end": (Trainer, "end_with_best"), "save": (Run, "save"),
}  # fmt: skip


class Peaks:
    """The most bytes of each process in each part of a command, above what it had when that began its run."""

    def __init__(self, processes: list[int]) -> None:
        self.processes = processes
        self.before: list[int] | None = None
        self.found: dict[str, list[int]] = {}

    def of(self, part: str, f: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which belongs to that part of the command."""

        def measured(*arguments: Any, **keywords: Any) -> Any:
            if self.before is None:
                self.before = [of_status("VmRSS", process) for process in self.processes]
            self._forget()
            done = f(*arguments, **keywords)
            most = [of_status("VmHWM", process) for process in self.processes]
            above = [peak - before for peak, before in zip(most, self.before, strict=True)]
            earlier = self.found.get(part, above)
            self.found[part] = [max(one, other) for one, other in zip(above, earlier, strict=True)]
            self._forget()
            return done

        return measured

    def _forget(self) -> None:
        for process in self.processes:
            Path(f"/proc/{process}/clear_refs").write_text("5", encoding="ascii")


def of_status(name: str, process: int | str = "self") -> int:
    """Bytes of a process, as Linux counts them."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def main() -> int:
    out, *words = sys.argv[1:]
    world = ranks.communicator()
    peaks = Peaks(world.allgather(os.getpid()))
    if world.rank == 0:
        for part, (owner, name) in PARTS.items():
            f = getattr(owner, name)
            if hasattr(f, "__func__"):  # of the class
                setattr(owner, name, classmethod(peaks.of(part, f.__func__)))
            else:
                setattr(owner, name, peaks.of(part, f))
    status = refllm(words)
    if world.rank == 0:
        Path(out).write_text(json.dumps(peaks.found), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
