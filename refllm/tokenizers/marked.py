"""Special tokens for a tokenizer that has none: their ids come after its own. (DATA)"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from refllm.errors import UserError
from refllm.tokenizers.bpe import BYTES, BytePairTokenizer
from refllm.tokenizers.checks import checked_ids
from refllm.tokenizers.vocabulary import SPECIAL, SpecialIds

if TYPE_CHECKING:
    from refllm.tokenizers import Tokenizer


@dataclass(frozen=True)
class MarkedTokenizer:
    """The ids of `inner`, then [PAD], [UNK], [CLS], [SEP] and [MASK], which stand for no text.

    Raises: UserError if `inner` has special tokens of its own.
    """

    inner: Tokenizer
    kind: ClassVar[str] = "marked"

    def __post_init__(self) -> None:
        if hasattr(self.inner, "special"):
            raise UserError(f"a tokenizer of kind {self.inner.kind} has its special tokens already; take it as it is")

    @classmethod
    def train(cls, text: str, *, vocabulary: int) -> MarkedTokenizer:
        """Byte pairs learnt from the text, at most `vocabulary` tokens together with the special ones.

        Raises: UserError if there is no room for the bytes and the special tokens, or as BytePairTokenizer.train.
        """
        cls.require_room(vocabulary)
        return cls(BytePairTokenizer.train(text, vocabulary=vocabulary - len(SPECIAL)))

    @staticmethod
    def require_room(vocabulary: int) -> None:
        """UserError if the vocabulary has no room for the bytes and the special tokens."""
        if vocabulary < BYTES + len(SPECIAL):
            raise UserError(
                f"a vocabulary of {vocabulary} has no room for the {BYTES} bytes and {len(SPECIAL)} special tokens; "
                f"ask for {BYTES + len(SPECIAL)} or more"
            )

    @property
    def size(self) -> int:
        return self.inner.size + len(SPECIAL)

    @property
    def special(self) -> SpecialIds:
        return SpecialIds(*range(self.inner.size, self.size))

    def encode(self, text: str) -> NDArray[np.int64]:
        """Text to ids; a special token's name in the text is text like any other."""
        return self.inner.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text without the special ones: decode(encode(text)) is what `inner` makes of it.

        Raises: UserError if an id is not in the vocabulary.
        """
        known = checked_ids(ids, size=self.size)
        return self.inner.decode(known[known < self.inner.size])

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The pieces of `inner`; a special id gives none. The joined pieces are decode(ids)."""
        checked = (int(checked_ids([one], size=self.size)[0]) for one in ids)
        return self.inner.stream(one for one in checked if one < self.inner.size)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "inner": self.inner.to_json()}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> MarkedTokenizer:
        """The inverse of to_json.

        Raises: UserError if the object is not what to_json writes.
        """
        from refllm.tokenizers import load

        inner = saved.get("inner")
        if set(saved) != {"kind", "inner"} or not isinstance(inner, dict) or inner.get("kind") == cls.kind:
            raise UserError("a saved marked tokenizer needs `kind` and another tokenizer `inner`; train it again")
        return cls(load(inner))


def with_marks(tokenizer: Tokenizer) -> Any:
    """The tokenizer itself if it has special tokens, else one that has them behind its own."""
    return tokenizer if hasattr(tokenizer, "special") else MarkedTokenizer(tokenizer)
