"""The windows in which a language model is measured on a text, all of them or a sample. (DATA)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from refllm.data.batching import evenly, window_count, windows

Window = tuple[NDArray[np.int64], NDArray[np.int64]]  # ids and targets


class HeldOutWindows:
    """`windows` of half a context's stride, in which every token of the held-out part is a target: the last one of the
    training part comes before it.

    Raises: UserError if the tokens do not fill one window.
    """

    def __init__(
        self, train: NDArray[np.integer[Any]], tokens: NDArray[np.integer[Any]], *, context: int, batch: int
    ) -> None:
        self.row = np.append(train[-1:], tokens)
        self.context, self.stride, self.batch = context, max(1, context // 2), batch
        self.count = window_count(self.row, context=context, stride=self.stride)

    def pieces(self, most: int | None) -> Pieces:
        """`most` windows, evenly spread and always the same ones, `batch` at a time; all for None."""
        return Pieces(self, evenly(self.count, most))

    def spans(self, most: int | None) -> list[tuple[int, int]]:
        """The held-out tokens that are targets in `pieces(most)`: from where to where, in their order."""
        chosen = evenly(self.count, most)
        last = len(self.row) - 1 - self.context
        ends = np.minimum(chosen * self.stride, last) + self.context
        starts = np.where(chosen == 0, 0, np.minimum((chosen - 1) * self.stride, last) + self.context)
        follows = np.append(False, starts[1:] == ends[:-1])
        return list(zip(starts[~follows].tolist(), ends[np.append(~follows[1:], True)].tolist(), strict=True))


class Pieces(Sequence[Window]):
    """Windows that are made when they are asked for: all at once would be many times the text."""

    def __init__(self, of: HeldOutWindows, chosen: NDArray[np.int64]) -> None:
        self.of, self.chosen = of, chosen

    def __len__(self) -> int:
        return math.ceil(len(self.chosen) / self.of.batch)

    @overload
    def __getitem__(self, i: int) -> Window: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Window]: ...
    def __getitem__(self, i: int | slice) -> Window | Sequence[Window]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        start = i % len(self) * self.of.batch
        some = self.chosen[start : start + self.of.batch]
        return windows(self.of.row, context=self.of.context, stride=self.of.stride, chosen=some)
