"""Byte-level byte-pair encoding: 256 bytes and learnt merges, lossless on any Unicode text.

Source: Sennrich et al. 2016 (arXiv:1508.07909) sec. 3.2, on bytes as in Radford et al. 2019 sec. 2.2; documents 001
ch. 3 sec. 2.2 (DATA). The rule that cuts text into words is this module's own and is not GPT-2's.
"""

from __future__ import annotations

import codecs
import heapq
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from refllm.errors import UserError
from refllm.tokenizers.checks import checked_ids, refuse_surrogates

Pair: TypeAlias = tuple[int, int]

BYTES = 256
LONGEST = 64  # characters in a word after its space: bounds the work on a word, so encoding is linear in the text

# Merges never cross the border of a word. Every character is in exactly one word, so joining the words gives the text.
# What \w and \s hold is the Unicode version of the running Python; another version may cut a new script elsewhere.
WORD = re.compile(
    rf"""
      [ ]?[^\W\d_]{{1,{LONGEST}}}          # letters, with the space before them
    | [ ]?\d{{1,3}}                        # digits by threes, with the space before them
    | [ ]?(?:[^\w\s]|_){{1,{LONGEST}}}     # punctuation, symbols and marks, with the space before them
    | \n{{1,{LONGEST}}}                    # newlines
    | [^\S\n]{{1,{LONGEST}}}(?!\S)         # other white space, but for a last space, which goes with the word after it
    | [^\S\n]                              # a tab (or the like) right before a word
    """,
    re.VERBOSE,
)
LONGEST_TOKEN = 1 + 4 * LONGEST  # bytes: no word is longer, so no learnt token is
MOST_KNOWN = 1 << 18  # words that are remembered from one text to the next
MOST_TOKENS = sys.maxunicode + 1  # a token is a character while words are merged: see spell


@dataclass(frozen=True)
class BytePairTokenizer:
    """Ids 0 … 255 are the bytes; id 256 + i stands for the two tokens `merges[i]`, both of smaller id.

    Raises: UserError if a merge is repeated, refers to a token that does not come before it, or makes a token longer
            than any word.
    """

    merges: tuple[Pair, ...]
    kind: ClassVar[str] = "byte_pair"

    def __post_init__(self) -> None:
        if self.size > MOST_TOKENS:
            raise UserError(f"a byte-pair vocabulary of {self.size} tokens is too large; {MOST_TOKENS} are the most")
        if len(set(self.merges)) != len(self.merges):
            raise UserError("a byte-pair vocabulary holds the same merge twice; train the tokenizer again")
        lengths = [1] * BYTES
        for new, (left, right) in enumerate(self.merges, start=BYTES):
            if not (0 <= left < new and 0 <= right < new):
                raise UserError(
                    f"merge {new - BYTES} of a byte-pair vocabulary joins ({left}, {right}), but only ids 0 to "
                    f"{new - 1} exist before it; train the tokenizer again"
                )
            lengths.append(lengths[left] + lengths[right])
            if lengths[new] > LONGEST_TOKEN:
                raise UserError(
                    f"merge {new - BYTES} of a byte-pair vocabulary makes a token of {lengths[new]} bytes, and no "
                    f"word is longer than {LONGEST_TOKEN}; train the tokenizer again"
                )

    @classmethod
    def train(cls, text: str, *, vocabulary: int) -> BytePairTokenizer:
        """Join the most frequent pair of neighbours, `vocabulary - 256` times; ties go to the pair of smaller ids.

        Stops early, with fewer than `vocabulary` tokens, when no pair is left that occurs twice: see `size`.

        Raises: UserError if vocabulary < 256, or the text is empty or holds a lone surrogate.

        >>> t = BytePairTokenizer.train("aaab aaab", vocabulary=258)
        >>> t.merges  # a a occurs most often; then a b and aa a as often, and the smaller ids come first
        ((97, 97), (97, 98))
        """
        if not BYTES <= vocabulary <= MOST_TOKENS:
            raise UserError(
                f"a byte-pair vocabulary holds the {BYTES} bytes and at most {MOST_TOKENS} tokens; "
                f"{vocabulary} is outside; ask for a size between"
            )
        if not text:
            raise UserError("byte-pair merges cannot be learnt from an empty text; give a text with characters")
        refuse_surrogates(text)
        return cls(tuple(learn_merges(Counter(WORD.findall(text)), vocabulary - BYTES)))

    @property
    def size(self) -> int:
        return BYTES + len(self.merges)

    @cached_property
    def vocabulary(self) -> tuple[bytes, ...]:
        """The bytes that each id stands for."""
        spelled = [bytes([byte]) for byte in range(BYTES)]
        for left, right in self.merges:
            spelled.append(spelled[left] + spelled[right])
        return tuple(spelled)

    @cached_property
    def _tokens(self) -> dict[str, str]:
        return {chr(left) + chr(right): chr(new) for new, (left, right) in enumerate(self.merges, start=BYTES)}

    def encode(self, text: str) -> NDArray[np.int64]:
        """Text to ids: in each word, join the pair that was learnt first until none is left.

        Raises: UserError if the text holds a lone surrogate.

        >>> t = BytePairTokenizer(merges=((97, 97),))
        >>> t.encode("aab").tolist()
        [256, 98]
        """
        refuse_surrogates(text)
        known = self._known
        if len(known) > MOST_KNOWN:
            known.clear()
        spelled = b"".join(map(known.__getitem__, WORD.findall(text)))
        return np.frombuffer(spelled, np.uint32).astype(np.int64)

    @cached_property
    def _known(self) -> _Known:
        return _Known(self)

    def _encode_word(self, word: str) -> list[int]:
        return self.merged(spell(word))

    def merged(self, spelling: str) -> list[int]:
        """The ids of a word, given as `spell` writes it: the pair that was learnt first, until none is left."""
        while pairs := [pair for pair in map("".join, pairwise(spelling)) if pair in self._tokens]:
            first = min(pairs, key=self._tokens.__getitem__)
            spelling = spelling.replace(first, self._tokens[first])
        return list(map(ord, spelling))

    def decode(self, ids: Iterable[int], *, errors: str = "replace") -> str:
        """Ids to text: decode(encode(text)) == text.

        A token may end inside a character. Bytes that are no UTF-8 become U+FFFD; `errors="strict"` raises
        UnicodeDecodeError instead.

        Raises: UserError if an id is not in the vocabulary.

        >>> t = BytePairTokenizer(merges=((97, 97),))
        >>> t.decode([256, 98]), t.decode(t.encode("déjà 梨"))
        ('aab', 'déjà 梨')
        """
        return b"".join(self.vocabulary[i] for i in checked_ids(ids, size=self.size)).decode(errors=errors)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """For each id the characters that it completes, perhaps none; at the end, U+FFFD for one that was cut.

        The joined pieces are decode(ids).
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for one in ids:
            yield decoder.decode(self.vocabulary[checked_ids([one], size=self.size)[0]])
        yield decoder.decode(b"", final=True)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "merges": [list(pair) for pair in self.merges]}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> BytePairTokenizer:
        """The inverse of to_json.

        Raises: UserError if the object is not what to_json writes.
        """
        if set(saved) != {"kind", "merges"} or not isinstance(saved["merges"], list):
            raise UserError(
                "a saved byte-pair tokenizer needs `kind` and a list `merges`, nothing else; train it again"
            )
        for place, pair in enumerate(saved["merges"]):
            if not (isinstance(pair, list) and len(pair) == 2 and all(type(token) is int for token in pair)):
                raise UserError(
                    f"merge {place} of a saved byte-pair tokenizer is not a list of two integers; train it again"
                )
        return cls(tuple((left, right) for left, right in saved["merges"]))


class _Known(dict[str, bytes]):
    """The ids of each word that was met, as the bytes of an array: words are spelled once and joined without a loop."""

    def __init__(self, tokenizer: BytePairTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def __missing__(self, word: str) -> bytes:
        self[word] = spelled = np.array(self.tokenizer._encode_word(word), np.uint32).tobytes()
        return spelled


def learn_merges(words: Mapping[str, int], most: int) -> list[Pair]:
    """The merges, in the order learnt, from the distinct words and how often each occurs."""
    return merges_of([spell(word) for word in words], list(words.values()), most)


def merges_of(spelled: list[str], times: list[int], most: int) -> list[Pair]:
    """The merges, in the order learnt, from words as `spell` writes them and how often each occurs.

    Pair counts are kept up to date word by word; a heap finds the greatest. An entry of the heap whose count is no
    longer true is passed over when it surfaces: the true one was pushed when the count changed.
    """
    spelled = list(spelled)
    counts: Counter[str] = Counter()
    holders: defaultdict[str, set[int]] = defaultdict(set)
    for word, spelling in enumerate(spelled):
        for left, right in pairwise(spelling):
            counts[left + right] += times[word]
            holders[left + right].add(word)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < most:
        negative, best = heapq.heappop(heap)
        if counts[best] != -negative:
            continue
        if counts[best] < 2:
            break
        token = chr(BYTES + len(merges))
        merges.append((ord(best[0]), ord(best[1])))
        changes: Counter[str] = Counter()
        for word in holders.pop(best):
            spelled[word] = spelled[word].replace(best, token)
            for pair, change in changed_pairs(spelled[word], best, token):
                changes[pair] += change * times[word]
                if change > 0:
                    holders[pair].add(word)
        for pair, change in changes.items():
            counts[pair] += change
            heapq.heappush(heap, (-counts[pair], pair))
    return merges


def spell(word: str) -> str:
    """The word as a string with one character a token, chr(id): so str.replace(pair, token) is a merge."""
    return word.encode().decode("latin-1")


def changed_pairs(spelling: str, best: str, token: str) -> Iterator[tuple[str, int]]:
    """How the pairs in a word changed, (pair, +1 or -1), when `token` took the place of the pair `best`."""
    first, second = best[0], best[1]
    at = spelling.find(token)
    while at >= 0:
        yield best, -1
        if at > 0:
            before = spelling[at - 1]
            yield before + token, 1
            yield (second if before == token else before) + first, -1
        after = spelling[at + 1 : at + 2]
        if after and after != token:  # a token that follows reports the pair between the two as its own
            yield token + after, 1
            yield second + after, -1
        at = spelling.find(token, at + 1)
