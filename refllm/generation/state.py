"""What a model without attention carries from token to token: a state of fixed size, and no text."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

from refllm.backend import Array, namespace
from refllm.generation.cache import KeyValueCache
from refllm.parameters import Tree, map_leaves, named_leaves


class CarriedState:
    """The state of a model for a batch of B texts: a tree of arrays (B, ...), zeros where the texts begin.

    The model replaces the arrays in `layers` by those after the tokens that it was given. `padding` (B,) counts the
    places at the beginning of a row that hold no token, as in the cache of keys and values.
    """

    def __init__(self, shapes: Tree, *, batch: int, padding: Array | None, like: Array) -> None:
        xp = namespace(like)
        self.length, self.padding = 0, padding
        self.layers: Tree = map_leaves(lambda shape: xp.zeros((batch, *shape), like.dtype), shapes)
        self._like = like

    def advance(self, tokens: int) -> Array | None:
        """Goes on by `tokens` places; which of them hold a token, (B, tokens), or None for all."""
        start, self.length = self.length, self.length + tokens
        if self.padding is None:
            return None
        return namespace(self._like).arange(start, self.length) >= self.padding[:, None]

    def copy_rows(self, sources: Array, targets: Array) -> None:
        """Row targets[i] becomes what row sources[i] is. No source is a target."""
        for _, held in named_leaves(self.layers):
            held[targets] = held[sources]

    def repeated(self, n: int) -> CarriedState:
        """A state in which every row stands n times, one copy after the other."""
        xp, new = namespace(self._like), copy(self)
        new.layers = map_leaves(lambda held: xp.repeat(held, n, axis=0), self.layers)
        new.padding = None if self.padding is None else xp.repeat(self.padding, n)
        return new


@dataclass(frozen=True)
class CacheAndState:
    """Both, for a model with attention and recurrent layers."""

    cache: KeyValueCache
    state: CarriedState

    def copy_rows(self, sources: Array, targets: Array) -> None:
        self.cache.copy_rows(sources, targets)
        self.state.copy_rows(sources, targets)

    def repeated(self, n: int) -> CacheAndState:
        return CacheAndState(self.cache.repeated(n), self.state.repeated(n))
