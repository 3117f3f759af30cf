"""Which words of a text are hidden for the masked language model, and what stands in their place. (MLM)"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refllm.data.batching import IGNORED
from refllm.errors import UserError

Ids = NDArray[np.integer[Any]]

SHARE = 0.15  # of the words of a text are selected
MASKED, REPLACED = 0.8, 0.1  # of the selected ones become [MASK], another word; the rest stay as they are


@dataclass(frozen=True)
class MaskingDraws:
    """What chance decides, for every place of a batch (B, T); a test may give it.

    `which`: uniform numbers; the places of a text with the smallest are selected. `how`: uniform numbers; below 0.8 a
    selected place becomes [MASK], from there below 0.9 the word of `words`, above it stays.
    """

    which: NDArray[np.float64]
    how: NDArray[np.float64]
    words: Ids


def draw_masking(shape: tuple[int, int], *, ordinary: Ids, generator: np.random.Generator) -> MaskingDraws:
    """The draws for a batch; the other words come from `ordinary`, each as probable."""
    which, how = generator.random(shape), generator.random(shape)
    return MaskingDraws(which, how, ordinary[generator.integers(0, len(ordinary), shape)])


def ordinary_ids(size: int, *, special: Collection[int]) -> Ids:
    """The ids 0 … size - 1 but for the special ones.

    Raises: UserError if none is left.
    """
    ordinary = np.setdiff1d(np.arange(size), np.array(sorted(special), np.int64))
    if not len(ordinary):
        raise UserError(f"all {size} tokens of the vocabulary are special; train a tokenizer with words")
    return ordinary


@dataclass(frozen=True)
class Masked:
    """A corrupted batch: ids (B, T); the selected places, positions (B, M), ascending; the words that stood there,
    targets (B, M). A text with fewer than M has slots at the end that are not used: position 0, target IGNORED = -1."""

    ids: Ids
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]


def mask_words(ids: Ids, draws: MaskingDraws, *, special: Collection[int], mask: int, share: float = SHARE) -> Masked:
    """MLM: of every text the share of its ordinary words, rounded, but at least one, is selected

    A function of the ids and the draws alone. Special tokens, the padding among them, are never selected. Each text has
    its own number, so that a long one in the batch does not take the places of a short one.
    Source:  Devlin et al. 2019 sec. 3.1 (15 %; of those 80 % [MASK], 10 % a random token, 10 % the same), code (as
             many as the share says, halves to the even number, not each with that probability); documents 000 sec.
             3.2, 001 ch. 3 sec. 1.2.
    Raises:  UserError if no text of the batch has an ordinary word, or the share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise UserError(f"the share of masked words must be above 0 and at most 1, such as 0.15; got {share}")
    T = ids.shape[1]
    ordinary = ~np.isin(ids, np.array(sorted(special)))
    words = ordinary.sum(axis=1)
    count = np.where(words > 0, np.maximum(1, np.rint(words * share)), 0).astype(np.int64)
    most = int(count.max(initial=0))
    if most == 0:
        raise UserError("the batch has no masked position: none of its texts has a word; give texts with words")
    order = np.where(ordinary, draws.which, np.inf).argsort(axis=1, kind="stable")
    rank = order.argsort(axis=1, kind="stable")
    selected = rank < count[:, None]

    corrupted = np.where(draws.how < MASKED, mask, np.where(draws.how < MASKED + REPLACED, draws.words, ids))
    places = np.sort(np.where(selected, np.arange(T), T), axis=1)[:, :most]
    used = places < T
    positions = np.where(used, places, 0)
    targets = np.where(used, np.take_along_axis(ids, positions, axis=1), IGNORED)
    return Masked(np.where(selected, corrupted, ids).astype(ids.dtype), positions, targets.astype(np.int64))
