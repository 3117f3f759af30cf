"""Generation as an implementation: a token, a continued text, greedy translation and beam search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from refllm.backend import Array, namespace, to_host
from refllm.generation import generate as generation
from refllm.generation.beam import beam_search as search
from refllm.generation.sampling import choose
from refllm.generation.sequence import write
from refllm.generation.writer import CausalWriter, SequenceWriter, Writer
from refllm.models import by_name
from refllm.models import encoder_decoder as model
from refllm.parameters import Tree

NOTHING = -1  # stands where there is no token


def functions() -> dict[str, Callable[..., Any]]:
    own = (sample, generate, generate_padded, translate, beam_search)
    return {f.__name__: f for f in own}


def sample(
    logits: Array, *, temperature: float, top_k: int | None, top_p: float | None, uniforms: Array | None
) -> Array:
    return choose(logits, temperature=temperature, top_k=top_k, top_p=top_p, uniforms=uniforms)


def generate(p: Tree, *, ids: Array, config: dict[str, Any], model: str = "gpt", **how: Any) -> tuple[Array, Array]:
    """The prompts (T,) or (B, T) with the new tokens, and the logits (..., new tokens, V) that each was chosen from."""
    if ids.ndim == 1:
        if how["uniforms"] is not None:
            how["uniforms"] = how["uniforms"][None]
        tokens, found = generate(p, ids=ids[None], config=config, model=model, **how)
        return tokens[0], found[0]
    how["uniforms"] = None if how["uniforms"] is None else to_host(how["uniforms"])  # tokens are chosen on the host
    own = by_name(model)
    steps = list(generation.generate(p, model=own, ids=ids, padding=None, config=own.Config(**config), **how))
    tokens = numpy.stack([chosen for chosen, _ in steps], axis=1)
    return numpy.concatenate([to_host(ids), tokens], axis=1), numpy.stack([each for _, each in steps], axis=1)


def generate_padded(
    p: Tree,
    *,
    ids: Array,
    padding: Array,
    config: dict[str, Any],
    model: str = "gpt",
    uniforms: Array | None,
    **how: Any,
) -> tuple[Array, Array]:
    own, draws = by_name(model), None if uniforms is None else to_host(uniforms)
    steps = list(
        generation.generate(
            p, model=own, ids=ids, padding=padding, config=own.Config(**config), uniforms=draws, **how
        )
    )  # fmt: skip
    tokens = numpy.stack([chosen for chosen, _ in steps], axis=1)
    return numpy.concatenate([to_host(ids), tokens], axis=1), numpy.stack([each for _, each in steps], axis=1)


def translate(
    p: Tree, *, source: Array, attention_mask: Array | None, start: int, end: int | None, new_tokens: int, cache: bool,
    config: dict[str, Any],
) -> tuple[Array, Array]:  # fmt: skip
    """The tokens after the start, -1 after the end, and the logits that each was chosen from, 0 there."""
    chosen = model.Config(**config)
    kind = SequenceWriter if cache else Rereading
    writer = kind(p, model=model, config=chosen, source=source, attention_mask=attention_mask, room=chosen.context)
    watched = Watched(writer)
    texts = write(
        watched, ids=numpy.full((len(source), 1), start), new_tokens=new_tokens, end=end, temperature=1.0, top_k=None,
        top_p=None, uniforms=None,
    )  # fmt: skip
    ids, lengths = _padded(texts, new_tokens), [len(text) for text in texts]
    logits = numpy.zeros((*ids.shape, chosen.vocabulary), watched.seen[0].dtype)
    for step, found in enumerate(watched.seen):
        going = [row for row, length in enumerate(lengths) if step < length]
        logits[going, step] = to_host(found)[going]
    return ids, logits


def beam_search(
    p: Tree, *, model: str, ids: Array, source: Array | None, attention_mask: Array | None, end: int | None,
    new_tokens: int, beams: int, length_penalty: float, config: dict[str, Any],
) -> tuple[Array, Array]:  # fmt: skip
    """The texts of every row, best first, -1 behind the end, and their scores."""
    own: Any = by_name(model)
    chosen = own.Config(**config)
    room = ids.shape[1] + new_tokens
    writer: Writer = (
        CausalWriter(p, model=own, config=chosen, rows=len(ids), room=room, padding=None)
        if source is None
        else SequenceWriter(p, model=own, config=chosen, source=source, attention_mask=attention_mask, room=room)
    )
    found = search(writer, ids=ids, new_tokens=new_tokens, end=end, beams=beams, length_penalty=length_penalty)
    texts = numpy.stack([_padded([text.tokens for text in row], new_tokens) for row in found])
    dtype = p["token"].dtype
    return texts, numpy.array([[text.score for text in row] for row in found]).astype(dtype)


def _padded(texts: Sequence[Sequence[int]], longest: int) -> Array:
    return numpy.array([[*text, *[NOTHING] * (longest - len(text))] for text in texts])


class Watched:
    """A writer whose logits are remembered."""

    def __init__(self, writer: Writer) -> None:
        self.writer, self.seen = writer, list[Array]()

    @property
    def room(self) -> int:
        return self.writer.room

    def logits(self, ids: Array | Sequence[Sequence[int]]) -> Array:
        self.seen.append(self.writer.logits(ids))
        return self.seen[-1]

    def expand(self, n: int) -> None:
        self.writer.expand(n)

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        self.writer.copy_rows(sources, targets)


class Rereading(SequenceWriter):
    """Without a cache: every step reads the sources, and the targets so far, from their beginning."""

    text: Array | None = None

    def logits(self, ids: Array | Sequence[Sequence[int]]) -> Array:
        xp = namespace(self.memory)
        new = xp.asarray(ids)
        self.text = new if self.text is None else xp.concatenate([self.text, new], axis=1)
        h, _ = model.decode(
            self.p,
            self.memory,
            ids=self.text,
            memory_mask=self.attention_mask,
            config=self.config,
            dropout_mask=None,
            cache=None,
        )
        last: Array = (h[:, -1:] @ model.head(self.p, self.config))[:, 0]
        return last
