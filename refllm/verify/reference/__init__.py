"""refllm as an implementation: its functions by the operation names of the golden files.

A module a concern, each with `functions()`: the operations and blocks, the language models, BERT, the encoder-decoder,
training, generation, fine-tuning, tokens, operations that no model of refllm has, and parallel shards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.verify.keywords import as_golden
from refllm.verify.reference import (
    attention_variants,
    bert,
    encoder_decoder,
    fine_tuning,
    further,
    generation,
    language_models,
    operations,
    parallel,
    tokens,
    training,
)

DTYPES = ("float64", "float32")


def functions() -> dict[str, Callable[..., Any]]:
    """Every operation of the golden files, with their names and keywords."""
    found: dict[str, Callable[..., Any]] = {}
    for module in (
        operations, language_models, bert, encoder_decoder, training, generation, fine_tuning, tokens, further,
        attention_variants, parallel,
    ):  # fmt: skip
        found |= module.functions()
    return as_golden(found)
