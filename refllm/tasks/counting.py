"""The n-gram model as a run: it counts where the others take steps, and leaves the same directory."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import refllm
from refllm import checkpoint
from refllm.data.corpus import Split
from refllm.errors import UserError
from refllm.models import ngram
from refllm.models.ngram import NGram
from refllm.parameters import named_leaves
from refllm.tasks.language import HeldOut
from refllm.tokenizers import Tokenizer

ORDERS = range(2, 10)  # that are tried where none is given


def require_order(order: int | None) -> None:
    """UserError for n-grams without a token."""
    if order is not None and order < 1:
        raise UserError(f"order must be at least 1, got {order}")


def count_text(
    directory: Path, *, parts: Split, name: str, data: list[str], tokenizer: Tokenizer, order: int | None
) -> dict[str, Any]:
    """Fits, saves, and scores the held-out part; the summary. Without an order, that which is best on the last tenth
    of the training part after counting the rest."""
    require_order(order)
    start = time.perf_counter()
    tokens, held_out = tokenizer.encode(parts.train), HeldOut(parts.validation, tokenizer)
    if len(tokens) == 0:
        raise UserError(f"{name} has no text to count; give more")
    if order is None:
        cut = len(tokens) * 9 // 10

        def bits(n: int) -> float:
            return NGram.fit(tokens[:cut], n=n, vocabulary=tokenizer.size).bits_per_token(tokens[cut:], past=0)

        order = min(ORDERS, key=bits)
    model = NGram.fit(tokens, n=order, vocabulary=tokenizer.size)
    config = ngram.config_of(model)
    nll = -float(sum(ngram.log_probabilities(model, tokens, held_out.tokens)))
    description = {
        "version": refllm.__version__, "task": "counting", "model": "ngram", "config": config.as_dict(),
        "tokenizer": tokenizer.to_json(), "data": data,
    }  # fmt: skip
    weights = dict(named_leaves(ngram.tree_of(model)))
    checkpoint.save(directory / "checkpoint", description, {"weights": weights}, step=0)
    summary = {
        "model": "ngram", "order": order, "seconds": round(time.perf_counter() - start, 3),
        "parameters": sum(config.sizes), **held_out.measures(nll), "version": refllm.__version__, "data": name,
    }  # fmt: skip
    checkpoint.write_atomically(directory / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary
