"""How wide a text is on a terminal, in cells, and texts that are brought to a width.

What a terminal shows depends on its font and version; the rules here are those of Unicode's East Asian Width (UAX #11)
and of emoji sequences (UTS #51), which terminals follow in their common part.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

EMOJI_STYLE = "\ufe0f"  # asks for the picture of a sign that is also a letter of text
JOINER = "\u200d"  # makes one picture of the two beside it
SOFT_HYPHEN = "\u00ad"
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_JAMO_IN_SYLLABLE = range(0x1160, 0x1200)  # vowels and finals, which stand in the cells of the consonant before them
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)  # two of them are a flag


def cells(text: str) -> int:
    """The cells that a text takes in a line."""
    return sum(width for _, width in _signs(text))


def padded(text: str, width: int, *, right: bool = False) -> str:
    """The text with spaces up to `width` cells, after it or, for `right`, before it."""
    space = " " * (width - cells(text))
    return space + text if right else text + space


def cut(text: str, width: int) -> str:
    """The text, or as much of its beginning as leaves a cell for "…", in at most `width` cells."""
    if cells(text) <= width:
        return text
    kept, used = "", 0
    for sign, wide in _signs(text):
        if used + wide > width - 1:
            break
        kept, used = kept + sign, used + wide
    return kept + "…"


def widest(texts: Iterable[str]) -> int:
    """The cells of the widest text; 0 where there is none."""
    return max(map(cells, texts), default=0)


def _signs(text: str) -> Iterator[tuple[str, int]]:
    """What a terminal shows as one sign, with its cells: a character with all that stands on it or joins it."""
    sign, width, flag = "", 0, False
    for place, character in enumerate(text):
        own = _width(character)
        joins = place > 0 and text[place - 1] == JOINER and unicodedata.category(character) == "So"
        second = flag and ord(character) in _FLAG_LETTERS
        if sign and (joins or own == 0 or second or ord(character) in _SKIN_TONES):
            sign += character
            width += 1 if second else 0
            if character == EMOJI_STYLE and width == 1:
                width = 2
            flag = False
            continue
        if sign:
            yield sign, width
        sign, width, flag = character, own, ord(character) in _FLAG_LETTERS
    if sign:
        yield sign, width


@lru_cache(maxsize=1 << 16)
def _width(character: str) -> int:
    """The cells of a character by itself."""
    if character == SOFT_HYPHEN:
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc") or ord(character) in _JAMO_IN_SYLLABLE:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
