"""Mistakes of kernels, in the order of the operations. A file a topic, each mistake an edit of the text with loops."""

from __future__ import annotations

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.mistakes import (
    attention,
    attention_kinds,
    losses,
    norms,
    numbers,
    products,
    softmaxes,
    tables,
)

TOPICS = (products, softmaxes, losses, norms, attention, attention_kinds, tables, numbers)
MISTAKES: tuple[Mistake, ...] = tuple(mistake for topic in TOPICS for mistake in topic.MISTAKES)
