"""From a row of tokens to the windows of a training step and of an evaluation. (DATA)"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refllm.errors import UserError

IGNORED = -1  # the target of a position that does not count


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
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._epoch_random = self.generator.bit_generator.state
        self._next = 0
        room = len(self.tokens) - 1
        offset = self.generator.integers(min(self.context, room - self.context + 1))
        windows = (room - offset) // self.context
        self._starts = offset + self.context * self.generator.permutation(windows)

    def next_batch(self) -> NDArray[np.integer[Any]]:
        """The next windows, (B, T + 1)."""
        starts: list[int] = []
        while len(starts) < self.batch:
            if self._next == len(self._starts):
                self._start_epoch()
            taken = self._starts[self._next : self._next + self.batch - len(starts)]
            self._next += len(taken)
            starts.extend(taken)
        batch: NDArray[np.integer[Any]] = self.tokens[np.array(starts)[:, None] + np.arange(self.context + 1)]
        return batch

    def state(self) -> dict[str, Any]:
        """What `from_state` needs to go on, and to know the run again, ready for JSON."""
        return {
            "context": self.context,
            "batch": self.batch,
            "tokens_crc32": fingerprint(self.tokens),
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
        if began[0] != fingerprint(tokens):
            raise UserError("the training text is not the one that the run began with; resume with the same data")
        if began[1:] != (context, batch):
            raise UserError(f"the run began with context {began[1]} and batch {began[2]}; resume with the same")
        batches = cls(tokens, context=context, batch=batch, generator=generator)
        if type(position) is not int or not 0 <= position <= len(batches._starts):
            raise UserError(damaged)
        batches._next = position
        return batches


def windows(
    tokens: NDArray[np.integer[Any]], *, context: int, stride: int
) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    """Every token but the first as a target exactly once: ids (N, T) and targets (N, T), T = context.

    Windows begin `stride` tokens after each other, the last one where it ends with the tokens. The first counts all
    its targets; a later one only those that none before it counted, the rest are IGNORED = -1. So with stride = context
    a target sees 1 to T tokens, with stride < context at least T - stride + 1 (but for the first T - stride of the
    text), at T / stride times the work.

    Raises: UserError if the tokens do not fill one window, or stride is not in 1 … context.
    """
    if not 1 <= stride <= context:
        raise UserError(f"the stride of the evaluation must be between 1 and the context {context}; got {stride}")
    refuse_shorter_than_window(tokens, context=context, part="validation")
    last = len(tokens) - 1 - context
    starts = np.append(np.arange(0, last, stride), last)
    places = starts[:, None] + np.arange(context)
    counted = np.append(0, starts[:-1] + context)
    return tokens[places], np.where(places >= counted[:, None], tokens[places + 1].astype(np.int64), IGNORED)


def held_out_windows(
    train: NDArray[np.integer[Any]], validation: NDArray[np.integer[Any]], *, context: int, stride: int
) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    """`windows` in which every token of the validation part is a target: the last one of training comes before it."""
    return windows(np.append(train[-1:], validation), context=context, stride=stride)


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
    return zlib.crc32(tokens.astype("<i8").tobytes())
