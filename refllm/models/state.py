"""What a model with recurrent layers, or with a window of the last words, carries from token to token."""

from __future__ import annotations

from typing import Protocol

from refllm.backend import Array
from refllm.parameters import Tree


class State(Protocol):
    """What is carried after the tokens so far, shaped as the model's `state_shapes` with a batch in front, and given
    new contents by the model (generation/state.py)."""

    layers: Tree
    length: int  # the places that it has gone on by

    def advance(self, tokens: int) -> Array | None:
        """Goes on by `tokens` places; which of them hold a token, (B, T), or None for all."""
        ...
