"""refllm runs: what has been trained, in a table."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from refllm.cells import cells, padded
from refllm.checkpoint import STATE
from refllm.commands.train import LESS_MEMORY, RUNS
from refllm.directory import LOCK, is_left
from refllm.errors import UserError
from refllm.invocation import command
from refllm.reported import METRICS, SUMMARY
from refllm.tasks.stored import stored_model
from refllm.training_page import read_lines

DESCRIPTION = """List the runs in a folder: model, steps, held-out loss, bits per character, when, and size.

example: refllm runs
         refllm runs experiments/ --json"""

__all__ = ["DESCRIPTION", "LESS_MEMORY", "add_arguments", "run"]

DEPTH = 3  # folders within folders that are looked at: a comparison has its runs in a folder of their own
_MEASURES = ("val_loss", "val_bpc", "val_bpt")
_HEADS = ("run", "model", "steps", "loss", "bits/char", "when", "size", "state")
_TO_THE_RIGHT = ("steps", "loss", "bits/char", "size")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", nargs="?", help=f"where to look (default {RUNS}/)")
    parser.add_argument("--json", action="store_true", help="as JSON, a row a run")


def run(options: argparse.Namespace) -> int:
    folder = Path(options.folder) if options.folder else RUNS
    if not folder.is_dir():
        how = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {how}; name a folder with runs, or make one by {command('train')}")
    rows = [_row(path) for path in runs_in(folder)]
    if not rows and not options.json:
        raise UserError(f"there is no run in {folder}; make one by {command('train')}")
    print(json.dumps(rows, indent=1) if options.json else as_text(rows))
    return 0


def runs_in(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """The runs in a folder and in those within it, in the order of their names, 2 before 10."""
    if _is_run(folder):
        yield folder
    elif depth:
        try:
            inside = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
        except OSError:  # what may not be read is not looked at
            return
        for path in sorted(inside, key=lambda path: [int(x) if x.isdigit() else x for x in _parts(path.name)]):
            yield from runs_in(path, depth - 1)


def _parts(name: str) -> list[str]:
    """Words and ASCII numbers in turn, so that a number is compared with a number."""
    return re.split(r"([0-9]{1,18})", name)


def _is_run(path: Path) -> bool:
    return any(os.path.lexists(path / name) for name in ("checkpoint", METRICS, SUMMARY, LOCK)) and not os.path.lexists(
        path / "compare.json"
    )


def _row(path: Path) -> dict[str, Any]:
    """The line of a run; of one that is damaged, why."""
    try:
        if is_left(path):
            return {
                "run": str(path),
                "damaged": "nothing is saved yet: it is training, or was ended before the first save",
            }
        return _whole(path)
    except UserError as error:
        return {"run": str(path), "damaged": str(error)}
    except OSError as error:
        return {"run": str(path), "damaged": f"cannot be read: {error.strerror or error}"}


def _whole(path: Path) -> dict[str, Any]:
    state = path / "checkpoint" / STATE
    description = stored_model(path).description
    for group, entry in description["files"].items():
        found = (path / "checkpoint" / entry["file"]).stat().st_size
        if found != entry["bytes"]:
            raise UserError(f"{path}/checkpoint: {group} was cut short: {found} of {entry['bytes']} bytes")
    step = description.get("step", 0)
    summary = _summary(path / SUMMARY)
    complete = summary is not None and summary.get("steps", 0) == step
    lines = [line for line in read_lines(path / METRICS) if line["step"] <= step]
    measured = summary if summary is not None and complete else lines[-1] if lines else {}
    return {
        "run": str(path),
        "model": str(description["model"]),
        "steps": step,
        **{key: measured[key] for key in _MEASURES if type(measured.get(key)) in (int, float)},
        "when": datetime.fromtimestamp(state.stat().st_mtime).isoformat(" ", "minutes"),
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "complete": complete,
    }


def _summary(path: Path) -> dict[str, Any] | None:
    """The summary of a run; None where there is none, or it cannot be read."""
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def as_text(rows: list[dict[str, Any]]) -> str:
    """The table, and below it a line for each run that is damaged."""
    whole = [_cells(row) for row in rows if "damaged" not in row]
    lines = []
    if whole:
        grid = [list(_HEADS), *whole]
        widths = [max(cells(row[i]) for row in grid) for i in range(len(_HEADS))]
        for row in grid:
            padding = zip(_HEADS, row, widths, strict=True)
            lines.append("  ".join(padded(text, n, right=head in _TO_THE_RIGHT) for head, text, n in padding).rstrip())
    broken = [f"{_printable(row['run'])}: {_printable(row['damaged'])}" for row in rows if "damaged" in row]
    return "\n".join([*lines, *([""] if lines and broken else []), *broken])


def _cells(row: dict[str, Any]) -> list[str]:
    bits = f"{row['val_bpc']:.3f}" if "val_bpc" in row else f"{row['val_bpt']:.3f}/token" if "val_bpt" in row else "-"
    return [
        _printable(row["run"]), _printable(row["model"]), f"{row['steps']:,}",
        f"{row['val_loss']:.3f}" if "val_loss" in row else "-", bits, row["when"], _size(row["bytes"]),
        "complete" if row["complete"] else "unfinished",
    ]  # fmt: skip


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _printable(text: str) -> str:
    """A name as a terminal shows it in one line."""
    return "".join(c if c.isprintable() else "?" for c in text)
