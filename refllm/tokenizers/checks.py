"""What every tokenizer refuses, in the same words."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from refllm.errors import UserError


def checked_ids(ids: Iterable[int], *, size: int) -> NDArray[np.int64]:
    """The ids as an array, each of them in [0, size).

    Raises: UserError naming the first id that is not in the vocabulary.
    """
    array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids))
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu":
        raise UserError(f"token ids must be integers, got {array.dtype}; give what encode returned or a model sampled")
    outside = np.flatnonzero((array < 0) | (array >= size))
    if outside.size:
        raise UserError(
            f"token id {array.reshape(-1)[outside[0]]} is not in the vocabulary of {size} tokens; "
            "decode with the tokenizer that the model was trained with"
        )
    return array.astype(np.int64)


def named_character(text: str, position: int) -> str:
    """For an error message: the character at a position of the text, as it prints, by code point, and where."""
    return f"character {text[position]!r} (U+{ord(text[position]):04X}) at position {position}"


def refuse_surrogates(text: str) -> None:
    """Refuse lone surrogates: they are halves of a UTF-16 pair, no characters, and UTF-8 cannot hold them.

    Raises: UserError naming the first one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{named_character(text, error.start)} is a lone surrogate, not Unicode text; "
            "give text that was decoded as UTF-8"
        ) from None
