"""scripts/context measures what it says, and memory grows no faster than the context."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def measured(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "scripts/context", *arguments, "--json", str(tmp_path / "rows.json")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows: list[dict[str, Any]] = json.loads((tmp_path / "rows.json").read_text())
    return rows


@pytest.mark.one_in(4)
@pytest.mark.parametrize("script", [["context", "memory"], ["bench"]])
@pytest.mark.parametrize("flag", ["--json", "--plot"])
def test_figures_are_not_overwritten(tmp_path: Path, script: list[str], flag: str) -> None:
    (tmp_path / "mine.svg").write_text("mine")
    command = [sys.executable, f"scripts/{script[0]}", *script[1:], flag, str(tmp_path / "mine.svg")]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is there already and will not be overwritten" in done.stderr
    assert (tmp_path / "mine.svg").read_text() == "mine"


@pytest.mark.slow
def test_the_memory_of_a_step_grows_linearly_with_the_context(tmp_path: Path) -> None:
    """From 1024 to 3072 at most by twice what 512 more tokens cost for each of those: a square would be far beyond."""
    rows = measured(tmp_path, "memory", "--contexts", "512", "1024", "3072")
    for model in ("gpt", "llama"):
        peak = {row["context"]: row["peak_bytes"] for row in rows if row["model"] == model}
        a_token = (peak[1024] - peak[512]) / 512
        assert (peak[3072] - peak[1024]) / 2048 < 2 * a_token
        assert peak[3072] < 400e6


@pytest.mark.slow
def test_every_scheme_of_positions_is_evaluated_beyond_its_training(tmp_path: Path) -> None:
    rows = measured(tmp_path, "beyond", "--minutes", "0.02", "--lengths", "64", "128")
    lengths = {scheme: [r["length"] for r in rows if r["scheme"] == scheme] for scheme in {r["scheme"] for r in rows}}
    assert lengths.pop("learned") == [64]
    assert set(map(tuple, lengths.values())) == {(64, 128)}
    assert len(lengths) == 5
