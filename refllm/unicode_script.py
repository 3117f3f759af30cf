"""Which script a character belongs to, and the words of a text in any of them.

The script is read from the character's name in the running Python's Unicode table.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

# The first words of the names of letters, digits and marks in scripts that put no space between words. Hangul and
# Ethiopic are not among them: they do.
WITHOUT_SPACES = {
    "CJK": "Han", "HENTAIGANA": "Kana", "IDEOGRAPHIC": "Han", "BOPOMOFO": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana",
    "KATAKANA-HIRAGANA": "Kana", "THAI": "Thai", "LAO": "Lao", "KHMER": "Khmer", "MYANMAR": "Myanmar",
    "TIBETAN": "Tibetan", "JAVANESE": "Javanese", "BALINESE": "Balinese", "YI": "Yi",
}  # fmt: skip
_IDEOGRAPHIC_PLANES = range(0x20000, 0x40000)  # of ideographs alone, later ones than this Python knows included
_JOINERS = "\u200c\u200d"  # stand inside words of Persian and of India


@lru_cache(maxsize=1 << 16)
def script_of(character: str) -> str:
    """Han, Kana, Hangul, Thai, ... for a letter, digit or mark of these scripts; "" for every other character."""
    if ord(character) in _IDEOGRAPHIC_PLANES:
        return "Han"
    if unicodedata.category(character)[0] not in "LMN":
        return ""
    first = unicodedata.name(character, "").removeprefix("HALFWIDTH ").partition(" ")[0]
    return "Hangul" if first == "HANGUL" else WITHOUT_SPACES.get(first, "")


def is_spaceless(character: str) -> bool:
    """Whether the character is of a script whose words have no spaces between them."""
    return script_of(character) not in ("", "Hangul")


def words_of(text: str) -> list[str]:
    """The words of a text: runs of letters, digits and low lines, each with the marks on it; of a script that puts no
    space between words every character with its marks. Signs and white space stand between words."""
    return [text[place] for place in word_places(text)]


def word_places(text: str) -> list[slice]:
    """Where the words of a text stand."""
    borders: list[list[int]] = []
    in_word = may_go_on = False  # a mark goes with what is right before it; a letter only with a run of letters
    for place, character in enumerate(text):
        if character in _JOINERS or unicodedata.category(character).startswith("M"):
            goes_on = in_word
        elif is_spaceless(character):
            goes_on, in_word, may_go_on = False, True, False
        elif character.isalnum() or character == "_":
            goes_on = may_go_on
            in_word = may_go_on = True
        else:
            in_word = may_go_on = False
            continue
        if goes_on:
            borders[-1][1] = place + 1
        elif in_word:
            borders.append([place, place + 1])
    return [slice(start, end) for start, end in borders]


def main_script(texts: Iterable[str]) -> str:
    """The script of most words of the texts: Japanese, Han, Hangul, Thai, ...; "" for every script with letters such as
    Latin, and for texts without words.

    Japanese is Han and Kana together, where a tenth of these is Kana; a character of a script without spaces counts as
    a word.
    """
    counts = Counter(script_of(word[0]) for text in texts for word in words_of(text))
    han, kana = counts.pop("Han", 0), counts.pop("Kana", 0)
    counts["Japanese" if 10 * kana >= han + kana else "Han"] += han + kana
    return max(counts, key=lambda script: counts[script]) if counts.total() else ""
