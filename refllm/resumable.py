"""Whether a stored run can be gone on with, and whether what it has counted can be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from refllm.directory import is_left, require_not_held
from refllm.errors import UserError
from refllm.invocation import command, quoted
from refllm.state_file import is_a

MOST_SHARDS = 1 << 12  # of a run that is gone on with


def require_begun(directory: Path) -> None:
    """UserError for what a process left that was killed before it had saved anything."""
    if is_left(directory):
        require_not_held(directory)
        raise UserError(
            f"{directory} holds nothing to go on with: its training ended before it had saved anything; begin it "
            f"again with --out {quoted(directory)}"
        )


def require_resumable(directory: Path, description: dict[str, Any]) -> None:
    """UserError for what was not made by steps, and for what was made of another run."""
    if description.get("model") == "ngram":
        raise UserError(
            f"{directory} is a run of an n-gram model, which counts once and has nothing to go on with; train anew"
        )
    if "compressed" in description:
        raise UserError(f"{directory} was made by {command('compress')}, which cannot be gone on with; compress again")


def require_numbers(description: dict[str, Any]) -> None:
    """TypeError unless what a run has counted are numbers that it can have."""
    for name, kind, least in (
        ("reported", "int", 0), ("loss_steps", "int", 0), ("seconds", "float", 0), ("training_seconds", "float", 0),
        ("loss_sum", "float", -math.inf),
    ):  # fmt: skip
        value = description[name]
        if not is_a(value, kind) or not least <= value < math.inf:
            raise TypeError(f"{name} {str(value)[:40]}")
    shards = description["settings"]["shards"]
    if not is_a(shards, "int") or shards > MOST_SHARDS:
        raise TypeError(f"shards {str(shards)[:40]}")
