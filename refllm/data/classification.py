"""From labelled texts to the batches of a classifier. (CLS, DATA)"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from refllm.data.padding import LengthBuckets, padded, padded_batch
from refllm.data.sentences import marked
from refllm.errors import UserError
from refllm.tokenizers.vocabulary import SpecialIds

Marked: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]  # ids and segments of [CLS] text [SEP]
Piece: TypeAlias = tuple[list[int], dict[str, NDArray[Any]]]  # the numbers of some texts, and their batch

MARKS = 2  # [CLS] and [SEP]
READING_BATCH = 32  # texts that go through a model together when nothing is learnt


def marked_texts(texts: Sequence[str], *, tokenizer: Any, context: int) -> tuple[list[Marked], int]:
    """Every text as [CLS] text [SEP] in at most `context` tokens, and how many had to be cut to fit.

    What is cut off is the end of the text.

    Raises: UserError if the context has no room for a word.
    """
    if context <= MARKS:
        raise UserError(f"a context of {context} has no room for a text between [CLS] and [SEP]; give more")
    encoded = [tokenizer.encode(text) for text in texts]
    room, special = context - MARKS, tokenizer.special
    cut = sum(len(ids) > room for ids in encoded)
    return [marked(ids[:room], None, cls=special.cls, sep=special.sep) for ids in encoded], cut


def balanced_weights(labels: Sequence[str], *, of: Sequence[str]) -> list[float]:
    """w_i = N / (K n_i): the weight of each of the K labels `of`, with which all count alike in the sum over N texts

    Source:  King & Zeng 2001, Logistic Regression in Rare Events Data, sec. 4.2; documents 000 sec. 4.4.
    Raises:  UserError if a label has no text.
    """
    counts = Counter(labels)
    if missing := [label for label in of if not counts[label]]:
        raise UserError(f"no training text has the label {missing[0]!r}, so it has no weight; give texts with it")
    return [len(labels) / (len(of) * counts[label]) for label in of]


class ClassBatches:
    """Batches for refllm/objectives/classification.py in an order that can be stopped and gone on with.

    A batch has `ids` (B, T), `segments` (B, T), `attention_mask` (B, 1, 1, T), `targets` (B,) and, with weights of the
    labels, `weights` (B,); T is the longest text of the batch.
    """

    def __init__(
        self,
        texts: Sequence[Marked],
        targets: Sequence[int],
        *,
        weights: Sequence[float] | None,
        pad: int,
        order: LengthBuckets,
    ) -> None:
        self.texts, self.pad, self.order = texts, pad, order
        self.targets = np.array(targets, np.int64)
        self.weights = None if weights is None else np.array(weights)

    @classmethod
    def of(
        cls,
        texts: Sequence[Marked],
        targets: Sequence[int],
        *,
        weights: Sequence[float] | None,
        special: SpecialIds,
        batch: int,
        order: np.random.Generator,
        state: Mapping[str, Any] | None,
    ) -> ClassBatches:
        """Batches in the order of a Generator, or going on from a state."""
        lengths = [len(ids) for ids, _ in texts]
        buckets = LengthBuckets.of(lengths, batch=batch, generator=order, state=state)
        return cls(texts, targets, weights=weights, pad=special.pad, order=buckets)

    def next_batch(self) -> dict[str, NDArray[Any]]:
        """The next batch; at the end of an epoch perhaps of fewer texts."""
        return self.batch(self.order.next_batch())

    def batch(self, chosen: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The batch of the texts of these numbers."""
        made = padded_batch([self.texts[i] for i in chosen], pad=self.pad)
        made["targets"] = self.targets[chosen]
        if self.weights is not None:
            made["weights"] = self.weights[made["targets"]]
        return made

    def state(self) -> dict[str, Any]:
        """What a run needs to go on, ready for JSON."""
        return self.order.state()


def by_length(texts: Sequence[Marked], *, pad: int, batch: int = READING_BATCH) -> list[Piece]:
    """All texts once, in batches of similar lengths without labels, each beside the numbers of its texts."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i][0]))
    pieces = [order[start : start + batch] for start in range(0, len(order), batch)]
    return [(piece, padded_batch([texts[i] for i in piece], pad=pad)) for piece in pieces]


def continued(
    prompt: NDArray[np.int64], answers: Sequence[NDArray[np.int64]], *, ignore: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and targets (B, T) with which a language model reads a prompt and each of B answers after it.

    Only the tokens of an answer are targets; the others are `ignore`. A shorter answer is filled up at its end, which
    a model that looks back alone does not see.
    """
    ids = padded([np.concatenate([prompt, answer]) for answer in answers], value=0)
    targets = padded([np.concatenate([np.full(len(prompt), ignore), answer]) for answer in answers], value=ignore)
    return ids[:, :-1], targets[:, 1:]
