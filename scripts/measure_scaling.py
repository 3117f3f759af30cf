#!/usr/bin/env python3
"""What a step of training costs on several processes: computing, sending and waiting, measured on this machine.

    python scripts/measure_scaling.py cost       1, 2 and 4 processes; what a message between two takes
    python scripts/measure_scaling.py network    2 and 4 processes in network namespaces with delays (needs root)
    python scripts/measure_scaling.py weak       1 and 2 processes in turn, a core and a batch each
    python scripts/measure_scaling.py memory     4 processes with each cut: what a fit takes of each (needs Linux)

Run it with a Python that has the optional part mpi. Each writes its part of docs/data/scaling.json, which the page
docs/scaling.md is made from, with the command and the load of the machine; --show only prints it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
from libraries import require  # noqa: E402  (from this checkout)
from measuring import delayed_network  # noqa: E402

DATA, RANK = ROOT / "docs/data/scaling.json", ROOT / "scripts/measuring/scaling_rank.py"
MEMORY = ROOT / "scripts/measuring/memory_rank.py"
SIZES = {
    "tiny": {"vocabulary": 512, "context": 64, "layers": 4, "heads": 4, "width": 128, "batch": 16},
    "small": {"vocabulary": 4096, "context": 256, "layers": 6, "heads": 6, "width": 384, "batch": 8},
}
NETWORKS = [(0.005, 12.5e6), (0.02, 12.5e6), (0.005, 5e6)]  # seconds there, bytes a second
MESSAGES = [0, 1 << 20]  # bytes
DEEP = [
    "--layers",
    "24",
    "--width",
    "288",
    "--heads",
    "4",
    "--context",
    "16",
    "--vocabulary",
    "256",
    "--batch",
    "4",
    "--reports",
    "2",
    "--patience",
    "9",
]
AMID = 60  # seconds that a step may take at most, with all that is around it


def main() -> int:
    if not {"-h", "--help"} & set(sys.argv[1:]):
        require(__doc__, "numpy", "threadpoolctl", "mpi4py")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "network", "weak", "memory"])
    parser.add_argument("--size", choices=list(SIZES), default="tiny", help="of the GPT")
    parser.add_argument("--steps", type=int, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=15, help="of weak: pairs")
    parser.add_argument("--show", action="store_true", help="print it, and leave the file")
    options = parser.parse_args()
    if options.what == "network" and (reason := delayed_network.why_not()):
        print(f"measure_scaling.py: {reason}", file=sys.stderr)
        return 2
    sizes = {**SIZES[options.size], "rounds": options.rounds, "messages": MESSAGES}
    before = os.getloadavg()[0]
    found = {"cost": cost, "network": network, "weak": weak, "memory": memory}[options.what](sizes, options.steps)
    command = f"python scripts/measure_scaling.py {shlex.join(sys.argv[1:])}"
    found = {"command": command, "cores": os.cpu_count(), "load_before": round(before, 1), "sizes": sizes, **found}
    print(json.dumps(found, indent=1))
    if not options.show:
        data = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
        DATA.write_text(json.dumps({**data, options.what: found}, indent=1) + "\n", encoding="utf-8")
    return 0


def cost(sizes: dict[str, Any], steps: int) -> dict[str, Any]:
    return {
        "link": asked(2, "link", sizes, 10 * steps)["seconds"],
        "steps": [asked(n, "cost", sizes, steps) for n in (1, 2, 4)],
    }


def network(sizes: dict[str, Any], steps: int) -> dict[str, Any]:
    found = []
    for delay, bandwidth in NETWORKS:
        for n in (2, 4):
            with delayed_network.network(n, delay=delay, bandwidth=bandwidth):
                seconds = asked(n, "link", sizes, steps, in_namespaces=True)["seconds"]
                step = asked(n, "cost", sizes, steps, in_namespaces=True)
            found.append({"delay": delay, "bandwidth": bandwidth, "link": seconds, **step})
    return {"steps": found}


def memory(sizes: dict[str, Any], steps: int) -> dict[str, Any]:
    """Of a fit of BERT, and of one that goes on: with nothing cut, the moments, and the parameters too."""
    from refllm.ranks import SHARDS  # here, since --help needs no package

    return {"sizes": DEEP, "cuts": [_of_a_fit(shard) for shard in (None, *SHARDS)]}


def _of_a_fit(shard: str | None) -> dict[str, Any]:
    """The most bytes of each rank by the end of each part of the two commands."""
    cut = [] if shard is None else ["--shard", shard]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [f"{'good' if n % 2 else 'bad'} thing {n},{n % 2}" for n in range(40)]
        (folder / "texts.csv").write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
        run = folder / "run"
        begin = ["classify", "fit", str(folder / "texts.csv"), "--out", str(run), *DEEP, "--steps", "4"]
        parts = [
            _peaks(folder, [*words, *cut]) for words in (begin, [*begin[:2], "--resume", str(run), "--steps", "2"])
        ]
        parameters = json.loads((run / "summary.json").read_text(encoding="utf-8"))["parameters"]
    return {"shard": shard, "parameters": parameters, "fit": parts[0], "going on": parts[1]}


def _peaks(folder: Path, words: list[str]) -> dict[str, list[int]]:
    out = folder / "peaks.json"
    mpiexec = [str(Path(sys.executable).parent / "mpiexec"), "-n", "4", sys.executable, str(MEMORY), str(out), *words]
    subprocess.run(
        mpiexec, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=sys.stderr, timeout=30 * AMID, check=True
    )
    found: dict[str, list[int]] = json.loads(out.read_text(encoding="utf-8"))
    return found


def weak(sizes: dict[str, Any], steps: int) -> dict[str, Any]:
    """The median of the pairs' ratios, and the middle half of them."""
    found = asked(2, "weak", sizes, steps)
    ratios = [one / both for one, both in zip(found["alone"], found["together"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {**found, "kept": middle, "middle_half": [low, high]}


def asked(n: int, what: str, sizes: dict[str, Any], steps: int, *, in_namespaces: bool = False) -> dict[str, Any]:
    """What rank 0 of n processes prints."""
    words = [sys.executable, str(RANK), json.dumps({"what": what, "sizes": sizes, "steps": steps})]
    mpiexec = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(n)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        if in_namespaces:
            mpiexec = [*_inside(n, Path(folder) / "launcher", mpiexec)]
            quiet |= {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp", "FI_TCP_IFACE": delayed_network.CARD}
        limit = AMID * (steps + sizes["rounds"])
        done = subprocess.run(
            [*mpiexec, *words], env=quiet, stdout=subprocess.PIPE, text=True, timeout=limit, check=True
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _inside(n: int, launcher: Path, mpiexec: list[str]) -> list[str]:
    """mpiexec with a process in each namespace: it takes them for machines, and the launcher for ssh."""
    names = {delayed_network.address(k): delayed_network.name(k) for k in range(n)}
    launcher.write_text(
        f"#!{sys.executable}\nimport os, sys\nnames, words = {names!r}, sys.argv[1:]\n"
        "place = next(k for k, word in enumerate(words) if word in names)\n"
        "inside = ['ip', 'netns', 'exec', names[words[place]]]\n"
        "os.execvp('ip', [*inside, 'sh', '-c', ' '.join(words[place + 1 :])])\n"
    )
    launcher.chmod(0o755)
    first = delayed_network.address(0)
    hosts = ["-localhost", first, "-launcher", "ssh", "-launcher-exec", str(launcher), "-hosts", ",".join(names)]
    return ["ip", "netns", "exec", delayed_network.name(0), *mpiexec, *hosts, "-ppn", "1"]


if __name__ == "__main__":
    sys.exit(main())
