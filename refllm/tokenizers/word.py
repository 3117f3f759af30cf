"""One token is one word or punctuation mark; what is not in the vocabulary is [UNK]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from refllm.errors import UserError
from refllm.tokenizers.checks import checked_ids
from refllm.tokenizers.vocabulary import SPECIAL, SpecialIds, from_list, refuse_damaged, special_ids, words


@dataclass(frozen=True)
class WordTokenizer:
    """id = place of the word in the vocabulary, the special tokens first, then words from frequent to rare.

    A word outside the vocabulary becomes [UNK], and white space is not kept: the likelihood of these tokens is not
    that of the text, so bits per character do not compare with a lossless tokenizer's.
    Source: documents 001 ch. 3 sec. 2.2, 004 sec. 3.1 (DATA).
    Raises: UserError if a token is empty or repeated, or a special one is missing.
    """

    vocabulary: tuple[str, ...]
    lower: bool
    kind: ClassVar[str] = "word"

    def __post_init__(self) -> None:
        refuse_damaged(self.vocabulary)

    @classmethod
    def train(cls, text: str, *, vocabulary: int, lower: bool) -> WordTokenizer:
        """The most frequent words, `vocabulary` tokens with the special ones; ties go to the first by code points.

        Fewer if the text has fewer different words: see `size`.

        Raises: UserError if there is room for no word, or the text has none.

        >>> WordTokenizer.train("to be or not to be", vocabulary=7, lower=True).vocabulary
        ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'be', 'to')
        """
        if vocabulary <= len(SPECIAL):
            raise UserError(f"a word vocabulary has {len(SPECIAL)} special tokens; ask for more than that")
        counts = Counter(words(text, lower=lower))
        for token in SPECIAL:
            counts.pop(token, None)
        if not counts:
            raise UserError("words cannot be learnt from a text without any; give a text with words")
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls((*SPECIAL, *ranked[: vocabulary - len(SPECIAL)]), lower)

    @property
    def size(self) -> int:
        return len(self.vocabulary)

    @cached_property
    def special(self) -> SpecialIds:
        return special_ids(self.vocabulary)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.vocabulary)}

    def encode(self, text: str) -> NDArray[np.int64]:
        """Text to ids, one a word.

        Raises: UserError if the text holds a lone surrogate.

        >>> t = WordTokenizer.train("to be or not to be", vocabulary=7, lower=True)
        >>> t.encode("To be, or not").tolist()  # 1 is [UNK]
        [6, 5, 1, 1, 1]
        """
        unknown = self.special.unknown
        return np.array([self._ids.get(word, unknown) for word in words(text, lower=self.lower)], np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to words with a space between: encode(decode(ids)) == ids for the ids of known words.

        Raises: UserError if an id is not in the vocabulary.

        >>> WordTokenizer.train("to be or not to be", vocabulary=7, lower=True).decode([6, 5])
        'to be'
        """
        return " ".join(self.vocabulary[i] for i in checked_ids(ids, size=self.size))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each id as soon as it comes; the joined pieces are decode(ids)."""
        space = ""
        for one in ids:
            yield space + self.decode([one])
            space = " "

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocabulary": list(self.vocabulary), "lower": self.lower}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> WordTokenizer:
        """The inverse of to_json.

        Raises: UserError if the object is not what to_json writes.
        """
        return from_list(cls, saved)
