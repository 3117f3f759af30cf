"""What an encoder-decoder makes of texts: greedy choice or beam search, text in and text out. (GEN)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refllm.backend import namespace, to_device
from refllm.data.corruption import denoising_batch
from refllm.data.pairs import by_length, encoded
from refllm.generation.beam import beam_search
from refllm.generation.writer import SequenceWriter
from refllm.models import encoder_decoder
from refllm.parameters import Tree
from refllm.workers import Workers

WRITING_BATCH = 32  # texts that are written at the same time
LENGTH_PENALTY = 0.6  # Wu et al. 2016 sec. 7; Vaswani et al. 2017 sec. 6.1


def written(
    p: Tree,
    texts: Sequence[str],
    *,
    config: encoder_decoder.Config,
    tokenizer: Any,
    beams: int,
    device: str,
    workers: Workers,
) -> list[str]:
    """GEN: for each text what the model writes: greedy choice for one beam, else the best of a beam search

    At most twice as many tokens as the longest source of the batch and 20 more, and no more than the context: a model
    that finds no end is stopped there.
    Source:  documents 002 sec. 3.2, 004 sec. 4.1.
    Raises:  UserError if a text is longer than the context (see `token_counts`).
    """
    special = tokenizer.special
    sources = [encoded(text, tokenizer=tokenizer) for text in texts]
    answers: dict[int, str] = {}

    def one(piece: list[int]) -> None:
        batch = denoising_batch([(sources[i], sources[i]) for i in piece], pad=special.pad)
        source, attention_mask = (to_device(batch[name], device) for name in ("source", "attention_mask"))
        room = min(config.context, longest_written(source.shape[1]))
        writer = SequenceWriter(
            p, model=encoder_decoder, config=config, source=source, attention_mask=attention_mask, room=room
        )
        start = namespace(source).full((len(piece), 1), special.cls)
        found = beam_search(
            writer, ids=start, new_tokens=room, end=special.sep, beams=beams, length_penalty=LENGTH_PENALTY
        )
        for i, texts_of_row in zip(piece, found, strict=True):
            answers[i] = tokenizer.decode(texts_of_row[0].tokens).strip()

    workers.map(one, by_length([len(source) for source in sources], batch=WRITING_BATCH))
    return [answers[i] for i in range(len(texts))]


def longest_written(source: int) -> int:
    """Most tokens that are written for so many: a model that finds no end is stopped there."""
    return 2 * source + 20


def token_counts(texts: Sequence[str], *, tokenizer: Any) -> list[int]:
    """How many tokens each text has, the end token with them."""
    return [len(encoded(text, tokenizer=tokenizer)) for text in texts]
