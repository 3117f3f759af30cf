"""L1: byte pairs, learnt and applied. Tokens are whole numbers: every answer is exact."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case

LONGEST = ("the", "then", "hen", "he", "at", "that")


def _bytes(*words: str) -> np.ndarray:
    """One word a row, -1 behind its end."""
    spelled = [word.encode() for word in words]
    longest = max(map(len, spelled), default=0)
    return np.array([[*word, *[-1] * (longest - len(word))] for word in spelled], np.int64).reshape(-1, longest)


def learn_merges() -> list[Case]:
    def case(slug: str, about: str, words: dict[str, int], most: int) -> Case:
        keywords = {"words": _bytes(*words), "counts": np.array(list(words.values()), np.int64), "most": most}
        return Case(f"DATA/merges-{slug}", "learn_merges", about, {}, keywords, gradient=False)

    few = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    return [
        case("often", "a word counts as often as it occurs, not once", {"ab": 1, "abx": 1, "bc": 9, "bcx": 1}, 2),
        case("four-words", "the example of Sennrich et al. 2016, section 3.2, without the sign for the end of a word",
             few, 8),
        case("ties", "of pairs that occur equally often the one with the smaller ids is first, whatever comes first",
             {"zy": 4, "xw": 4, "ba": 4, "ac": 4}, 4),
        case("ties-second", "of two pairs with the same first token the second decides",
             {"ad": 3, "ac": 3, "ab": 3}, 2),
        case("tie-with-merged", "a token that was made has a larger id than every byte", {"abx": 3, "yz": 3}, 3),
        case("overlap", "a pair is counted at every place: 7 of a a in a row of 8, and merged from the left",
             {"aaaaaaaa": 2, "aab": 3}, 4),
        case("overlap-odd", "five in a row: two pairs and one that is left over", {"aaaaa": 2, "xaaa": 1}, 3),
        case("overlap-and-others", "a a a has two pairs a a, and x y z x y two pairs x y: both count",
             {"aaa": 2, "xyzxy": 2, "bcd": 3}, 3),
        case("recounted", "what a merge takes away is no longer counted: first 12 times t h, then 7",
             {word: n for n, word in enumerate(LONGEST, start=2)}, 6),
        case("ends-early", "a pair that occurs once is not merged: fewer tokens than asked for",
             {"abc": 1, "bcd": 1}, 5),
        case("nothing-twice", "no merge at all", {"abc": 1}, 3),
        case("none-asked", "no merge is asked for", few, 0),
        case("chinese", "three bytes a character: merges join them before they join characters",
             {"模型": 4, "模式": 3, "语言模型": 2}, 9),
    ]  # fmt: skip


def encode_word() -> list[Case]:
    def case(slug: str, about: str, word: str, merges: list[tuple[int, int]]) -> Case:
        keywords: dict[str, Any] = {
            "ids": np.array(list(word.encode()), np.int64),
            "merges": np.array(merges, np.int64).reshape(-1, 2),
        }
        return Case(f"DATA/encode-{slug}", "encode_word", about, {}, keywords, gradient=False)

    a, b, c, d = map(ord, "abcd")
    w, x, y, z = map(ord, "wxyz")
    five = [(b, y), (z, b), (y, a), (x, w), (a, x), (z, 256), (257, 258)]  # of the word z b y a x w
    return [
        case("five-pairs", "every pair was learnt: the first learnt, the last learnt, the smallest and the one on "
             "the left give other tokens", "zbyaxw", five),
        case("first-learnt", "the pair that was learnt first goes first, not the one that stands first",
             "abc", [(b, c), (a, b)]),
        case("left-to-right", "a greedy reader from the left would take a b; b c was learnt before it",
             "abcd", [(b, c), (a, b), (c, d), (a, 256), (258, d)]),
        case("not-longest", "the longest token that fits is not what is looked for",
             "abcab", [(a, b), (c, 256), (256, 257)]),
        case("all-places", "a merge is made at every place of the word at once",
             "abcabdab", [(a, b), (256, c), (256, d)]),
        case("overlap", "a a a a a: from the left", "aaaaa", [(a, a), (256, 256), (257, a)]),
        case("of-merged", "a merge of tokens that were merged", "abcd", [(a, b), (c, d), (256, 257)]),
        case("order-is-rank", "a later merge waits until no earlier one is left",
             "abab", [(b, a), (a, b), (a, 256), (258, b)]),
        case("none-known", "no pair of the word was learnt", "dcba", [(a, b)]),
        case("no-merges", "bytes", "ab", []),
        case("one-byte", "a word of one byte", "a", [(a, a)]),
        case("empty", "an empty word", "", [(a, b)]),
        case("chinese", "a character of three bytes, and half of another",
             "模型", [(0xE6, 0xA8), (256, 0xA1), (0xE5, 0x9E)]),
    ]  # fmt: skip
