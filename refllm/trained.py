"""What a run made: a model's parameters, read from its directory, and all that is needed to use them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from refllm.backend import to_device
from refllm.errors import UserError
from refllm.models import LANGUAGE_MODELS
from refllm.parameters import Tree, from_names, require_fit
from refllm.tasks.stored import stored_model
from refllm.tokenizers import Tokenizer


@dataclass(frozen=True)
class Trained:
    """What a run made: parameters, and all that is needed to use them."""

    model: ModuleType
    config: Any
    parameters: Tree
    tokenizer: Tokenizer
    description: dict[str, Any]


def load_model(directory: Path, device: str) -> Trained:
    """The model of a run, to generate or score with, or to go on from."""
    stored = stored_model(directory)
    arrays = stored.weights()
    require_fit(stored.shapes, arrays)
    parameters = from_names(stored.shapes, {name: to_device(x, device) for name, x in arrays.items()})
    return Trained(stored.model, stored.config, parameters, stored.tokenizer, stored.description)


def load_language_model(directory: Path, device: str) -> Trained:
    """As `load_model`; UserError for a model that does not predict the next token from those before it."""
    trained = load_model(directory, device)
    name = trained.description["model"]
    if name not in (*LANGUAGE_MODELS, "ngram"):
        raise UserError(
            f"the model in {directory} is of the kind {name}, which does not predict the next token; "
            f"give the run of one that does ({', '.join((*LANGUAGE_MODELS, 'ngram'))})"
        )
    return trained
