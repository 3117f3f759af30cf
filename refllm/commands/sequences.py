"""What a published encoder-decoder writes for a text: greedy choice, sampling or beam search."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from refllm.backend import generator, to_device
from refllm.errors import UserError
from refllm.generation.beam import beam_search
from refllm.generation.forced import ForcedWriter
from refllm.generation.sequence import write
from refllm.generation.writer import SequenceWriter
from refllm.pretrained.writing import Writing
from refllm.trained import Trained


@dataclass(frozen=True)
class Search:
    """How to choose tokens: `beams` 1 is one text, greedily or by draws."""

    beams: int
    length_penalty: float | None
    greedy: bool
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int


def answer(trained: Trained, text: str, *, tokens: int, search: Search, device: str) -> str:
    """What the model writes for a text, without special tokens. UserError for a text that it cannot read."""
    ids = trained.tokenizer.marked(text)  # type: ignore[attr-defined]
    require_readable(ids, trained.config.context)
    written = tokens_for(trained, ids, tokens=tokens, search=search, device=device)
    special = trained.tokenizer.special_tokens | trained.ends  # type: ignore[attr-defined]
    return str(trained.tokenizer.decode([token for token in written if token not in special])).strip()


def require_readable(ids: Sequence[int], context: int) -> None:
    """UserError unless the tokens of a text are some, and no more than the model reads at once."""
    if not 0 < len(ids) <= context:
        raise UserError(f"the text has {len(ids):,} tokens; the model reads 1 to {context:,} at once: shorten it")


def tokens_for(trained: Trained, ids: Any, *, tokens: int, search: Search, device: str) -> tuple[int, ...]:
    """The tokens that the model writes after its start token for those of a text, the end token with them."""
    how = trained.writing
    if how is None:
        raise UserError("a run of translate or summarise writes by its own command; give a published model")
    tokens = min(tokens, trained.config.context)
    source = to_device(ids[None], device)
    writer = ForcedWriter(
        SequenceWriter(
            trained.parameters, model=trained.model, config=trained.config, source=source, attention_mask=None,
            room=tokens,
        ),
        new_tokens=tokens, first=how.first, last=how.last,
    )  # fmt: skip
    start = 0 * source[:, :1] + how.start
    end = _end(trained, search)
    if search.beams > 1:
        penalty = how.length_penalty if search.length_penalty is None else search.length_penalty
        (texts,) = beam_search(
            writer, ids=start, new_tokens=tokens, end=end, beams=search.beams, length_penalty=penalty, stop=how.stop
        )
        return texts[0].tokens
    (text,) = write(
        writer, ids=start, new_tokens=tokens, end=end, temperature=search.temperature, top_k=search.top_k,
        top_p=search.top_p, uniforms=None if search.greedy else generator(search.seed).random((1, tokens)),
    )  # fmt: skip
    return text


def _end(trained: Trained, search: Search) -> int | None:
    if len(trained.ends) > 1:
        raise UserError(f"the files name {len(trained.ends)} tokens that end a text; leave one in eos_token_id")
    return next(iter(trained.ends), None)


def tell_what_is_left_out(how: Writing) -> None:
    """Says on the standard error what of the files changes the choice of tokens elsewhere, and not here."""
    if how.left_out:
        names = ", ".join(how.left_out)
        print(f"not computed, though generation_config.json asks for it: {names}", file=sys.stderr)


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--beams", type=int, help="of a beam search, for a published encoder-decoder; 1 is one text (default 1)")
    add("--length-penalty", type=float, metavar="A", help="with --beams: log P / length^A (default: that of the files)")
