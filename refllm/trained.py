"""What a run made, or somebody published: a model's parameters, read from its directory, and all that is needed to use
them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from refllm.backend import to_device
from refllm.errors import UserError
from refllm.models import LANGUAGE_MODELS, encoder_decoder
from refllm.parameters import Tree, from_names, require_fit
from refllm.pretrained.folder import ends_in, is_folder, labels_in, open_folder, tokenizer_in
from refllm.pretrained.writing import Writing, writing_in
from refllm.tasks.stored import stored_model
from refllm.tokenizers import Tokenizer


@dataclass(frozen=True)
class Trained:
    """What a run made: parameters, and all that is needed to use them. `ends` are tokens that end a text."""

    model: ModuleType
    config: Any
    parameters: Tree
    tokenizer: Tokenizer
    description: dict[str, Any]
    ends: frozenset[int] = frozenset()
    writing: Writing | None = None  # of a published encoder-decoder


def load_model(directory: Path, device: str, weights: str | None = None) -> Trained:
    """The model of a run or of a published directory, to generate or score with, or to go on from.

    `weights` is how those of a published model are kept (`pretrained.weights`); None for float32, as those of a run.
    """
    if is_folder(directory):
        return _published(directory, device, weights or "float32")
    if weights not in (None, "stored", "float32"):
        raise UserError(
            f"{directory} is a run, whose weights are float32 in use; --weights {weights} is for published models"
        )
    stored = stored_model(directory)
    arrays = stored.weights()
    require_fit(stored.shapes, arrays)
    parameters = from_names(stored.shapes, {name: to_device(x, device) for name, x in arrays.items()})
    return Trained(stored.model, stored.config, parameters, stored.tokenizer, stored.description)


def _published(directory: Path, device: str, weights: str) -> Trained:
    """What the files of a published model say; its description names the model and the directory."""
    folder = open_folder(directory)
    tokenizer = tokenizer_in(directory, size=folder.config.vocabulary)
    if device == "cpu":
        leaves = folder.leaves(weights)
    elif weights in ("stored", "float32"):
        leaves = {path: to_device(x, device) for path, x in folder.leaves().items()}
    else:
        raise UserError(f"--weights {weights} is for --device cpu; on a device weights are float32")
    writing = None
    if folder.model is encoder_decoder and folder.has_head:
        writing = writing_in(directory, folder.fields, vocabulary=folder.config.vocabulary)
    description: dict[str, Any] = {
        "model": folder.architecture.model,
        "published": str(directory),
        "config": folder.config.as_dict(),
    }
    if not folder.has_head:
        description["headless"] = True
    outputs = getattr(folder.config, "outputs", ())
    if "classes" in outputs:
        description |= {"task": "classify", "labels": labels_in(folder.fields, folder.config.labels)}
    elif "span" in outputs:
        description["task"] = "span"
    elif writing is not None:
        description["task"] = "seq2seq"
    return Trained(
        folder.model, folder.config, from_names(folder.shapes, leaves), tokenizer, description,
        ends_in(directory, folder.fields), writing,
    )  # fmt: skip


def load_language_model(directory: Path, device: str, weights: str | None = None) -> Trained:
    """As `load_model`; UserError for a model that does not predict the next token from those before it."""
    return require_language_model(load_model(directory, device, weights), directory)


def require_language_model(trained: Trained, directory: Path) -> Trained:
    """UserError for a model that does not predict the next token from those before it."""
    if trained.description.get("headless"):
        raise UserError(
            f"the files in {directory} have no output layer, so they give no token a probability; get those of the "
            "class that ends in ForCausalLM or ForConditionalGeneration"
        )
    name = trained.description["model"]
    if name not in (*LANGUAGE_MODELS, "ngram"):
        raise UserError(
            f"the model in {directory} is of the kind {name}, which does not predict the next token; "
            f"give one that does ({', '.join((*LANGUAGE_MODELS, 'ngram'))})"
        )
    return trained
