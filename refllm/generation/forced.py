"""A writer whose first or last token is given, as BART's files ask for."""

from __future__ import annotations

from collections.abc import Sequence

from refllm.backend import Array, namespace
from refllm.generation.writer import Writer


class ForcedWriter:
    """Of `new_tokens` tokens the first is `first` and the last is `last`, where they are not None."""

    def __init__(self, writer: Writer, *, new_tokens: int, first: int | None, last: int | None) -> None:
        given = [(0, first), (new_tokens - 1, last)]
        self.writer, self.given = writer, {step: token for step, token in given if token is not None}
        self.step = 0

    @property
    def room(self) -> int:
        return self.writer.room

    def logits(self, ids: Array | Sequence[Sequence[int]]) -> Array:
        """Those of the model, or of a certain token."""
        found = self.writer.logits(ids)
        token, self.step = self.given.get(self.step), self.step + 1
        if token is None:
            return found
        certain = namespace(found).full_like(found, -float("inf"))
        certain[:, token] = 0
        return certain

    def expand(self, n: int) -> None:
        self.writer.expand(n)

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        self.writer.copy_rows(sources, targets)
