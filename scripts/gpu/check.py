"""What only a GPU can show: the tests marked gpu, gradients against float64 on the host, timings beside PyTorch.

    scripts/gpu_check [--out FILE] [--no-tests]

Needs CuPy and a GPU, and the test extra; PyTorch on the same GPU is timed where it is installed.
Exit status: 0 if everything agrees, 1 if something does not, 2 if it cannot run here.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import refllm
from gpu import gradients, timing, torch_side
from gpu.sizes import USUAL, Sizes
from refllm.backend import allow_tf32, device_namespace
from refllm.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SUITES = {
    "marked gpu": ["-m", "gpu", "spec_tests"],
    "operations on the device": ["--device=cuda", "spec_tests/ops"],
}


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument("--out", metavar="FILE", default="gpu_check.json", help="figures (default gpu_check.json)")
    parser.add_argument("--no-tests", action="store_true", help="gradients and timings alone")
    options = parser.parse_args(arguments)
    try:
        report = check(Path(options.out), tests=not options.no_tests, sizes=USUAL)
    except UserError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    return 0 if report["agrees"] else 1


def check(out: Path, *, tests: bool, sizes: Sizes) -> dict[str, Any]:
    """Everything, printed as it comes and written to `out`. UserError where there is no GPU, or `out` exists."""
    if out.exists():
        raise UserError(f"{out} exists and will not be overwritten; give another --out")
    cupy = device_namespace("cuda")
    allow_tf32(False, "cuda")
    torch, version = torch_side.find("cuda")
    report: dict[str, Any] = {
        "gpu": cupy.cuda.runtime.getDeviceProperties(0)["name"].decode(),
        "python": platform.python_version(), "refllm": refllm.__version__, "cupy": cupy.__version__, "torch": version,
        "sizes": asdict(sizes), "tests": {}, "gradients": [], "timings": [],
    }  # fmt: skip
    print(f"{report['gpu']}, CuPy {cupy.__version__}, PyTorch {version}")
    if tests:
        report["tests"] = {name: _run(name, chosen) for name, chosen in SUITES.items()}
    for row in gradients.rows(sizes.examples):
        report["gradients"].append(row)
        verdict = "" if row["agrees"] else "  DISAGREES"
        print(f"{row['name']:<22}{row['dtype']:<9}{row['error']:>9.1e}, limit {row['limit']:.0e}{verdict}")
    for row in timing.rows(cupy, torch, sizes):
        report["timings"].append(row)
        print("   ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()))
    report["agrees"] = all(report["tests"].values()) and all(row["agrees"] for row in report["gradients"])
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{'everything agrees' if report['agrees'] else 'NOT everything agrees'}; figures in {out}")
    return report


def _run(name: str, chosen: list[str]) -> bool:
    """Whether a part of the tests passes here."""
    print(f"tests, {name}:", flush=True)
    return subprocess.call([sys.executable, "-m", "pytest", "-q", *chosen], cwd=ROOT) == 0
