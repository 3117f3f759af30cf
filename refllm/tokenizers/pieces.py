"""What single tokens stand for, where a token may be a part of a character."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refllm.tokenizers import Tokenizer

LOST = "\ufffd"  # what stands in a text for bytes that are no character


def piece_of(i: int, tokenizer: Any) -> str:
    """The text of a token; bytes that are no whole character as <E9>, so that no two of them look the same."""
    listed = getattr(getattr(tokenizer, "inner", tokenizer), "vocabulary", None)
    if isinstance(listed, tuple) and i < len(listed) and isinstance(listed[i], bytes):
        return named_bytes(listed[i])
    text: str = tokenizer.decode([i])
    return text


def named_bytes(piece: bytes) -> str:
    """The characters of UTF-8 bytes, and each byte that belongs to none as <E9>."""
    text = piece.decode("utf-8", "surrogateescape")
    return "".join(f"<{ord(c) - 0xDC00:02X}>" if "\udc80" <= c <= "\udcff" else c for c in text)


def completed(ids: Iterable[int], tokenizer: Tokenizer) -> str:
    """The text of the tokens without a last character of which only a part is there."""
    listed = list(ids)
    return "".join(islice(tokenizer.stream(listed), len(listed)))
