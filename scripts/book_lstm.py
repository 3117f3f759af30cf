"""The LSTM of documents 003 sec. 5.2 on real text, for the book: `scripts/book_data.py lstm`."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from refllm.data.corpus import python_reference
from refllm.models import recurrent_lm
from refllm.models.ngram import NGram
from refllm.objectives.causal import causal_loss
from refllm.optim.update import adam
from refllm.parameters import map_leaves

TRAINED, HELD_OUT = 20_000, 4_000  # characters, from the beginning of the text
CONTEXT, BATCH, EPOCHS, RATE = 32, 4, 10, 0.001


def lstm() -> dict[str, Any]:
    """Ten epochs over the beginning of the text, a character a token: the mean loss over each epoch, and after it that
    of the text behind, which a 4-gram of the same text scores too."""
    text = python_reference().text[: TRAINED + HELD_OUT]
    letters = sorted(set(text))
    ids = np.array([letters.index(letter) for letter in text])
    config = recurrent_lm.document_003(len(letters), CONTEXT)
    generator = np.random.default_rng(0)
    p = map_leaves(lambda leaf: leaf.astype(np.float32), recurrent_lm.initial(config, generator))
    moments = [map_leaves(np.zeros_like, p) for _ in range(2)]
    windows = np.lib.stride_tricks.sliding_window_view(ids, CONTEXT + 1)[::CONTEXT]  # each with the next character
    learnt, held_out = windows[: TRAINED // CONTEXT], windows[TRAINED // CONTEXT :]
    four_gram = NGram.fit(ids[:TRAINED], n=4, vocabulary=len(letters))
    counted = float(-np.log(four_gram.probabilities(ids)[TRAINED:]).mean())
    losses, others, step = [], [], 0
    for _ in range(EPOCHS):
        seen = []
        for rows in np.array_split(generator.permutation(len(learnt)), math.ceil(len(learnt) / BATCH)):
            step += 1
            loss, back = mean_loss(p, learnt[rows], config)
            seen.append(loss)
            gradients = back()
            update(p, gradients, moments, step)
        losses.append(sum(seen) / len(seen))
        others.append(mean_loss(p, held_out, config)[0])
        print(f"epoch {len(losses)}: {losses[-1]:.4f}, held out {others[-1]:.4f}", file=sys.stderr, flush=True)
    return {
        "text": python_reference().name, "characters": TRAINED, "context": CONTEXT, "batch": BATCH, "rate": RATE,
        "loss": [round(loss, 4) for loss in losses], "held_out": [round(loss, 4) for loss in others],
        "4-gram": round(counted, 4),
    }  # fmt: skip


def mean_loss(p: Any, windows: Any, config: Any) -> tuple[float, Any]:
    """The mean over the characters of some windows, and a function that gives the gradients."""
    ids, targets = windows[:, :-1], windows[:, 1:]
    loss, back = causal_loss(
        p, model=recurrent_lm, ids=ids, targets=targets, ignore=None, config=config, dropout_mask=None
    )
    return float(loss) / targets.size, lambda: back(np.asarray(1 / targets.size, np.float32))


def update(p: Any, gradients: Any, moments: list[Any], step: int) -> None:
    def one(weight: Any, gradient: Any, m: Any, v: Any) -> None:
        weight[...], m[...], v[...] = adam(
            weight, gradient, m, v, step=step, lr=RATE, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.0
        )

    map_leaves(one, p, gradients, *moments)
