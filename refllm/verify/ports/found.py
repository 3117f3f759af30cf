"""What a search has found: mistakes, the steps that they are in, and how far it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refllm.verify.ports.candidates import Candidate


@dataclass(frozen=True)
class Found:
    """A mistake, the steps that it is in, and others that give the same numbers."""

    candidate: Candidate
    places: tuple[int, ...]  # numbers of steps
    acting: tuple[int, ...]  # all that it could be in
    explains: int  # of how many inputs that are wrong everything is explained
    wrong: int
    first: str = ""  # the first value that it changes
    left: float = 0.0  # how far from the port the text with it still is, in what rounding may do
    gives: tuple[bytes, ...] = ()  # what the text with it computes on the inputs that it explains, as digests
    others: tuple[Candidate, ...] = ()

    @property
    def everywhere(self) -> bool:
        return set(self.places) == set(self.acting)


@dataclass(frozen=True)
class Searched:
    """What was found, whether it explains all that was given, and why the search ended before everything was tried:
    "time", "interrupted", or "" where it did not."""

    found: list[Found]
    complete: bool
    tried: int
    ended: str = ""


NOTHING_SOUGHT = Searched([], complete=False, tried=0)


def unlike(found: Sequence[Found]) -> list[Found]:
    """Each sentence once, and each set of lines; and no edit without words that gives the same bits as one before it,
    which is the same mistake written otherwise."""
    kept, told, given = list[Found](), set[tuple[str, ...]](), set[tuple[bytes, ...]]()
    for one in found:
        lines = tuple(line for _, held in one.candidate.lines for line in held)
        said = (one.candidate.said,) if one.candidate.said else lines
        if told & {lines, said} or (not one.candidate.said and one.gives in given):
            continue
        kept.append(one)
        told |= {lines, said}
        given.add(one.gives)
    return kept
