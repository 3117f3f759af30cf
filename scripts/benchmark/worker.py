"""A process that runs one side: commands come as JSON lines on stdin, answers go as JSON lines to stdout.

{"prepare": task, "name": name, "save": file}   prepares, saves what the sides must agree on
{"time": n}                                      does it n times: the seconds of each
{"memory": true}                                 the peak of resident memory so far, in bytes, of the process and what
                                                 its children hold of their own
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]


def make(name: str, threads: int) -> Any:
    if name == "refllm":
        from benchmark.side_refllm import Side as Refllm

        return Refllm(threads)
    if name == "jax":
        from benchmark.side_jax import Side as Jax

        return Jax(threads)
    from benchmark.side_torch import Side as Torch

    return Torch(threads, compiled=name == "torch.compile")


def peak_memory() -> int:
    """The peak of this process, and of each child without the files and the shared memory that are counted here."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    total = _kilobytes("self", "VmHWM")  # not getrusage's, which goes back to the process that this one was forked from
    for child in children:
        total += _kilobytes(child, "VmHWM") - _kilobytes(child, "RssFile") - _kilobytes(child, "RssShmem")
    return total * 1024


def _kilobytes(process: str, key: str) -> int:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(status[key].split()[0])


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # what a framework prints must not mix with the answers
    os.dup2(2, 1)
    side = make(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        command = json.loads(line)
        answer: Any = None
        if "prepare" in command:
            import numpy as np

            first = getattr(side, "prepare_" + command["prepare"])(command["name"])
            np.savez(command["save"], **first)
        elif "time" in command:
            answer = []
            for _ in range(command["time"]):
                start = time.perf_counter()
                side.once()
                answer.append(time.perf_counter() - start)
        else:
            answer = peak_memory()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
