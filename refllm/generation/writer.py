"""A batch of texts that a model writes on: the next distribution, and rows that can be copied. Two kinds of model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from refllm.backend import Array, namespace
from refllm.errors import UserError
from refllm.generation.cache import KeyValueCache
from refllm.generation.decoder_cache import DecoderCache
from refllm.generation.generate import Generator, last_logits, logits_of_last, new_cache
from refllm.parameters import Tree, any_leaf


class Writer(Protocol):
    """What greedy choice, sampling (sequence.py) and beam search (beam.py) ask of a model and its cache."""

    @property
    def room(self) -> int:
        """The tokens that it can be given in all."""
        ...

    def logits(self, ids: Array | Sequence[Sequence[int]]) -> Array:
        """The logits (R, V), on the host, of the token after `ids` (R, T), which follow all that was given before."""
        ...

    def expand(self, n: int) -> None:
        """Makes n rows of every row, one after the other."""
        ...

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Row targets[i] becomes what row sources[i] is; no source is a target."""
        ...


class SequenceModel(Protocol):
    """What the file of an encoder-decoder offers to be written with."""

    def encode(
        self, p: Tree, *, ids: Array, attention_mask: Array | None, config: Any, dropout_mask: None
    ) -> tuple[Array, Any]: ...

    def decode(
        self,
        p: Tree,
        memory: Array,
        *,
        ids: Array,
        memory_mask: Array | None,
        config: Any,
        dropout_mask: None,
        cache: Any,
    ) -> tuple[Array, Any]: ...

    def head(self, p: Tree, config: Any) -> Array: ...

    def cache_shape(self, config: Any) -> tuple[int, int, int]: ...


class CausalWriter:
    """A language model that goes on with prompts, `rows` of them; `padding` (rows,) as in KeyValueCache.

    Raises:  UserError if `room`, the tokens of the prompt and of what follows, is beyond the context of a model that
             has keys and values: beams cannot slide a window.
    """

    def __init__(self, p: Tree, *, model: Generator, config: Any, rows: int, room: int, padding: Array | None) -> None:
        if hasattr(model, "cache_shape"):
            _require_room(room, config)
        self.p, self.model, self.config = p, model, config
        self.store: Any = new_cache(p, model, config, batch=rows, room=room, padding=padding)
        self.room = room

    def logits(self, ids: Array | Sequence[Sequence[int]]) -> Array:
        there = namespace(any_leaf("generate", self.p)).asarray(ids)
        return last_logits(self.p, model=self.model, ids=there, config=self.config, cache=self.store)

    def expand(self, n: int) -> None:
        self.store = self.store.repeated(n)

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        if sources:
            xp = namespace(any_leaf("generate", self.p))
            self.store.copy_rows(xp.asarray(sources), xp.asarray(targets))


class SequenceWriter:
    """An encoder-decoder that writes targets of sources (B, S), which it reads once; `attention_mask` (B, S) or None.

    Raises:  UserError if `room`, the tokens of the target with its start, or the source is beyond the context.
    """

    def __init__(
        self, p: Tree, *, model: SequenceModel, config: Any, source: Array, attention_mask: Array | None, room: int
    ) -> None:
        _require_room(room, config)
        self.p, self.model, self.config, self.attention_mask = p, model, config, attention_mask
        self.memory, _ = model.encode(p, ids=source, attention_mask=attention_mask, config=config, dropout_mask=None)
        layers, heads, head_width = model.cache_shape(config)
        text = KeyValueCache(
            batch=len(source), layers=layers, heads=heads, room=room, head_width=head_width, padding=None,
            like=self.memory,
        )  # fmt: skip
        self.store = DecoderCache(text)
        self.room = room

    def logits(self, ids: Array | Sequence[Sequence[int]]) -> Array:
        h, _ = self.model.decode(
            self.p, self.memory, ids=namespace(self.memory).asarray(ids), memory_mask=self.attention_mask,
            config=self.config, dropout_mask=None, cache=self.store,
        )  # fmt: skip
        return logits_of_last(h, self.p, model=self.model, config=self.config)

    def expand(self, n: int) -> None:
        self.store = self.store.repeated(n)

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        if sources:
            xp = namespace(self.memory)
            self.store.text.copy_rows(xp.asarray(sources), xp.asarray(targets))


def require_step(writer: Writer, ids: Array, new_tokens: int) -> None:
    """UserError unless `new_tokens` can follow `ids` (R, T)."""
    if new_tokens < 1:
        raise UserError(f"the number of new tokens must be at least 1, got {new_tokens}")
    if not 1 <= ids.shape[1] <= writer.room - new_tokens + 1:  # the last token is not read again
        raise UserError(
            f"{ids.shape[1]} tokens to begin with and {new_tokens} new ones need room for "
            f"{ids.shape[1] + new_tokens - 1}, and there is {writer.room}; begin with at least one, or write fewer"
        )


def _require_room(room: int, config: Any) -> None:
    if not 1 <= room <= config.context:
        raise UserError(f"the room to write in must be 1 to {config.context} tokens (context), not {room}")
