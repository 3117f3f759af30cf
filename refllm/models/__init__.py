"""The models: one file each, to be read from top to bottom."""

from __future__ import annotations

import importlib
from types import ModuleType

from refllm.errors import UserError

# Names of models that are trained by gradient to predict the next token, as `refllm train --model` takes them.
LANGUAGE_MODELS = ("gpt", "llama", "switch", "recurrent_lm", "nnlm", "hybrid")


def by_name(name: str) -> ModuleType:
    """The file of a model."""
    if name not in (*LANGUAGE_MODELS, "ngram", "bert", "encoder_decoder"):
        raise UserError(f"there is no model {name!r}; choose one of {', '.join(LANGUAGE_MODELS)}")
    return importlib.import_module(f"{__name__}.{name}")
