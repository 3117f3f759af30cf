"""A trained model as its run has stored it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from refllm import checkpoint
from refllm.backend import Array
from refllm.checkpoint import Groups
from refllm.errors import UserError
from refllm.finetune.stored import piecewise_weights_of, require_declared, weights_of
from refllm.models import by_name
from refllm.models.checks import require_layers_within
from refllm.parameters import Tree
from refllm.piecewise import Piecewise
from refllm.state_file import made_of
from refllm.tokenizers import Tokenizer, require_same_vocabulary
from refllm.tokenizers import load as load_tokenizer


@dataclass(frozen=True)
class Stored:
    """What the checkpoint of a run says of its model, which fits the sizes of the file of its weights."""

    description: dict[str, Any]
    groups: Groups
    model: ModuleType
    config: Any
    shapes: Tree
    tokenizer: Tokenizer

    def weights(self) -> dict[str, Array]:
        """By path, as host arrays."""
        return weights_of(self.description, self.groups)

    def piecewise_weights(self) -> dict[str, Piecewise]:
        """By path, read when they are asked for."""
        return piecewise_weights_of(self.description, self.groups.piecewise, self.shapes)


def stored_model(directory: Path) -> Stored:
    """The model in a run's directory.

    Raises: UserError for anything missing, damaged, or that does not belong together, before anything of the model's
    size is made.
    """
    description, groups = checkpoint.load(directory / "checkpoint")
    with damage_refused(directory):
        model = by_name(description["model"])
        config = made_of(model.Config, description["config"])
        tokenizer = load_tokenizer(description["tokenizer"])
    require_same_vocabulary(tokenizer, config.vocabulary)
    declared = groups.declared("weights")
    require_layers_within(config, len(declared))
    shapes = model.shapes(config)
    require_declared(shapes, declared, description.get("form"))
    return Stored(description, groups, model, config, shapes, tokenizer)


@contextmanager
def damage_refused(directory: Path) -> Iterator[None]:
    """What is made of a state inside finds its values there, and of the right kinds; else they are damaged."""
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:  # ValueError: a path with a zero byte
        raise UserError(f"{directory}/checkpoint/state.json is damaged ({error}); use another checkpoint") from None
