"""The parent of the benchmark: asks the sides in turn, compares, prints, writes JSON and a plot."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.tasks import ATTENTION, GENERATIONS, STEPS, Shape
from libraries import require_plotting
from refllm.directory import require_free
from refllm.errors import UserError
from refllm.pictures import require_free_pictures, save_pictures

WORKER = Path(__file__).with_name("worker.py")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SIDES = {"refllm": "numpy", "torch": "torch", "torch.compile": "torch", "jax": "jax"}  # and the module each needs
IN_A_ROW = 4  # pictures


class Side:
    """A framework in a process of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), name, str(CORES)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def ask(self, **command: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} stopped while asked {command}")
        return json.loads(line)

    def prepare(self, task: str, name: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "first.npz")
            self.ask(prepare=task, name=name, save=file)
            return dict(np.load(file))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def disagreement(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """The worst difference, relative to each tensor's largest entry."""
    return max(float(np.abs(ours[k] - theirs[k]).max() / max(float(np.abs(theirs[k]).max()), 1e-30)) for k in ours)


def measure(task: str, name: str, sides: list[str], *, rounds: int, repeats: int, agree: float) -> dict[str, Any]:
    """Rounds in which every side is timed in turn; the order is turned round every time."""
    running: list[Side] = []
    try:
        first: dict[str, dict[str, Any]] = {}
        for side_name in sides:
            side = Side(side_name)
            try:
                first[side_name] = side.prepare(task, name)
            except RuntimeError as error:
                print(f"  {side_name}: left out ({error})", file=sys.stderr)
                continue
            running.append(side)
        for side in running[1:]:
            worst = disagreement(first["refllm"], first[side.name])
            if not worst <= agree:
                raise SystemExit(
                    f"bench: refllm and {side.name} disagree by {worst:.1e} on {task} {name}: nothing timed"
                )
        for side in running:
            side.ask(time=2)
        times: dict[str, list[float]] = {side.name: [] for side in running}
        for i in range(rounds):
            for side in running if i % 2 == 0 else running[::-1]:
                times[side.name].append(min(side.ask(time=repeats)))
        memory = {side.name: side.ask(memory=True) for side in running}
    finally:
        for side in running:
            side.close()
    return {"task": task, "name": name, "times": times, "memory": memory}


def product_floor(shape: Shape) -> float:
    """Seconds that the matrix products of a step take by themselves on all cores."""
    from threadpoolctl import threadpool_limits

    seconds = 0.0
    with threadpool_limits(CORES):
        for times, m, k, n in shape.products():
            a, b, out = (np.ones(s, np.float32) for s in ((m, k), (k, n), (m, n)))
            best = []
            for _ in range(5):
                start = time.perf_counter()
                np.matmul(a, b, out=out)
                best.append(time.perf_counter() - start)
            seconds += times * min(best)
    return seconds


def told_share(share: dict[str, float]) -> str:
    """What share of each side's time the products alone would take; a share above 1 is no measurement of them."""
    if max(share.values()) > 1:
        worst = max(share, key=share.__getitem__)
        return (
            f"share of that floor: none, since the products alone took {share[worst]:.1f} times as long as {worst}'s "
            "whole step: something else used the cores while they were timed; measure again on a quiet machine"
        )
    return "share of that floor: " + ", ".join(f"{n} {s:.0%}" for n, s in share.items())


def bandwidth() -> float:
    """Bytes a second that a matrix-vector product over 512 MB reads, on all cores."""
    W, x = np.ones((16384, 8192), np.float32), np.ones(8192, np.float32)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        W @ x
        best = min(best, time.perf_counter() - start)
    return W.nbytes / best


def start_up() -> list[float]:
    """Seconds from the start of a process to the end of refllm's first training step."""
    places = [str(WORKER.parents[2]), str(WORKER.parents[1])]
    code = (
        f"import sys; sys.path[:0] = {places!r}; from benchmark.side_refllm import Side; s = Side({CORES}); "
        "s.prepare_step('tiny')"  # which makes the first step
    )
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds.append(time.perf_counter() - start)
    return seconds


def table(result: dict[str, Any], note: str = "") -> None:
    ours = np.array(result["times"]["refllm"])
    print(f"\n{result['task']} {result['name']}{note}")
    print(f"  {'':<14}{'median':>10}{'minimum':>10}{'spread':>8}{'refllm / it':>13}{'peak MB':>9}")
    for name, seconds in result["times"].items():
        t = np.array(seconds)
        ratio = np.median(ours / t)
        print(
            f"  {name:<14}{1e3 * np.median(t):>8.2f}ms{1e3 * t.min():>8.2f}ms"
            f"{(np.quantile(t, 0.75) - np.quantile(t, 0.25)) / np.median(t):>8.0%}{ratio:>13.2f}"
            f"{result['memory'][name] / 1e6:>9.0f}"
        )
        result.setdefault("ratios", {})[name] = float(ratio)


def plot(results: list[dict[str, Any]], file: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [r for r in results if len(r["times"]) > 1]
    rows = -(-len(shown) // IN_A_ROW)
    figure = plt.figure(figsize=(2.2 * min(len(shown), IN_A_ROW), 3.2 * rows), layout="constrained")
    colours = {"refllm": "#1f77b4", "torch": "#ff7f0e", "torch.compile": "#ffbb78", "jax": "#7f7f7f"}
    for place, result in enumerate(shown):
        axis = figure.add_subplot(rows, min(len(shown), IN_A_ROW), place + 1)
        names = list(result["times"])
        axis.boxplot(
            [1e3 * np.array(result["times"][n]) for n in names], tick_labels=names, widths=0.6, patch_artist=True,
            boxprops={"facecolor": "none"}, medianprops={"color": "black"},
        )  # fmt: skip
        for patch, n in zip(axis.patches, names, strict=True):
            patch.set_facecolor(colours[n])
        axis.set_title(f"{result['task']} {result['name']}", fontsize=9)
        axis.set_ylim(bottom=0)
        axis.tick_params(axis="x", labelrotation=60, labelsize=8)
        if place % IN_A_ROW == 0:
            axis.set_ylabel("milliseconds")
    save_pictures(figure, Path(file))


def require_free_files(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program where a file that it is to write is there already, or cannot be drawn."""
    try:
        if options.json:
            require_free(Path(options.json))
        if options.plot:
            require_free_pictures(Path(options.plot))
    except UserError as error:
        parser.error(str(error))
    require_plotting(parser, options.plot)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="refllm beside PyTorch and JAX, interleaved in one run.")
    parser.add_argument("--only", default="step,generation,attention,start", help="tasks, with commas between")
    parser.add_argument("--sides", default=",".join(SIDES), help="sides, with commas between")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--longest", type=int, default=16384, help="longest attention (default 16384)")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE", help="the picture, as PNG and as SVG")
    options = parser.parse_args()
    require_free_files(parser, options)
    tasks = options.only.split(",")
    sides = [s for s in options.sides.split(",") if importlib.util.find_spec(SIDES[s])]
    if "refllm" not in sides:
        sides.insert(0, "refllm")
    print(f"{platform.machine()}, {CORES} cores, Python {platform.python_version()}; {', '.join(sides)}")
    results: list[dict[str, Any]] = []
    if "step" in tasks:
        for name, shape in STEPS.items():
            before = product_floor(shape)
            result = measure("step", name, sides, rounds=options.rounds, repeats=3, agree=1e-3)
            floor = min(before, product_floor(shape))
            share = {n: floor / float(np.median(t)) for n, t in result["times"].items()}
            result |= {"floor_seconds": floor, "floor_share": share if max(share.values()) <= 1 else None}
            table(result, f": matrix products alone {1e3 * floor:.1f} ms")
            print(f"  {told_share(share)}")
            results.append(result)
    if "generation" in tasks:
        rate = bandwidth()
        for name, (shape, new_tokens) in GENERATIONS.items():
            pair = [s for s in sides if s in ("refllm", "torch")]
            result = measure("generation", name, pair, rounds=options.rounds, repeats=1, agree=0)
            per_second = {n: new_tokens / float(np.median(t)) for n, t in result["times"].items()}
            best = rate / (4 * shape.size)
            result |= {"tokens_per_second": per_second, "bandwidth_limit": best}
            table(result)
            print(
                "  tokens/s: "
                + ", ".join(f"{n} {s:.0f} ({s / best:.0%} of the bandwidth)" for n, s in per_second.items())
            )
            results.append(result)
    if "attention" in tasks:
        for length in (n for n in ATTENTION if n <= options.longest):
            pair = [s for s in sides if s in ("refllm", "torch")]
            rounds = options.rounds if length <= 4096 else max(3, options.rounds // 5)
            result = measure("attention", str(length), pair, rounds=rounds, repeats=1, agree=1e-3)
            table(result)
            results.append(result)
    if "start" in tasks:
        seconds = start_up()
        print(
            f"\nprocess start to the end of the first step: median {np.median(seconds):.3f} s, "
            f"minimum {min(seconds):.3f} s"
        )
        results.append({"task": "start", "name": "tiny", "times": {"refllm": seconds}, "memory": {}})
    if options.json:
        Path(options.json).write_text(json.dumps({"cores": CORES, "results": results}, indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)
    return 0
