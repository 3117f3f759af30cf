"""Mistakes of generation from prompts of unequal length."""

from __future__ import annotations

from typing import Any

from refllm.backend import namespace
from refllm.generation.cache import KeyValueCache
from refllm.spec.generate import generate_padded
from refllm.verify.mutants.bank import Edited, Patch, edit

PROMPT = "text, seen = generate(p, ids=ids[b, first:], uniforms=own, **how)"

_advance = KeyValueCache.advance


def _positions_of_places(cache: KeyValueCache, tokens: int) -> Any:
    own, seen = _advance(cache, tokens)
    return (own if seen is None else namespace(seen).arange(cache.length - tokens, cache.length)), seen


def _positions_of_places_later(cache: KeyValueCache, tokens: int) -> Any:
    return _advance(cache, tokens) if not cache.length else _positions_of_places(cache, tokens)


def _positions_of_places_at_first(cache: KeyValueCache, tokens: int) -> Any:
    return _advance(cache, tokens) if cache.length else _positions_of_places(cache, tokens)


def _padding_seen(cache: KeyValueCache, tokens: int) -> Any:
    return _advance(cache, tokens)[0], None


def _padding_seen_later(cache: KeyValueCache, tokens: int) -> Any:
    own, seen = _advance(cache, tokens)
    return own, (seen if cache.length == tokens else None)


def _padding_seen_at_first(cache: KeyValueCache, tokens: int) -> Any:
    own, seen = _advance(cache, tokens)
    return own, (None if cache.length == tokens else seen)


# fmt: off
MUTANTS = [
    Edited("GEN/padded-attended", "generation that reads the padding of a prompt as words",
           edit(generate_padded, PROMPT,
                "text, seen = generate(p, ids=ids[b], uniforms=own, **how)\ntext = text[first:]")),
    Edited("GEN/padded-on-the-right", "generation that takes the padding to be on the right",
           edit(generate_padded, PROMPT,
                "text, seen = generate(p, ids=ids[b, : ids.shape[1] - first], uniforms=own, **how)")),
    Edited("GEN/padded-by-the-first", "generation with the padding of the first row in every row",
           edit(generate_padded, PROMPT,
                "text, seen = generate(p, ids=ids[b, padding[0] :], uniforms=own, **how)\n"
                "text = [*ids[b, first:], *text[-len(seen) :]]")),
    Edited("GEN/padded-draws-shifted", "generation that takes a row's draws from its padding on",
           edit(generate_padded, "own = None if draws is None else draws[b]",
                "own = None if draws is None else [*draws[b][first:], *draws[b][:first]]")),
    Patch("GEN/padded-positions-of-places", KeyValueCache.advance,
          "generation that counts positions from the first place, padding or not", _positions_of_places),
    Patch("GEN/padded-seen", KeyValueCache.advance, "generation in which words attend the padding before them",
          _padding_seen),
    Patch("GEN/padded-seen-later", KeyValueCache.advance,
          "generation that hides the padding from the prompt and not from the words that follow", _padding_seen_later),
    Patch("GEN/padded-seen-at-first", KeyValueCache.advance,
          "generation that hides the padding from the words that follow and not from the prompt",
          _padding_seen_at_first),
    Patch("GEN/padded-positions-of-places-later", KeyValueCache.advance,
          "generation that counts the positions of the words that follow, and not those of the prompt, from the first "
          "place, padding or not", _positions_of_places_later),
    Patch("GEN/padded-positions-of-places-at-first", KeyValueCache.advance,
          "generation that counts the positions of the prompt, and not those of the words that follow, from the first "
          "place, padding or not", _positions_of_places_at_first),
]
