"""From a row of tokens to the windows of a training step and of an evaluation. (DATA)"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refllm.errors import UserError

IGNORED = -1  # the target of a position that does not count
PIECE = 1 << 20  # tokens whose bytes are in memory at the same time


class Batches:
    """Batches of windows of context + 1 tokens: ids are batch[:, :-1], targets batch[:, 1:].

    An epoch cuts the tokens into consecutive windows that share one token (so that each token is a target once),
    starting at a random offset below `context`, and shuffles them. Each epoch has its own offset, so that no token
    always comes first in its window; what an epoch leaves out at the two ends, less than a window each, the next
    offsets bring. A batch may begin in one epoch and end in the next.

    The order is drawn from `generator` (numpy.random.default_rng), from which nothing else may draw: then `state()` and
    `from_state` continue the order bit for bit.

    Raises: UserError if the tokens do not fill one window; TypeError if the generator's state is not that of PCG64.
    """

    def __init__(
        self, tokens: NDArray[np.integer[Any]], *, context: int, batch: int, generator: np.random.Generator
    ) -> None:
        if context < 1 or batch < 1:
            raise UserError(f"context and batch must be at least 1; got context {context} and batch {batch}")
        refuse_shorter_than_window(tokens, context=context, part="training")
        if not isinstance(generator.bit_generator, np.random.PCG64):
            raise TypeError("Batches: generator must be numpy.random.default_rng(seed), whose state goes into JSON")
        self.tokens, self.context, self.batch, self.generator = tokens, context, batch, generator
        self._crc32 = fingerprint(tokens)
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._epoch_random = self.generator.bit_generator.state
        self._next = 0
        room = len(self.tokens) - 1
        offset = self.generator.integers(min(self.context, room - self.context + 1))
        windows = (room - offset) // self.context
        self._starts = offset + self.context * self.generator.permutation(windows)

    def next_batch(self) -> NDArray[np.int64]:
        """The next windows, (B, T + 1)."""
        starts: list[int] = []
        while len(starts) < self.batch:
            if self._next == len(self._starts):
                self._start_epoch()
            taken = self._starts[self._next : self._next + self.batch - len(starts)]
            self._next += len(taken)
            starts.extend(taken)
        return self.tokens[np.array(starts)[:, None] + np.arange(self.context + 1)].astype(np.int64, copy=False)

    def state(self) -> dict[str, Any]:
        """What `from_state` needs to go on, and to know the run again, ready for JSON."""
        return {
            "context": self.context,
            "batch": self.batch,
            "tokens_crc32": self._crc32,
            "random": self._epoch_random,
            "next": self._next,
        }

    @classmethod
    def from_state(
        cls, tokens: NDArray[np.integer[Any]], state: Mapping[str, Any], *, context: int, batch: int
    ) -> Batches:
        """The Batches that `state()` described, about to draw the same batch.

        Raises: UserError if the state is damaged, or belongs to other tokens, another context or another batch.
        """
        damaged = "the saved data order is damaged; start a new run, or resume from another checkpoint"
        generator = np.random.default_rng()
        try:
            began = tuple(state[key] for key in ("tokens_crc32", "context", "batch"))
            position = state["next"]
            generator.bit_generator.state = state["random"]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(damaged) from None
        batches = cls(tokens, context=context, batch=batch, generator=generator)
        if began[0] != batches._crc32:
            raise UserError("the training text is not the one that the run began with; resume with the same data")
        if began[1:] != (context, batch):
            raise UserError(f"the run began with context {began[1]} and batch {began[2]}; resume with the same")
        if type(position) is not int or not 0 <= position <= len(batches._starts):
            raise UserError(damaged)
        batches._next = position
        return batches


def windows(
    tokens: NDArray[np.integer[Any]], *, context: int, stride: int, chosen: NDArray[np.integer[Any]] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every token but the first as a target exactly once: ids (N, T) and targets (N, T), T = context.

    Windows begin `stride` tokens after each other, the last one where it ends with the tokens. The first counts all
    its targets; a later one only those that none before it counted, the rest are IGNORED = -1. So with stride = context
    a target sees 1 to T tokens, with stride < context at least T - stride + 1 (but for the first T - stride of the
    text), at T / stride times the work. `chosen` are the numbers of the windows that are wanted, if not all.

    Raises: UserError if the tokens do not fill one window, or stride is not in 1 … context.
    """
    number = window_count(tokens, context=context, stride=stride)
    wanted = np.arange(number) if chosen is None else chosen
    last = len(tokens) - 1 - context
    starts, before = np.minimum(wanted * stride, last), np.minimum((wanted - 1) * stride, last)
    counted = np.where(wanted == 0, 0, before + context)
    places = starts[:, None] + np.arange(context)
    ids, following = tokens[places].astype(np.int64), tokens[places + 1].astype(np.int64)
    return ids, np.where(places >= counted[:, None], following, IGNORED)


def window_count(tokens: NDArray[np.integer[Any]], *, context: int, stride: int) -> int:
    """How many `windows` there are, and as there: UserError for too few tokens or another stride."""
    if not 1 <= stride <= context:
        raise UserError(f"the stride of the evaluation must be between 1 and the context {context}; got {stride}")
    refuse_shorter_than_window(tokens, context=context, part="validation")
    return -(-(len(tokens) - 1 - context) // stride) + 1


def held_out_windows(
    train: NDArray[np.integer[Any]], validation: NDArray[np.integer[Any]], *, context: int, stride: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`windows` in which every token of the validation part is a target: the last one of training comes before it."""
    return windows(np.append(train[-1:], validation), context=context, stride=stride)


def evenly(total: int, most: int | None) -> NDArray[np.int64]:
    """`most` of the numbers below `total`, in order and evenly spread; all of them where they are no more, or for None.

    The same for the same two numbers: what is measured on them is measured on the same things every time.
    """
    if most is None or most >= total:
        return np.arange(total)
    return (2 * np.arange(most) + 1) * total // (2 * most)


def some_batches(batches: Sequence[Any], most: int | None, *, batch: int) -> list[Any]:
    """As many batches, evenly spread, as hold `most` examples; all of them for None."""
    number = None if most is None else -(-most // batch)
    return [batches[i] for i in evenly(len(batches), number).tolist()]


def refuse_shorter_than_window(tokens: NDArray[np.integer[Any]], *, context: int, part: str) -> None:
    """A window is context + 1 tokens: the ids, and the targets one further.

    Raises: UserError if the tokens are fewer.
    """
    if tokens.ndim != 1:
        raise ValueError(f"tokens must be one row (N,); got {tokens.shape}")
    if len(tokens) < context + 1:
        remedy = f"use --context {len(tokens) - 1} or less, or give more text" if len(tokens) > 1 else "give more text"
        raise UserError(
            f"the {part} text has {len(tokens)} tokens; one window of context {context} needs {context + 1}: {remedy}"
        )


def fingerprint(tokens: NDArray[np.integer[Any]]) -> int:
    """The same number for the same tokens, whatever their integer type and the machine."""
    crc = 0
    for start in range(0, len(tokens), PIECE):
        crc = zlib.crc32(tokens[start : start + PIECE].astype("<i8").tobytes(), crc)
    return crc
