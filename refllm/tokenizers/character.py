"""One token is one character (one Unicode code point)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from refllm.errors import UserError
from refllm.tokenizers.checks import checked_ids, named_character, refuse_surrogates


@dataclass(frozen=True)
class CharacterTokenizer:
    """id = place of the character in the vocabulary, a string of distinct characters sorted by code point.

    Source: documents 001 ch. 3 sec. 2.2 (DATA).
    Raises: UserError if the vocabulary is empty, unsorted, holds a character twice or a lone surrogate.
    """

    vocabulary: str
    kind: ClassVar[str] = "character"

    def __post_init__(self) -> None:
        if not self.vocabulary:
            raise UserError("a character vocabulary cannot be empty; train the tokenizer on a text with characters")
        refuse_surrogates(self.vocabulary)
        if np.any(np.diff(self._code_points) <= 0):
            raise UserError("a character vocabulary must be sorted by code point without repeats; train it again")

    @classmethod
    def train(cls, text: str) -> CharacterTokenizer:
        """The vocabulary is every character of the text.

        Raises: UserError if the text is empty or holds a lone surrogate.

        >>> CharacterTokenizer.train("banana").vocabulary
        'abn'
        """
        return cls("".join(sorted(set(text))))

    @property
    def size(self) -> int:
        return len(self.vocabulary)

    @cached_property
    def _code_points(self) -> NDArray[np.int64]:
        return code_points(self.vocabulary)

    def encode(self, text: str) -> NDArray[np.int64]:
        """Text to ids, one a character.

        Raises: UserError naming the first character that is not in the vocabulary, and its position.

        >>> CharacterTokenizer("abn").encode("ban").tolist()
        [1, 0, 2]
        """
        wanted = code_points(text)
        ids = np.searchsorted(self._code_points, wanted)
        unseen = np.flatnonzero(self._code_points[np.minimum(ids, self.size - 1)] != wanted)
        if unseen.size:
            raise UserError(
                f"{named_character(text, int(unseen[0]))} is not in the vocabulary of {self.size} characters: "
                "leave it out, or train on text that holds it, or with the byte-pair tokenizer, which encodes any text"
            )
        return ids.astype(np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text: decode(encode(text)) == text.

        Raises: UserError if an id is not in the vocabulary.

        >>> CharacterTokenizer("abn").decode([1, 0, 2])
        'ban'
        """
        known = self._code_points[checked_ids(ids, size=self.size)]
        return known.astype("<u4").tobytes().decode("utf-32-le")

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each id as soon as it comes."""
        for one in ids:
            yield self.decode([one])

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocabulary": self.vocabulary}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> CharacterTokenizer:
        """The inverse of to_json.

        Raises: UserError if the object is not what to_json writes.
        """
        if set(saved) != {"kind", "vocabulary"} or not isinstance(saved["vocabulary"], str):
            raise UserError(
                "a saved character tokenizer needs `kind` and a string `vocabulary`, nothing else; train it again"
            )
        return cls(saved["vocabulary"])


def code_points(text: str) -> NDArray[np.int64]:
    """The characters as integers; surrogates pass, so that the caller can name them."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
