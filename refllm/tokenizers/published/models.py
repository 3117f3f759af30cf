"""How a word becomes pieces of the vocabulary: byte pairs, the most probable pieces, the longest pieces, whole words.

A model gives ids and where each piece begins and ends in the word, in characters.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any, Protocol

from refllm.errors import UserError
from refllm.tokenizers.published.spelling import widths

Piece = tuple[int, int, int]  # id, start and end

MOST_ENTRIES = 1 << 20  # of a vocabulary
MOST_MERGES = 600_000  # the largest published vocabularies have 515,000
SHORT = 24  # characters: of a shorter word all pairs are looked at again after each merge


class Model(Protocol):
    vocabulary: dict[str, int]

    def pieces(self, word: str) -> list[Piece]: ...


def model_of(saved: Any) -> Model:
    """UserError for a kind that is not supported, or one that does not hold together."""
    kind = saved.get("type") if isinstance(saved, Mapping) else None
    if kind is None and isinstance(saved, Mapping):  # as files were written before there was a type
        kind = "BPE" if "merges" in saved else "Unigram" if isinstance(saved.get("vocab"), list) else "WordPiece"
    kinds: dict[str, Any] = {"BPE": BytePairs, "Unigram": Unigram, "WordPiece": Greedy, "WordLevel": Words}
    if kind not in kinds:
        raise UserError(f"the model {str(kind)[:40]!r} of a tokenizer is not supported; {', '.join(kinds)} are")
    found: Model = kinds[kind](saved)
    return found


def vocabulary_of(saved: Any) -> dict[str, int]:
    """Tokens and their ids, which are different ones."""
    if not isinstance(saved, Mapping) or len(saved) > MOST_ENTRIES:
        raise UserError(f"the vocabulary of a tokenizer must be an object of at most {MOST_ENTRIES:,} tokens")
    if not all(type(i) is int and 0 <= i < 2 * MOST_ENTRIES for i in saved.values()):
        raise UserError("the vocabulary of a tokenizer has an id that is no whole number of a size that they have")
    return dict(saved)


class BytePairs:
    """Neighbours are joined in the order in which the pairs were learnt, the leftmost first.

    Source: Sennrich et al. 2016 (arXiv:1508.07909) sec. 3.2; with bytes for what is not in the vocabulary as in
    SentencePiece.
    """

    def __init__(self, saved: Mapping[str, Any]) -> None:
        self.vocabulary = vocabulary_of(saved["vocab"])
        self.prefix = str(saved.get("continuing_subword_prefix") or "")
        self.suffix = str(saved.get("end_of_word_suffix") or "")
        self.byte_fallback = bool(saved.get("byte_fallback", False))
        self.fuse_unknown = bool(saved.get("fuse_unk", False))
        self.ignore_merges = bool(saved.get("ignore_merges", False))
        if saved.get("dropout"):
            raise UserError("a tokenizer with a dropout gives other ids at every call; set it to null")
        unknown = saved.get("unk_token")
        self.unknown = None if unknown is None else self.vocabulary.get(unknown)
        self.merges: dict[tuple[int, int], tuple[int, int]] = {}  # the order and the new id of each pair
        self._learn(saved["merges"])
        self.bytes = [self.vocabulary.get(f"<0x{byte:02X}>") for byte in range(256)]

    def _learn(self, merges: Any) -> None:
        if not isinstance(merges, list) or len(merges) > MOST_MERGES:
            raise UserError(f"the merges of a tokenizer must be a list of at most {MOST_MERGES:,}")
        for order, merge in enumerate(merges):
            pair = merge.split(" ") if isinstance(merge, str) else merge
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair)):
                raise UserError(f"merge {order} of a tokenizer is not two tokens; get the file again")
            left, right = pair
            new = left + right.removeprefix(self.prefix) if self.prefix else left + right
            for token in (left, right, new):
                if token not in self.vocabulary:
                    raise UserError(
                        f"merge {order} of a tokenizer needs {token[:40]!r}, which is not in its vocabulary"
                    )
            self.merges[self.vocabulary[left], self.vocabulary[right]] = (order, self.vocabulary[new])

    def pieces(self, word: str) -> list[Piece]:
        if self.ignore_merges and word in self.vocabulary:
            return [(self.vocabulary[word], 0, len(word))]
        ids, ends = self._letters(word)
        if self.unknown is None and any(end < 0 for end in ends):
            return self._without_unknown(word, ids, ends)
        ids, ends = (self._joined if len(ids) <= SHORT else self._joined_long)(ids, ends)
        starts = [0, *ends[:-1]] if ends else []
        return [(i, start - 1 if start == end else start, end) for i, start, end in zip(ids, starts, ends, strict=True)]

    def _letters(self, word: str) -> tuple[list[int], list[int]]:
        """The smallest pieces and where each ends; the bytes of one character all end with it."""
        ids: list[int] = []
        ends: list[int] = []
        waiting = None  # the end of what is unknown so far
        last = len(word) - 1
        for i, letter in enumerate(word):
            spelled = (self.prefix if i else "") + letter + (self.suffix if i == last else "")
            found = self.vocabulary.get(spelled)
            if found is not None:
                if waiting is not None and self.unknown is not None:
                    ids.append(self.unknown)
                    ends.append(waiting)
                    waiting = None
                ids.append(found)
                ends.append(i + 1)
                continue
            if self.byte_fallback:
                parts = [self.bytes[byte] for byte in spelled.encode()]
                if all(part is not None for part in parts):
                    ids += [part for part in parts if part is not None]
                    ends += [i + 1] * len(parts)
                    continue
            if self.unknown is None:
                ids.append(-1)  # what is neither known nor has a token for it is left out
                ends.append(-1)
                continue
            if waiting is not None and not self.fuse_unknown:
                ids.append(self.unknown)
                ends.append(waiting)
            waiting = i + 1
        if waiting is not None and self.unknown is not None:
            ids.append(self.unknown)
            ends.append(waiting)
        return ids, ends

    def _without_unknown(self, word: str, ids: list[int], ends: list[int]) -> list[Piece]:
        """The pieces as if the word had no other characters than those that are known. The library counts their bytes
        from the beginning of the word, so that they stand where others do."""
        of = widths(word)
        counts = [len(letter.encode()) for letter in word]
        known = [(i, end) for i, end in zip(ids, ends, strict=True) if end > 0]
        covered, total, last = [], 0, -1
        for _, end in known:
            total += 1 if end == last or self._is_byte(known, end) else counts[end - 1]
            last = end
            covered.append(total)
        joined, borders = self._joined_long([i for i, _ in known], covered)
        starts = [0, *borders[:-1]] if borders else []
        return [(i, of[start], of[end - 1] + 1) for i, start, end in zip(joined, starts, borders, strict=True)]

    @staticmethod
    def _is_byte(known: list[tuple[int, int]], end: int) -> bool:
        """Whether several pieces stand for the character there: its bytes."""
        return sum(1 for _, one in known if one == end) > 1

    def _joined(self, ids: list[int], ends: list[int]) -> tuple[list[int], list[int]]:
        merges = self.merges
        while len(ids) > 1:
            best = None
            for place in range(len(ids) - 1):
                found = merges.get((ids[place], ids[place + 1]))
                if found is not None and (best is None or found[0] < best[0]):
                    best = (*found, place)
            if best is None:
                break
            _, new, place = best
            ids[place : place + 2] = [new]
            del ends[place]
        return ids, ends

    def _joined_long(self, ids: list[int], ends: list[int]) -> tuple[list[int], list[int]]:
        """The same of a long word, whose pairs wait in a heap. A pair that is no longer there is passed over."""
        merges, count = self.merges, len(ids)
        after, before = [*range(1, count), -1], [*range(-1, count - 1)]
        heap = [
            (found[0], place, found[1])
            for place in range(count - 1)
            if (found := merges.get((ids[place], ids[place + 1]))) is not None
        ]
        heapq.heapify(heap)
        while heap:
            order, place, new = heapq.heappop(heap)
            right = after[place]
            if ids[place] < 0 or right < 0 or merges.get((ids[place], ids[right])) != (order, new):
                continue
            ids[place], ends[place], ids[right] = new, ends[right], -1
            after[place] = after[right]
            if after[right] >= 0:
                before[after[right]] = place
            for left, at in ((before[place], place), (place, after[place])):
                if left >= 0 and at >= 0 and (found := merges.get((ids[left], ids[at]))) is not None:
                    heapq.heappush(heap, (found[0], left, found[1]))
        kept = [place for place in range(count) if ids[place] >= 0]
        return [ids[place] for place in kept], [ends[place] for place in kept]


class Unigram:
    """The pieces whose scores have the largest sum.

    Source: Kudo 2018 (arXiv:1804.10959) sec. 3.2; what is unknown costs 10 more than the rarest piece, as in
    SentencePiece.
    """

    def __init__(self, saved: Mapping[str, Any]) -> None:
        entries = saved["vocab"]
        if not isinstance(entries, list) or not 0 < len(entries) <= MOST_ENTRIES:
            raise UserError(f"the vocabulary of a tokenizer must be a list of 1 to {MOST_ENTRIES:,} pieces")
        if not all(
            isinstance(e, list) and len(e) == 2 and isinstance(e[0], str) and type(e[1]) in (int, float)
            for e in entries
        ):
            raise UserError("the vocabulary of a tokenizer must be pieces and their scores; get the file again")
        self.vocabulary = {piece: i for i, (piece, _) in enumerate(entries)}
        self.scores = [float(score) for _, score in entries]
        unknown = saved.get("unk_id")
        if unknown is not None and not (type(unknown) is int and 0 <= unknown < len(entries)):
            raise UserError(f"the unk_id {str(unknown)[:20]} of a tokenizer is not in its vocabulary")
        self.unknown: int | None = unknown
        self.byte_fallback = bool(saved.get("byte_fallback", False))
        self.rarest = min(self.scores) - 10.0
        self.longest = max(map(len, self.vocabulary))
        self.bytes = [self.vocabulary.get(f"<0x{byte:02X}>") for byte in range(256)]
        self._beginnings = {piece[:n] for piece in self.vocabulary for n in range(1, len(piece) + 1)}

    def pieces(self, word: str) -> list[Piece]:
        found: list[Piece] = []
        for start, end in self._cut(word):
            text = word[start:end]
            i = self.vocabulary.get(text)
            if i is not None:
                found.append((i, start, end))
                continue
            parts = [self.bytes[byte] for byte in text.encode()] if self.byte_fallback else [None]
            if all(part is not None for part in parts):
                found += [(part, start, end) for part in parts if part is not None]
            elif self.unknown is None:
                raise UserError(f"the tokenizer has no token for {text[:20]!r}, and none for what is unknown")
            else:
                found.append((self.unknown, start, end))
        return found

    def _cut(self, word: str) -> list[tuple[int, int]]:
        """The best path; what is unknown is one piece as far as it goes."""
        size = len(word)
        best = [0.0] * (size + 1)
        came: list[int] = [-1] * (size + 1)
        ids: list[int | None] = [None] * (size + 1)
        vocabulary, scores, beginnings = self.vocabulary, self.scores, self._beginnings
        for start in range(size):
            so_far, single = best[start], False
            for end in range(start + 1, min(size, start + self.longest) + 1):
                text = word[start:end]
                if text not in beginnings:
                    break
                i = vocabulary.get(text)
                if i is None:
                    continue
                score = scores[i] + so_far
                if came[end] < 0 or score > best[end]:
                    best[end], came[end], ids[end] = score, start, i
                single = single or end == start + 1
            if not single and (came[start + 1] < 0 or self.rarest + so_far > best[start + 1]):
                best[start + 1], came[start + 1], ids[start + 1] = self.rarest + so_far, start, self.unknown
        found: list[tuple[int, int]] = []
        end, joined = size, False
        while end > 0:
            start = came[end]
            unknown = self.unknown is not None and ids[end] == self.unknown
            if unknown and joined:
                found[-1] = (start, found[-1][1])
            else:
                found.append((start, end))
            joined, end = unknown, start
        return found[::-1]


class Greedy:
    """The longest piece first, then the longest of what is left.

    Source: Schuster & Nakajima 2012 sec. 4; Devlin et al. 2019, code.
    """

    def __init__(self, saved: Mapping[str, Any]) -> None:
        self.vocabulary = vocabulary_of(saved["vocab"])
        self.prefix = str(saved.get("continuing_subword_prefix", "##"))
        self.most = int(saved.get("max_input_chars_per_word", 100))
        unknown = str(saved.get("unk_token", "[UNK]"))
        if unknown not in self.vocabulary:
            raise UserError(f"the vocabulary of a tokenizer lacks {unknown[:40]!r}, its own token for what is unknown")
        self.unknown = self.vocabulary[unknown]
        self.longest = max(map(len, self.vocabulary))

    def pieces(self, word: str) -> list[Piece]:
        found: list[Piece] = []
        start, size = 0, len(word)
        while start < size <= self.most:
            prefix = self.prefix if start else ""
            ends = range(min(size, start + self.longest), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self.vocabulary), None)
            if end is None:
                break
            found.append((self.vocabulary[prefix + word[start:end]], start, end))
            start = end
        return found if start == size else [(self.unknown, 0, size)]


class Words:
    """Each word is a token, or unknown."""

    def __init__(self, saved: Mapping[str, Any]) -> None:
        self.vocabulary = vocabulary_of(saved["vocab"])
        self.unknown = self.vocabulary.get(str(saved.get("unk_token", "<unk>")))

    def pieces(self, word: str) -> list[Piece]:
        found = self.vocabulary.get(word, self.unknown)
        if found is None:
            raise UserError(f"the tokenizer has no token for {word[:20]!r}, and none for what is unknown")
        return [(found, 0, len(word))]
