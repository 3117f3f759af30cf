"""From documents to the batches that BERT is pre-trained on: pairs, masked words, padding. (MLM, NSP, SOP)"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refllm.data.masking import SHARE, draw_masking, mask_words, ordinary_ids
from refllm.data.padding import DAMAGED, bucketed, padded_batch, refuse_other, require_resumable
from refllm.data.sentences import PAIRINGS, Document, marked
from refllm.errors import UserError
from refllm.tokenizers.vocabulary import SpecialIds

MARKS = 3  # [CLS] and two [SEP]


class PretrainingBatches:
    """Batches for the objective of refllm/objectives/pretraining.py, in an order that can be stopped and gone on with.

    Every epoch draws its pairs and their order anew, and every batch its masked words. A batch has `ids` (B, T),
    `segments` (B, T), `attention_mask` (B, 1, 1, T), `positions` (B, M), `targets` (B, M) and `pair` (B,), where T is
    the longest of the batch and at most `context`.

    All is drawn from `generator` (numpy.random.default_rng), from which nothing else may draw: then `state()` and
    `from_state` continue bit for bit.

    Raises: UserError if the documents are too few, or context or batch too small; TypeError if the generator's state is
            not that of PCG64.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        *,
        context: int,
        batch: int,
        special: SpecialIds,
        vocabulary: int,
        pairing: str,
        generator: np.random.Generator,
        share: float = SHARE,
    ) -> None:
        if batch < 1:
            raise UserError(f"batch must be at least 1; got {batch}")
        if pairing not in PAIRINGS:
            raise UserError(f"pairs are made by one of {', '.join(PAIRINGS)}; got {pairing!r}")
        require_resumable(generator)
        self.documents, self.context, self.batch, self.generator = documents, context, batch, generator
        self.special, self.pairing, self.share = special, pairing, share
        self.ordinary = ordinary_ids(vocabulary, special=special)
        self._crc32 = documents_crc32(documents)
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._epoch_random = self.generator.bit_generator.state
        self._next = 0
        pairs = PAIRINGS[self.pairing](self.documents, room=self.context - MARKS, generator=self.generator)
        cls, sep = self.special.cls, self.special.sep
        self._examples = [marked(pair.first, pair.second, cls=cls, sep=sep) for pair in pairs]
        self._labels = np.array([pair.label for pair in pairs], np.int64)
        lengths = np.array([len(ids) for ids, _ in self._examples])
        self._batches = bucketed(lengths, batch=self.batch, generator=self.generator)

    def next_batch(self) -> dict[str, NDArray[Any]]:
        """The next batch; at the end of an epoch perhaps of fewer texts."""
        if self._next == len(self._batches):
            self._start_epoch()
        chosen = self._batches[self._next]
        self._next += 1
        batch = padded_batch([self._examples[i] for i in chosen], pad=self.special.pad)
        ids = batch["ids"]
        draws = draw_masking((len(ids), ids.shape[1]), ordinary=self.ordinary, generator=self.generator)
        masked = mask_words(ids, draws, special=self.special, mask=self.special.mask, share=self.share)
        return {
            **batch,
            "ids": masked.ids,
            "positions": masked.positions,
            "targets": masked.targets,
            "pair": self._labels[chosen],
        }

    def state(self) -> dict[str, Any]:
        """What `from_state` needs to go on, and to know the run again, ready for JSON."""
        return {
            "context": self.context,
            "batch": self.batch,
            "pairing": self.pairing,
            "share": self.share,
            "documents_crc32": self._crc32,
            "epoch": self._epoch_random,
            "random": self.generator.bit_generator.state,
            "next": self._next,
        }

    @classmethod
    def from_state(
        cls,
        documents: Sequence[Document],
        state: Mapping[str, Any],
        *,
        context: int,
        batch: int,
        special: SpecialIds,
        vocabulary: int,
        pairing: str,
        share: float = SHARE,
    ) -> PretrainingBatches:
        """The PretrainingBatches that `state()` described, about to draw the same batch.

        Raises: UserError if the state is damaged, or belongs to other documents or settings.
        """
        generator, now = np.random.default_rng(), np.random.default_rng()
        try:
            generator.bit_generator.state, now.bit_generator.state = state["epoch"], state["random"]
            position = state["next"]
            began = {name: state[name] for name in ("context", "batch", "pairing", "share", "documents_crc32")}
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(DAMAGED) from None
        refuse_other(began, {
            "context": context, "batch": batch, "pairing": pairing, "share": share,
            "documents_crc32": documents_crc32(documents),
        })  # fmt: skip
        batches = cls(
            documents, context=context, batch=batch, special=special, vocabulary=vocabulary, pairing=pairing,
            generator=generator, share=share,
        )  # fmt: skip
        if type(position) is not int or not 0 <= position <= len(batches._batches):
            raise UserError(DAMAGED)
        batches._next = position
        generator.bit_generator.state = now.bit_generator.state
        return batches


def documents_crc32(documents: Sequence[Document]) -> int:
    """The same number for the same documents, sentence by sentence, on every machine."""
    crc = 0
    for document in documents:
        for sentence in (*document, np.array([-1])):
            crc = zlib.crc32(np.append(sentence, -2).astype("<i8").tobytes(), crc)
    return crc
