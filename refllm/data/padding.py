"""Texts of different lengths in one array, and batches in which they differ little. (DATA)"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refllm.errors import UserError

POOL = 50  # batches whose texts are sorted by length together


def padded(texts: Sequence[NDArray[Any]], *, value: int) -> NDArray[np.int64]:
    """The texts as rows, filled up at their end to the longest of THIS batch: (B, T).

    Raises: UserError if there is no text, or only empty ones.
    """
    longest = max(map(len, texts), default=0)
    if longest == 0:
        raise UserError("a batch needs a text with at least one token; leave empty texts out")
    rows = np.full((len(texts), longest), value, np.int64)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = text
    return rows


def attended(lengths: Sequence[int] | NDArray[np.integer[Any]], *, longest: int) -> NDArray[np.bool_]:
    """Which keys every query of a padded batch may attend: (B, 1, 1, T), true inside the text."""
    inside: NDArray[np.bool_] = np.arange(longest) < np.asarray(lengths)[:, None]
    return inside[:, None, None, :]


def padded_batch(examples: Sequence[tuple[NDArray[Any], NDArray[Any]]], *, pad: int) -> dict[str, NDArray[Any]]:
    """Ids and segments of each text (data/sentences.py::marked) as what an encoder takes: ids (B, T), segments (B, T),
    attention_mask (B, 1, 1, T)."""
    ids = padded([text for text, _ in examples], value=pad)
    lengths = [len(text) for text, _ in examples]
    return {
        "ids": ids,
        "segments": padded([segments for _, segments in examples], value=0),
        "attention_mask": attended(lengths, longest=ids.shape[1]),
    }


def bucketed(
    lengths: NDArray[np.integer[Any]], *, batch: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """An epoch: every example once, in batches of similar lengths, in random order; the indices of each batch.

    The examples are shuffled, cut into pools of 50 batches, sorted by length within a pool, cut into batches, and the
    batches shuffled. So an example has other companions in each epoch, and little of a batch is padding. The last batch
    of an epoch that does not divide is smaller.
    """
    order = generator.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), batch * POOL):
        pool = order[start : start + batch * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch] for i in range(0, len(pool), batch)]
    return [batches[i] for i in generator.permutation(len(batches))]


class LengthBuckets:
    """`bucketed` epoch after epoch: the indices of the next batch's examples.

    The order is drawn from `generator` (numpy.random.default_rng), from which nothing else may draw: then `state()` and
    `from_state` continue the order bit for bit.

    Raises: UserError if there is no example or no batch; TypeError if the generator's state is not that of PCG64.
    """

    def __init__(self, lengths: Sequence[int], *, batch: int, generator: np.random.Generator) -> None:
        self.lengths = np.asarray(lengths, np.int64)
        if not len(self.lengths) or batch < 1:
            raise UserError(f"batches need examples and a size of at least 1; got {len(self.lengths)} and {batch}")
        require_resumable(generator)
        self.batch, self.generator = batch, generator
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._epoch_random = self.generator.bit_generator.state
        self._next = 0
        self._batches = bucketed(self.lengths, batch=self.batch, generator=self.generator)

    def next_batch(self) -> NDArray[np.int64]:
        """The indices of the examples, at most `batch`."""
        if self._next == len(self._batches):
            self._start_epoch()
        self._next += 1
        return self._batches[self._next - 1]

    def state(self) -> dict[str, Any]:
        """What `from_state` needs to go on, and to know the examples again, ready for JSON."""
        return {
            "batch": self.batch,
            "lengths_crc32": zlib.crc32(self.lengths.astype("<i8").tobytes()),
            "random": self._epoch_random,
            "next": self._next,
        }

    @classmethod
    def of(
        cls, lengths: Sequence[int], *, batch: int, generator: np.random.Generator, state: Mapping[str, Any] | None
    ) -> LengthBuckets:
        """The LengthBuckets of a state, if there is one, else new ones in the order of the generator."""
        if state is None:
            return cls(lengths, batch=batch, generator=generator)
        return cls.from_state(lengths, state, batch=batch)

    @classmethod
    def from_state(cls, lengths: Sequence[int], state: Mapping[str, Any], *, batch: int) -> LengthBuckets:
        """The LengthBuckets that `state()` described, about to give the same batch.

        Raises: UserError if the state is damaged, or belongs to other examples or another batch.
        """
        generator = np.random.default_rng()
        try:
            generator.bit_generator.state = state["random"]
            position, began = state["next"], {name: state[name] for name in ("batch", "lengths_crc32")}
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(DAMAGED) from None
        buckets = cls(lengths, batch=batch, generator=generator)
        refuse_other(began, buckets.state())
        if type(position) is not int or not 0 <= position <= len(buckets._batches):
            raise UserError(DAMAGED)
        buckets._next = position
        return buckets


DAMAGED = "the saved data order is damaged; start a new run, or resume from another checkpoint"


def require_resumable(generator: np.random.Generator) -> None:
    """TypeError unless the generator's state goes into JSON."""
    if not isinstance(generator.bit_generator, np.random.PCG64):
        raise TypeError("the generator must be numpy.random.default_rng(seed), whose state goes into JSON")


def refuse_other(began: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises: UserError if the run began with other examples or settings than it goes on with."""
    for name, value in began.items():
        if now[name] != value:
            if name.endswith("crc32"):
                raise UserError("the examples are not those that the run began with; resume with the same data")
            raise UserError(f"the run began with {name} {value}, not {now[name]}; resume with the same")
