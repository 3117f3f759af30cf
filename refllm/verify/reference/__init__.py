"""refllm as an implementation: its functions by the operation names of the golden files.

A module a concern, each with `functions()`: the operations and blocks, the language models, BERT, the encoder-decoder,
training, writing, what is done around a model, and operations that no model of refllm has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.verify.keywords import as_golden
from refllm.verify.reference import (
    bert,
    encoder_decoder,
    further,
    language,
    operations,
    practice,
    training,
    variants,
    writing,
)

DTYPES = ("float64", "float32")


def functions() -> dict[str, Callable[..., Any]]:
    """Every operation of the golden files, with their names and keywords."""
    found: dict[str, Callable[..., Any]] = {}
    for module in (operations, language, bert, encoder_decoder, training, writing, practice, further, variants):
        found |= module.functions()
    return as_golden(found)
