"""What the decoder of an encoder-decoder keeps while it writes: its own keys and values, and those of the memory."""

from __future__ import annotations

from refllm.backend import Array
from refllm.blocks.decoder_layer import LayerStores
from refllm.generation.cache import KeyValueCache


class MemoryCache:
    """One layer's keys and values of the memory, (B, H, S, D) each, once they are there."""

    def __init__(self) -> None:
        self.held: tuple[Array, Array] | None = None


class DecoderCache:
    """A KeyValueCache of the target, and beside each of its layers the keys and values of the memory."""

    def __init__(self, text: KeyValueCache, memories: list[MemoryCache] | None = None) -> None:
        self.text = text
        self.memories = [MemoryCache() for _ in text.layers] if memories is None else memories
        self.layers = [LayerStores(layer, memory) for layer, memory in zip(text.layers, self.memories, strict=True)]

    @property
    def length(self) -> int:
        return self.text.length

    def advance(self, tokens: int) -> Array:
        return self.text.advance(tokens)[0]

    def repeated(self, n: int) -> DecoderCache:
        """Every row of the target n times; they share the keys and values of their memory."""
        return DecoderCache(self.text.repeated(n), self.memories)
