"""refllm scaling: what training a published model takes on many processes, by a model of their time and memory."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from refllm.errors import UserError
from refllm.scaling.links import Link
from refllm.scaling.machines import MACHINES, Machine
from refllm.scaling.memory import needed
from refllm.scaling.search import best
from refllm.scaling.steps import predicted, trained
from refllm.scaling.workloads import PUBLISHED, Workload, published

DESCRIPTION = """Predict what training a published model takes on many processes: how to cut it, the time of a step and
what it goes into, the memory of a process, days and money. Nothing is trained. The formulas and what they were held
against are in docs/scaling.md. Prices are an assumption: say yours.

example: refllm scaling llama2-7b --processes 8,1024 --machine a100 --price 1.5"""

LESS_MEMORY = "give fewer --processes"
COUNTS = "8,64,1024,16384"
MOST = 1 << 20  # processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("size", metavar="MODEL", help=", ".join(PUBLISHED))
    parser.add_argument("--processes", default=COUNTS, metavar="N,N", help=f"numbers of processes (default {COUNTS})")
    parser.add_argument("--machine", default="a100", choices=list(MACHINES), help="what the rest is taken from")
    parser.add_argument("--batch", type=int, metavar="N", help="texts a step (default: as published)")
    parser.add_argument("--tokens", type=float, metavar="X", help="in all (default: as published, or 20 a weight)")
    parser.add_argument("--price", type=float, metavar="X", help="of a process an hour")
    parser.add_argument("--flops", type=float, metavar="X", help="of a process a second, at most")
    parser.add_argument("--share", type=float, metavar="X", help="of these, what a model reaches while it computes")
    parser.add_argument("--memory", type=float, metavar="X", help="bytes of a process")
    parser.add_argument("--node", type=int, metavar="N", help="processes that stand together")
    parser.add_argument("--latency", type=float, metavar="X", help="seconds of an empty message between nodes")
    parser.add_argument("--bandwidth", type=float, metavar="X", help="bytes a second between nodes")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> int:
    workload = published(options.size, batch=options.batch, tokens=options.tokens)
    machine = _machine(options)
    rows = [_row(workload, machine, n) for n in _counts(options.processes)]
    if options.json:
        print(json.dumps({"model": options.size, "machine": asdict(machine), "rows": rows}, indent=1))
    else:
        print("\n".join(_lines(options.size, workload, machine, rows)))
    return 0


def _machine(options: argparse.Namespace) -> Machine:
    machine = MACHINES[options.machine]
    between = {"latency": options.latency, "bandwidth": options.bandwidth}
    link = {**asdict(machine.between), **{name: x for name, x in between.items() if x is not None}}
    names = ("price", "flops", "share", "memory", "node")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return replace(machine, between=Link(**link), **given)


def _counts(text: str) -> list[int]:
    counts = [int(word) if word.strip().isdecimal() else 0 for word in text.split(",")]
    if not all(1 <= n <= MOST for n in counts):
        raise UserError(f"--processes are whole numbers from 1 to {MOST:,} with commas between, got {text!r}")
    return counts


def _row(workload: Workload, machine: Machine, processes: int) -> dict[str, Any]:
    try:
        cut = best(workload, machine, processes)
    except UserError as error:
        return {"processes": processes, "impossible": str(error)}
    step, training = predicted(workload, machine, cut), trained(workload, machine, cut)
    return {
        "processes": processes, "cut": asdict(cut), "memory": needed(workload, cut), "step": asdict(step),
        "seconds": step.total, "communication": step.communication, "waiting": step.waiting, "days": training.days,
        "process_hours": training.process_hours, "money": training.money,
    }  # fmt: skip


def _lines(name: str, workload: Workload, machine: Machine, rows: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        f"{name}: {workload.parameters:,} weights, {workload.batch:,} texts of {workload.context:,} tokens a step, "
        f"{workload.tokens:.3g} tokens; {machine.price:g} an hour for each process (assumed)"
    )
    yield (
        f"{'processes':>9}  {'step':>9}  computing  sending  waiting  {'memory':>8}  {'days':>8}  {'hours':>11}  "
        f"{'money':>11}"
    )
    for row in rows:
        if "impossible" in row:
            yield f"{row['processes']:9,}  {row['impossible']}"
            continue
        parts = (row["step"]["compute"], row["communication"], row["waiting"])
        compute, communication, waiting = (f"{100 * part / row['seconds']:.0f} %" for part in parts)
        yield (
            f"{row['processes']:9,}  {row['seconds']:7.3g} s  {compute:>9}  {communication:>7}  {waiting:>7}  "
            f"{row['memory'] / 1e9:5.1f} GB  {row['days']:8.3g}  {row['process_hours']:11,.0f}  {row['money']:11,.0f}"
        )
        yield f"{'':11}cut: {cut_in_words(row['cut'])}"


def cut_in_words(cut: dict[str, Any]) -> str:
    """What is cut, without what is not."""
    kinds = {"data": "texts", "sequence": "places", "tensor": "weights of a layer", "pipeline": "layers"}
    words = [f"{what} in {cut[name]:,}" for name, what in kinds.items() if cut[name] > 1]
    words += {"whole": [], "moments": ["moments over the copies"], "weights": ["all state over the copies"]}[
        cut["state"]
    ]
    words += [f"{cut['micro']} text{'s' * (cut['micro'] > 1)} at once"]
    return ", ".join(words + ["layers computed again"] * cut["recompute"])
