"""The part of much data that a run by minutes has the time to read: evenly spread over it, and the same when the run is
gone on with. (DATA)"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, Self, TypeVar

from refllm.data.batching import evenly
from refllm.data.corpus import Split
from refllm.state_file import made_of

Item = TypeVar("Item")

PIECE = 1 << 16  # characters of a text that stay together
TRIED = 1 << 19  # characters that are read first, to tell how many there is time for
SHARE = 0.1  # of the minutes of a run, that making tokens of its data may take
SLOWER = 1.5  # reading a lot takes longer a character than reading a little, at most


@dataclass(frozen=True)
class Part:
    """How many of the pieces of a text, or of the examples, are read of those to learn from and of those held out;
    None: all of them. Goes into the state of a run."""

    train: int | None = None
    held_out: int | None = None

    def __post_init__(self) -> None:
        for number in (self.train, self.held_out):
            if number is not None and number < 1:
                raise TypeError(f"part {self}")

    @property
    def is_all(self) -> bool:
        return self.train is None and self.held_out is None


ALL = Part()


def part_of(description: dict[str, Any]) -> Part:
    """The part of its data that a run reads, from its state."""
    return made_of(Part, description.get("part", {}))


def share_of(minutes: float | None) -> float | None:
    """Seconds that a run by minutes has for making tokens of its data; None for one that has any."""
    return None if minutes is None else SHARE * 60 * minutes


def pieces_of(text: str) -> list[tuple[int, int]]:
    """Where the pieces of a text begin and end: of PIECE characters and, if one follows soon, up to a blank line, or
    else to the end of a line."""
    found, start = [], 0
    while start < len(text):
        end = start + PIECE
        for border in ("\n\n", "\n"):
            place = text.find(border, end, end + PIECE // 4)
            if place >= 0:
                end = place + len(border)
                break
        found.append((start, min(end, len(text))))
        start = end
    return found


def some_pieces(text: str, number: int | None) -> str:
    """So many of the pieces of a text, evenly spread, as one text; the whole of it for None."""
    if number is None:
        return text
    pieces = pieces_of(text)
    return "".join(text[pieces[i][0] : pieces[i][1]] for i in evenly(len(pieces), number).tolist())


def some(items: Sequence[Item], number: int | None) -> list[Item]:
    """So many of the items, evenly spread; all of them for None."""
    return [items[i] for i in evenly(len(items), number).tolist()]


@dataclass(frozen=True)
class Examples(Generic[Item]):
    """Examples to learn from and to hold out, under a name, with the SHA-256 of all of them; or the part of them that a
    run reads, of how many."""

    name: str
    train: list[Item]
    validation: list[Item]
    digest: str
    part: Part = ALL
    of: tuple[int, int] = (0, 0)

    def read(self: Self, part: Part) -> Self:
        """The part of them that is read."""
        if part.is_all:
            return self
        return replace(
            self, train=some(self.train, part.train), validation=some(self.validation, part.held_out), part=part,
            of=(len(self.train), len(self.validation)),
        )  # fmt: skip

    def told(self) -> str:
        """A further line of an introduction, where not all of them are read."""
        if self.part.is_all:
            return ""
        return f"\n           (evenly spread of {self.of[0]:,} and {self.of[1]:,}: there is no time to read more)"

    def described(self) -> dict[str, Any]:
        """What tells the part from others, ready for JSON."""
        return {} if self.part.is_all else {"part": asdict(self.part)}


def part_of_text(parts: Split, work: Callable[[str], object], *, seconds: float | None) -> Part:
    """The part of a text that `work` gets through in so many seconds; everything for None. What is held out has a share
    of the time as large as of the text."""
    whole = len(parts.train) + len(parts.validation)
    if seconds is None or whole <= TRIED:
        return ALL
    tried = some_pieces(parts.train, TRIED // PIECE)
    permitted = _permitted(lambda: work(tried), len(tried), of=whole, seconds=seconds)
    if permitted >= 1:
        return ALL
    numbers = [max(1, math.floor(permitted * len(pieces_of(text)))) for text in (parts.train, parts.validation)]
    return Part(*numbers)


def part_of_examples(
    read: Examples[Item],
    work: Callable[[Sequence[Item]], object],
    *,
    length: Callable[[Item], int],
    seconds: float | None,
) -> Part:
    """As `part_of_text` of examples, each of so many characters."""
    train, held_out = read.train, read.validation
    if seconds is None:
        return ALL
    mean = max(1.0, sum(map(length, few := some(train, 1000))) / len(few))
    tried = some(train, max(1, math.floor(TRIED / mean)))
    if len(tried) == len(train):
        return ALL
    permitted = _permitted(lambda: work(tried), len(tried), of=len(train) + len(held_out), seconds=seconds)
    if permitted >= 1:
        return ALL
    return Part(*(max(1, math.floor(permitted * len(side))) for side in (train, held_out)))


def _permitted(work: Callable[[], object], tried: int, *, of: int, seconds: float) -> float:
    """The share of the whole that there is time for, as the time shows that a part of it takes."""
    start = time.perf_counter()
    work()
    return seconds * tried / (SLOWER * max(1e-9, time.perf_counter() - start) * of)


def read_part(parts: Split, part: Part) -> Split:
    """Of a text the part that is read."""
    if part.is_all:
        return parts
    return replace(
        parts, train=some_pieces(parts.train, part.train), validation=some_pieces(parts.validation, part.held_out)
    )
