"""Text to token ids and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from refllm.errors import UserError
from refllm.tokenizers.bpe import BytePairTokenizer
from refllm.tokenizers.character import CharacterTokenizer
from refllm.tokenizers.marked import MarkedTokenizer
from refllm.tokenizers.published.tokenizer import PublishedTokenizer
from refllm.tokenizers.word import WordTokenizer
from refllm.tokenizers.wordpiece import WordPieceTokenizer

__all__ = [
    "BytePairTokenizer",
    "CharacterTokenizer",
    "MarkedTokenizer",
    "PublishedTokenizer",
    "Tokenizer",
    "WordPieceTokenizer",
    "WordTokenizer",
    "begun",
    "character_starts",
    "default_start",
    "encode_long",
    "gives_back",
    "load",
    "unknown_share",
]


class Tokenizer(Protocol):
    """What training and generation ask of a tokenizer; ids are 0 … size - 1.

    Bits per character count the characters of the text, len(text), whatever the number of tokens: no tokenizer needs
    to say how many characters an id has, and two tokenizers compare that both `gives_back` the text.
    """

    @property
    def kind(self) -> str: ...

    @property
    def size(self) -> int: ...

    def encode(self, text: str) -> NDArray[np.int64]: ...

    def decode(self, ids: Iterable[int]) -> str: ...

    def stream(self, ids: Iterable[int]) -> Iterator[str]: ...

    def to_json(self) -> dict[str, Any]: ...


Kind: TypeAlias = (
    type[CharacterTokenizer]
    | type[BytePairTokenizer]
    | type[WordTokenizer]
    | type[WordPieceTokenizer]
    | type[MarkedTokenizer]
    | type[PublishedTokenizer]
)
KINDS: dict[str, Kind] = {
    one.kind: one
    for one in (
        CharacterTokenizer, BytePairTokenizer, WordTokenizer, WordPieceTokenizer, MarkedTokenizer, PublishedTokenizer,
    )
}  # fmt: skip


def load(saved: object) -> Tokenizer:
    """The tokenizer that `to_json` wrote; whatever else the JSON may hold is refused.

    Raises: UserError if it is not a tokenizer of a known kind in every detail.

    >>> from refllm.tokenizers.character import CharacterTokenizer
    >>> load(CharacterTokenizer("abn").to_json()).decode([1, 0, 2])
    'ban'
    """
    kind = saved.get("kind") if isinstance(saved, dict) else None
    if not isinstance(saved, dict) or not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"a saved tokenizer must be an object whose `kind` is one of {', '.join(KINDS)}; train again")
    return KINDS[kind].from_json(saved)


def begun(tokenizer: Tokenizer, text: str) -> NDArray[np.int64]:
    """The ids of a text that a model goes on with, after what its tokenizer puts before every text, if anything."""
    begins = getattr(tokenizer, "begun", tokenizer.encode)
    ids: NDArray[np.int64] = begins(text)
    return ids


BORDER = re.compile(r"(?<=\S)(?=[ \n])")  # no token of any kind reaches across: what follows begins with its space
PIECE = 1 << 20  # characters that are encoded together


def encode_long(tokenizer: Tokenizer, text: str, *, piece: int = PIECE) -> NDArray[np.unsignedinteger[Any]]:
    """The ids of `encode` in the smallest type that holds them, encoded piece by piece: a long text takes little more
    memory than they do."""
    kind = np.min_scalar_type(tokenizer.size - 1)
    if isinstance(tokenizer, PublishedTokenizer):  # its words may reach across
        return tokenizer.encode(text).astype(kind)
    found = [tokenizer.encode(text[start:end]).astype(kind) for start, end in borders(text, piece=piece)]
    return np.concatenate(found) if found else np.zeros(0, kind)


def borders(text: str, *, piece: int) -> Iterator[tuple[int, int]]:
    """Where a text can be cut into pieces of that many characters, or of more where no border follows."""
    start = 0
    while start < len(text):
        border = BORDER.search(text, start + piece)
        end = border.start() if border else len(text)
        yield start, end
        start = end


def character_starts(tokenizer: Tokenizer, tokens: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """How many characters of a text that the tokens `gives_back` begin before each of them, and before its end.

    A character that several tokens spell begins in the first of them.
    """
    if isinstance(tokenizer, BytePairTokenizer):
        each = np.array([sum(byte & 0xC0 != 0x80 for byte in token) for token in tokenizer.vocabulary])
        return np.append(0, np.cumsum(each[tokens]))
    if isinstance(tokenizer, PublishedTokenizer):
        return np.append(0, np.cumsum(tokenizer.characters(tokens)))
    return np.arange(len(tokens) + 1)  # one each


def gives_back(tokenizer: Tokenizer, tokens: NDArray[np.int64], text: str) -> bool:
    """Whether the tokens of a text hold all of it. If not, their likelihood is not that of its characters: what is lost
    (white space, case, an unknown word) costs nothing."""
    return tokenizer.decode(tokens) == text


def unknown_share(tokenizer: Tokenizer, tokens: NDArray[np.int64]) -> float:
    """The share of the tokens that are [UNK], a word outside the vocabulary; 0 for a tokenizer without it."""
    special = getattr(tokenizer, "special", None)
    return 0.0 if special is None else float((tokens == special.unknown).mean())


ENDS = ("\n", ".", "。")  # of a line or a sentence


def default_start(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """What a text goes on from where no prompt is given, (1,): a new line; where the tokenizer has no token for it the
    end of a sentence, or else the first token that is not special (of words the most frequent)."""
    special = getattr(tokenizer, "special", ())
    for end in ENDS:
        with suppress(UserError):  # a character that the alphabet lacks
            tokens = tokenizer.encode(end)[:1]
            if len(tokens) and tokens[0] not in special:
                return tokens
    return np.array([next(token for token in range(tokenizer.size) if token not in special)])


def require_same_vocabulary(tokenizer: Tokenizer, vocabulary: int) -> None:
    """UserError unless the tokenizer is as large as the vocabulary of the model that was saved with it."""
    if vocabulary != tokenizer.size:
        raise UserError(
            f"the model has a vocabulary of {vocabulary}, its tokenizer one of {tokenizer.size}; "
            "they do not belong together: use another checkpoint"
        )
