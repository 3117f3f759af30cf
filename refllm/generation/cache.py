"""Keys and values of the tokens so far, so that a new token costs one row of work and not the whole text."""

from __future__ import annotations

from refllm.backend import Array, namespace


class LayerCache:
    """One layer's keys and values, (B, H, S, D) each, in room that is allocated once."""

    def __init__(self, owner: KeyValueCache, shape: tuple[int, int, int, int], like: Array) -> None:
        xp = namespace(like)
        self.owner = owner
        self.k, self.v = xp.empty(shape, like.dtype), xp.empty(shape, like.dtype)

    def extend(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Writes k and v (B, H, T, D) behind what is there; all of it so far, as views: nothing is copied."""
        end = self.owner.length
        start = end - k.shape[-2]
        self.k[:, :, start:end], self.v[:, :, start:end] = k, v
        return self.k[:, :, :end], self.v[:, :, :end]


class KeyValueCache:
    """The cache of a model for a batch of B texts.

    `padding` (B,) counts the places at the beginning of a row that hold no token: rows of unequal length are padded on
    the left, so that all of them end, and go on, together.
    """

    def __init__(
        self, *, batch: int, layers: int, heads: int, room: int, head_width: int, padding: Array | None, like: Array
    ) -> None:
        self.room, self.length, self.padding = room, 0, padding
        self.layers = [LayerCache(self, (batch, heads, room, head_width), like) for _ in range(layers)]
        self._like = like

    def advance(self, tokens: int) -> tuple[Array, Array | None]:
        """Makes room for `tokens` more. Their positions, (T,) or (B, T), and the keys that each row may attend.

        Raises:  ValueError if the cache cannot hold them.
        """
        if self.length + tokens > self.room:
            raise ValueError(f"cache: no room for {tokens} more tokens; it holds {self.length} of {self.room}")
        start, self.length = self.length, self.length + tokens
        xp = namespace(self._like)
        positions = xp.arange(start, self.length)
        if self.padding is None:
            return positions, None
        own = xp.maximum(positions - self.padding[:, None], 0)  # a place of padding takes any position: none attends it
        return own, (xp.arange(self.length) >= self.padding[:, None])[:, None, None, :]  # (B, 1, 1, S)

    def copy_rows(self, sources: Array, targets: Array) -> None:
        """Row targets[i] becomes what row sources[i] is, as far as it is filled. No source is a target."""
        for layer in self.layers:
            for held in (layer.k, layer.v):
                held[targets, :, : self.length] = held[sources, :, : self.length]

    def repeated(self, n: int) -> KeyValueCache:
        """A cache in which every row stands n times, one copy after the other."""
        rows, heads, room, head_width = self.layers[0].k.shape
        xp = namespace(self._like)
        new = KeyValueCache(
            batch=rows * n, layers=len(self.layers), heads=heads, room=room, head_width=head_width,
            padding=None if self.padding is None else xp.repeat(self.padding, n), like=self._like,
        )  # fmt: skip
        new.length = self.length
        for one, other in zip(self.layers, new.layers, strict=True):
            for source, target in ((one.k, other.k), (one.v, other.v)):
                filled = target.reshape(rows, n, *target.shape[1:])[:, :, :, : self.length]
                filled[...] = source[:, None, :, : self.length]
        return new
