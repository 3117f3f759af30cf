"""Tokens as an implementation: the masking of words, and byte-pair encoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array, to_host
from refllm.data import masking
from refllm.tokenizers import bpe


def functions() -> dict[str, Callable[..., Any]]:
    return {f.__name__: f for f in (mask_words, learn_merges, encode_word)}


def mask_words(
    *, ids: Array, which: Array, how: Array, words: Array, special: Array, mask: int, share: float
) -> tuple[Array, Array, Array]:
    ids, which, how, words, special = map(to_host, (ids, which, how, words, special))  # masked on the host
    found = masking.mask_words(
        ids, masking.MaskingDraws(which, how, words), special=special.tolist(), mask=mask, share=share
    )  # fmt: skip
    return found.ids, found.positions, found.targets


def learn_merges(*, words: Array, counts: Array, most: int) -> Array:
    words, counts = to_host(words), to_host(counts)
    spelled = ["".join(chr(i) for i in word if i >= 0) for word in words]
    merges = bpe.merges_of(spelled, counts.tolist(), most)
    return numpy.array([*merges, *[(-1, -1)] * (most - len(merges))], "int64").reshape(most, 2)


def encode_word(*, ids: Array, merges: Array) -> Array:
    ids, merges = to_host(ids), to_host(merges)
    tokenizer = bpe.BytePairTokenizer(tuple((int(a), int(b)) for a, b in merges))
    found = tokenizer.merged("".join(map(chr, ids)))
    return numpy.array([*found, *[-1] * (len(ids) - len(found))], "int64")
