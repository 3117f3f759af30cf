"""Classes of characters: membership, and ranges for a regular expression."""

from __future__ import annotations

from bisect import bisect_right
from functools import cache

from refllm.tokenizers.published import unicode_classes


class Class:
    """A class of characters from its runs outside and inside."""

    def __init__(self, coded: str) -> None:
        self.borders = [0]
        for number in coded.split():
            self.borders.append(self.borders[-1] + int(number, 36))
        self._known: dict[str, bool] = {}

    def __contains__(self, character: str) -> bool:
        found = self._known.get(character)
        if found is None:
            found = self._known[character] = bisect_right(self.borders, ord(character)) % 2 == 0
        return found

    def ranges(self) -> list[tuple[int, int]]:
        """First and last code of each run inside."""
        inner = self.borders[1:]
        return [(inner[i], inner[i + 1] - 1) for i in range(0, len(inner) - 1, 2)]


@cache
def class_of(name: str) -> Class:
    """A class of unicode_classes.py. KeyError for a name that it has not."""
    return Class(vars(unicode_classes)[name])


@cache
def lowered_pairs() -> dict[str, str]:
    """Characters that an older Python does not lower."""
    pairs = (pair.split(":") for pair in unicode_classes.LOWERED.split())
    return {chr(int(upper, 16)): chr(int(lower, 16)) for upper, lower in pairs}


def lowered(character: str) -> str:
    """A character in lower case, by itself: a sigma at the end of a word is like any other."""
    return lowered_pairs().get(character) or character.lower()


def is_space(character: str) -> bool:
    """Unicode's White_Space; Python's has four control characters more."""
    return character.isspace() and not "\x1c" <= character <= "\x1f"
