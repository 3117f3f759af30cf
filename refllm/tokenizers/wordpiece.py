"""WordPiece: a word is cut into the longest pieces that the vocabulary has, "##" before all but its first.

Source: Schuster & Nakajima 2012 sec. 4; Devlin et al. 2019 sec. 3 and code for "##" and the special tokens; documents
001 ch. 3 sec. 2.2 (DATA).
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from refllm.errors import UserError
from refllm.tokenizers.checks import checked_ids
from refllm.tokenizers.vocabulary import SPECIAL, SpecialIds, from_list, refuse_damaged, special_ids, words

Pair: TypeAlias = tuple[str, str]

CONTINUED = "##"
LONGEST = 100  # characters: a longer word is [UNK], which bounds the work on it


@dataclass(frozen=True)
class WordPieceTokenizer:
    """id = place of the piece in the vocabulary.

    White space is not kept, nor, with `lower`, case and accents; a word that cannot be cut into known pieces is [UNK].
    Raises: UserError if a piece is empty or repeated, or a special token is missing.
    """

    vocabulary: tuple[str, ...]
    lower: bool
    kind: ClassVar[str] = "word_piece"

    def __post_init__(self) -> None:
        refuse_damaged(self.vocabulary)

    @classmethod
    def train(cls, text: str, *, vocabulary: int, lower: bool) -> WordPieceTokenizer:
        """The special tokens, the characters, and the pieces that `learn_pieces` finds.

        Stops early, with fewer than `vocabulary` tokens, when no pair is left that occurs twice: see `size`.

        Raises: UserError if there is no room for all characters, or the text has no word.

        >>> t = WordPieceTokenizer.train("hug hug hugs", vocabulary=100, lower=True)
        >>> t.decode(t.encode("Hugs hug"))
        'hugs hug'
        """
        counts = Counter(word for word in words(text, lower=lower) if len(word) <= LONGEST)
        alphabet = sorted({piece for word in counts for piece in characters(word)})
        if not alphabet:
            raise UserError("pieces of words cannot be learnt from a text without words; give a text with words")
        room = vocabulary - len(SPECIAL) - len(alphabet)
        if room < 0:
            raise UserError(
                f"a vocabulary of {vocabulary} is too small: the text has {len(alphabet)} characters, counted apart at "
                f"the start of a word and inside it, and there are {len(SPECIAL)} special tokens; ask for "
                f"{vocabulary - room} or more"
            )
        return cls((*SPECIAL, *alphabet, *learn_pieces(counts, room)), lower)

    @classmethod
    def from_file(cls, path: str | PathLike[str], *, lower: bool) -> WordPieceTokenizer:
        """A published vocabulary: a text file with a piece a line, whose id is the number of the line from 0.

        Raises: UserError if the file cannot be read or is not such a vocabulary.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text: byte {error.start} cannot be decoded") from None
        return cls(tuple(text.removesuffix("\n").split("\n")), lower)

    @property
    def size(self) -> int:
        return len(self.vocabulary)

    @cached_property
    def special(self) -> SpecialIds:
        return special_ids(self.vocabulary)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: place for place, piece in enumerate(self.vocabulary)}

    def encode(self, text: str) -> NDArray[np.int64]:
        """Text to ids, longest match first; a special token's name in the text is text like any other.

        Raises: UserError if the text holds a lone surrogate.

        >>> special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        >>> t = WordPieceTokenizer((*special, "hug", "##s", "h"), lower=True)
        >>> t.encode("Hugs hug hut").tolist()  # the longest first
        [5, 6, 5, 1]
        """
        known: dict[str, list[int]] = {}
        ids: list[int] = []
        for word in words(text, lower=self.lower):
            if word not in known:
                known[word] = self._encode_word(word)
            ids.extend(known[word])
        return np.array(ids, np.int64)

    def _encode_word(self, word: str) -> list[int]:
        ids: list[int] = []
        start = 0
        while start < len(word) <= LONGEST:
            prefix = CONTINUED if start else ""
            ends = (end for end in range(len(word), start, -1) if prefix + word[start:end] in self._ids)
            end = next(ends, None)
            if end is None:
                break
            ids.append(self._ids[prefix + word[start:end]])
            start = end
        return ids if start == len(word) else [self.special.unknown]

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text, a space between words: decode(encode(text)) == " ".join(words(text)) if no word was [UNK].

        Raises: UserError if an id is not in the vocabulary.

        >>> special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        >>> WordPieceTokenizer((*special, "hug", "##s"), lower=True).decode([5, 6, 5])
        'hugs hug'
        """
        return "".join(self.stream(checked_ids(ids, size=self.size)))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each id as soon as it comes; the joined pieces are decode(ids)."""
        space = ""
        for one in ids:
            piece = self.vocabulary[checked_ids([one], size=self.size)[0]]
            yield piece.removeprefix(CONTINUED) if is_continued(piece) else space + piece
            space = " "

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocabulary": list(self.vocabulary), "lower": self.lower}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> WordPieceTokenizer:
        """The inverse of to_json.

        Raises: UserError if the object is not what to_json writes.
        """
        return from_list(cls, saved)


def is_continued(piece: str) -> bool:
    """Whether a piece goes on with a word; "##" itself is the two characters."""
    return piece.startswith(CONTINUED) and piece != CONTINUED


def characters(word: str) -> list[str]:
    """The smallest pieces of a word."""
    return [character if place == 0 else CONTINUED + character for place, character in enumerate(word)]


def joined(left: str, right: str) -> str:
    return left + right.removeprefix(CONTINUED)


def learn_pieces(counts: Mapping[str, int], most: int) -> list[str]:
    """At most `most` new pieces, in the order learnt, from the distinct words and how often each occurs.

    Again and again the two neighbours a, b with the greatest count(ab) / (count(a) count(b)) are joined everywhere:
    were the pieces independent, joining these would raise the likelihood of the text the most each time they occur.
    Ties go to the more frequent pair, then to the first by code points.

    Only pairs that occur `least` times take part: at first as often as the most frequent one, half that when none is
    left, and so on down to twice. Without this the parts of the rarest words, which occur nowhere else, all come first.

    A heap finds the greatest score. An entry with an outdated score is skipped when it surfaces: the true
    one was pushed when a count in it changed.
    """
    spelled = [characters(word) for word in counts]
    times = list(counts.values())
    pieces: Counter[str] = Counter()
    pairs: Counter[Pair] = Counter()
    holders: defaultdict[Pair, set[int]] = defaultdict(set)
    partners: defaultdict[str, set[Pair]] = defaultdict(set)

    def count(word: int, sign: int) -> None:
        for piece in spelled[word]:
            pieces[piece] += sign * times[word]
        for pair in pairwise(spelled[word]):
            pairs[pair] += sign * times[word]
            (holders[pair].add if sign > 0 else holders[pair].discard)(word)
            partners[pair[0]].add(pair)
            partners[pair[1]].add(pair)

    def entry(pair: Pair) -> tuple[float, int, Pair]:
        return -pairs[pair] / (pieces[pair[0]] * pieces[pair[1]]), -pairs[pair], pair

    for word in range(len(spelled)):
        count(word, 1)
    known, least = set(pieces), max(2, *pairs.values(), 0)
    learnt: list[str] = []
    heap: list[tuple[float, int, Pair]] = []
    while len(learnt) < most:
        if not heap:
            heap = [entry(pair) for pair, n in pairs.items() if n >= least]
            heapq.heapify(heap)
        if not heap:
            least //= 2
            if least < 2:
                break
            continue
        top = heapq.heappop(heap)
        pair = top[2]
        if pairs[pair] < least or entry(pair) != top:
            continue
        piece = joined(*pair)
        if piece not in known:  # it may have been made of two other pieces before
            known.add(piece)
            learnt.append(piece)
        for word in sorted(holders[pair]):
            count(word, -1)
            spelled[word] = merged(spelled[word], pair, piece)
            count(word, 1)
        for changed in partners[pair[0]] | partners[pair[1]] | partners[piece]:
            if pairs[changed] >= least:
                heapq.heappush(heap, entry(changed))
    return learnt


def merged(spelling: list[str], pair: Pair, piece: str) -> list[str]:
    """The spelling with `piece` for the pair wherever it stands, from the left."""
    result: list[str] = []
    for part in spelling:
        if result and (result[-1], part) == pair:
            result[-1] = piece
        else:
            result.append(part)
    return result
