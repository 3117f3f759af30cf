"""The n-gram models that a language model is compared with: counted on the same text, or on the end of a large one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from refllm.models.ngram import NGram
from refllm.tasks.text import COUNTED, LearntText
from refllm.tokenizers import CharacterTokenizer

ORDERS = {"uniform": 0, "unigram": 1, "order 2": 3, "order 4": 5}  # and the n of each
TRIED = 100_000  # tokens that are counted first, to tell how many there is time for
SLOWER = 1.5  # a token takes longer where there are more of them: they are sorted


def counted_bits(
    text: LearntText, spans: Sequence[tuple[int, int]] | None, *, seconds: float | None
) -> tuple[dict[str, float], str]:
    """Bits of models that count, by what those of a trained model are counted by: per character, over the alphabet of
    both parts; or per token, where these do not hold all of the text. And a line on what was counted, if not all.

    The order is the number of characters, or tokens, that a model looks back at. `spans` are the held-out tokens that
    are scored, None for all; `seconds` is the time that counting may take, None for any.
    """
    held_out = text.held_out
    if held_out.is_whole:
        units = CharacterTokenizer(text.alphabet)
        size, seen, total = units.size, units.encode(text.end), text.about.characters
        scored = units.encode(held_out.text)
        places: Sequence[tuple[int, int]] | None = None if spans is None else held_out.characters(spans)
    else:
        size, seen, total = held_out.tokenizer.size, text.tokens[-COUNTED:], len(text.tokens)
        scored, places = held_out.tokens, spans

    def count(tokens: Any) -> dict[int, NGram]:
        return NGram.fit_orders(tokens, orders=list(ORDERS.values()), vocabulary=size)

    seen = seen[-affordable_part(seen, count, seconds=seconds) :]
    models = count(seen)
    bits = {name: _bits(models[n], scored, places) for name, n in ORDERS.items()}
    if len(seen) == total:
        return bits, ""
    unit = "characters" if held_out.is_whole else "tokens"
    return bits, f"The n-gram models counted the last {len(seen):,} of the {total:,} {unit} to learn from."


def affordable_part(tokens: Any, work: Callable[[Any], object], *, seconds: float | None) -> int:
    """How many tokens can be worked on in so many seconds, as a try on a few of them tells; all for None."""
    if seconds is None or len(tokens) <= TRIED:
        return len(tokens)
    start = time.perf_counter()
    work(tokens[-TRIED:])
    each = SLOWER * (time.perf_counter() - start) / TRIED
    return min(len(tokens), max(TRIED, math.floor(seconds / each)))


def _bits(model: NGram, tokens: Any, places: Sequence[tuple[int, int]] | None) -> float:
    """-mean log2 p of the tokens, or of those in the places, each after those before it."""
    if places is None:
        return model.bits_per_token(tokens, past=0)
    total = count = 0.0
    for start, end in places:
        if end > start:
            past = min(start, max(0, model.n - 1))
            total += (end - start) * model.bits_per_token(tokens[start - past : end], past=past)
            count += end - start
    return total / count
