"""What a call must keep besides giving the right numbers, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Law:
    """A law that was tried and is worth a line: broken, which fails the case, or kept in part, which is a note."""

    name: str  # "inputs unchanged"
    broken: bool
    message: str  # what was done, and what came
