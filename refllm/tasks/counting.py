"""The n-gram model as a run: it counts where the others take steps, and leaves the same directory."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import refllm
from refllm import checkpoint
from refllm.errors import UserError
from refllm.models import ngram
from refllm.models.ngram import NGram
from refllm.parameters import named_leaves
from refllm.tasks.counted import affordable_part
from refllm.tasks.text import COUNTED, LearntText
from refllm.tokenizers import Tokenizer

ORDERS = range(2, 10)  # that are tried where none is given


def require_order(order: int | None) -> None:
    """UserError for n-grams without a token."""
    if order is not None and order < 1:
        raise UserError(f"order must be at least 1, got {order}")


def count_text(
    directory: Path,
    *,
    text: LearntText,
    data: list[str],
    tokenizer: Tokenizer,
    order: int | None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Fits, saves, and scores the held-out part; the summary. Without an order, that which is best on the last tenth
    of the training part after counting the rest. Of a large text, or where `seconds` are too few for all of it, the end
    of the training part is counted."""
    require_order(order)
    start = time.perf_counter()
    if len(text.tokens) == 0:
        raise UserError(f"{text.about.name} has no text to count; give more")
    tokens = text.tokens[-COUNTED:]
    tokens = tokens[-affordable_part(tokens, lambda some: _fit(some, tokenizer, order), seconds=seconds) :]
    model = _fit(tokens, tokenizer, order)
    config = ngram.config_of(model)
    nll = -float(sum(ngram.log_probabilities(model, tokens, text.held_out.tokens)))
    description = {
        "version": refllm.__version__, "task": "counting", "model": "ngram", "config": config.as_dict(),
        "tokenizer": tokenizer.to_json(), "data": data,
    }  # fmt: skip
    weights = dict(named_leaves(ngram.tree_of(model)))
    checkpoint.save(directory / "checkpoint", description, {"weights": weights}, step=0)
    summary = {
        "model": "ngram", "order": model.n, "counted": len(tokens), "of": len(text.tokens),
        "seconds": round(time.perf_counter() - start, 3), "parameters": sum(config.sizes),
        **text.held_out.measures(nll), "version": refllm.__version__, "data": text.about.name,
    }  # fmt: skip
    checkpoint.write_atomically(directory / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def _fit(tokens: Any, tokenizer: Tokenizer, order: int | None) -> NGram:
    """The model of that order, or of the one that is best on the last tenth of the tokens."""
    if order is None:
        cut = len(tokens) * 9 // 10
        tried = NGram.fit_orders(tokens[:cut], orders=ORDERS, vocabulary=tokenizer.size)
        order = min(tried, key=lambda n: tried[n].bits_per_token(tokens[cut:], past=0))
        del tried
    return NGram.fit(tokens, n=order, vocabulary=tokenizer.size)


def part_counted(summary: dict[str, Any]) -> str:
    """A line that says that not all was counted, if it was not."""
    if summary["counted"] == summary["of"]:
        return ""
    return f"It counted the last {summary['counted']:,} of the {summary['of']:,} tokens to learn from.\n"
