"""The simplest translation that learns: every word by itself. What an encoder-decoder must beat."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from refllm.unicode_script import is_spaceless, word_places, words_of

ROUNDS = 5
NULL = ""  # stands in every source for what no word of it says


def learn_dictionary(pairs: Sequence[tuple[str, str]], *, rounds: int = ROUNDS) -> dict[str, str]:
    """IBM-1: for each word f of the sources the word e of the targets with the largest t(e | f)

        t(e | f) = c(e, f) / Σ_e' c(e', f),   c(e, f) = Σ over pairs with e and f of t(e | f) / Σ_f' t(e | f')

    f' runs over the words of the source and the empty one. All t are equal at first; `rounds` of expectation
    maximisation. Of equally probable words the one that comes first by code points.
    Source:  Brown et al. 1993 (J93-2003) sec. 4.1.
    """
    words = [([NULL, *words_of(source)], words_of(target)) for source, target in pairs]
    t: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(lambda: 1.0))
    for _ in range(rounds):
        counts: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        for source, target in words:
            for e in target:
                whole = sum(t[f][e] for f in source)
                for f in source:
                    counts[f][e] += t[f][e] / whole
        for row in counts.values():
            total = sum(row.values())
            for e in row:
                row[e] /= total
        t = counts
    return {f: min(row, key=lambda e: (-row[e], e)) for f, row in t.items() if f != NULL}


def word_by_word(text: str, dictionary: dict[str, str]) -> str:
    """Every word of the text replaced by that of the dictionary; a word that it lacks, and all between words, stays.

    Words that touch, as in a script that puts no space between them, get one if their translations are written so.
    """
    found, last, end = "", "", 0
    for place in word_places(text):
        word = dictionary.get(text[place], text[place])
        touches = last and place.start == end and not (is_spaceless(last[0]) or is_spaceless(word[0]))
        found += text[end : place.start] + (" " if touches else "") + word
        last, end = word, place.stop
    return found + text[end:]
