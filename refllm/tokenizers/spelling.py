"""How many byte pairs a text needs, so that its characters are seldom in pieces.

Of a script whose characters are two to four bytes, few merges spell most characters by several tokens. A model that
writes then has to get each of them right, and what it gets wrong is not a character at all.
"""

from __future__ import annotations

import numpy as np

from refllm.tokenizers.bpe import BytePairTokenizer

SELDOM = 0.02  # of the characters of a text, in pieces
MOST = 4096  # tokens that are chosen; more must be asked for
CHARACTERS_A_TOKEN = 20  # of the text, for each token that is chosen: with fewer, whole sentences would become tokens
_SLICES, _LOOKED_AT = 20, 200_000  # characters of the text that are looked at, in so many slices


def share_in_pieces(text: str, tokenizer: BytePairTokenizer) -> float:
    """The share of the text's characters that more than one token spell; of a long text that of slices of it."""
    broken = whole = 0
    for part in _slices(text):
        data = np.frombuffer(part.encode(), np.uint8)
        begins = (data & 0xC0) != 0x80
        lengths = np.array([len(tokenizer.vocabulary[i]) for i in tokenizer.encode(part)])
        borders = np.cumsum(lengths)[:-1]
        inside = borders[~begins[borders]]
        broken += len(np.unique(np.cumsum(begins)[inside]))
        whole += len(part)
    return broken / max(1, whole)


def size_for(text: str, *, usual: int) -> int:
    """The tokens that the text needs: the usual number, or twice, four times ... as many while so many leave more than
    a few of its characters in pieces; never more than MOST, nor than the length of the text bears."""
    most = min(MOST, len(text) // CHARACTERS_A_TOKEN)
    sample = "".join(_slices(text))
    size = usual
    while 2 * size <= most and share_in_pieces(sample, BytePairTokenizer.train(sample, vocabulary=size)) > SELDOM:
        size *= 2
    return size


def has_more_pairs(text: str, tokenizer: BytePairTokenizer) -> bool:
    """Whether more tokens could be learnt from the text than were."""
    sample = "".join(_slices(text))
    return BytePairTokenizer.train(sample, vocabulary=tokenizer.size + 1).size > tokenizer.size


def _slices(text: str) -> list[str]:
    if len(text) <= _LOOKED_AT:
        return [text]
    length = _LOOKED_AT // _SLICES
    starts = [(len(text) - length) * i // (_SLICES - 1) for i in range(_SLICES)]
    return [text[start : start + length] for start in starts]
