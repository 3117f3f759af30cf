"""The upper layers alone: what a model has learnt of the language stays, what it makes of it changes."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from refllm.errors import UserError
from refllm.finetune.tuning import Tuning, require_trained, selected
from refllm.parameters import Tree, named_leaves


def upper_layers(*, model: ModuleType, config: Any, parameters: Tree | None, layers: int) -> Tuning:
    """The last `layers` layers and all that the model's tree holds after them: last norm, pooler, heads.

    A tree is written in the order in which a text passes through it, so what stands before those layers is frozen:
    embeddings, their norm, lower layers. An output layer that is tied to the embedding is frozen with it. Of an
    encoder-decoder the layers are the decoder's, and all of the encoder is frozen.
    Source:  Howard & Ruder 2018 (arXiv:1801.06146) sec. 3.3 (upper layers are the specific ones); documents 000 sec. 6.
    Raises:  UserError without a trained model, for a model without layers, and for more layers than it has.
    """
    require_trained("upper", parameters)
    paths = [path for path, _ in named_leaves(model.shapes(config))]
    first = _first_of_layer(paths)
    if not first:
        raise UserError("this model has no upper layers to train alone, since it has no layers; tune all of it")
    if not 0 <= layers <= len(first):
        raise UserError(f"the upper layers must be between 0 and the model's {len(first)}, got {layers}")
    above = max(i for i, path in enumerate(paths) if _layer_of(path) is not None) + 1
    begin = first[len(first) - layers] if layers else above
    trained = set(paths[begin:])
    return selected(
        lambda path: path in trained,
        {"tune": "upper", "layers": layers},
        model=model,
        config=config,
        parameters=parameters,
    )


def _first_of_layer(paths: list[str]) -> list[int]:
    """Where each layer of the last stack begins among the leaves."""
    placed = [(i, layer) for i, path in enumerate(paths) if (layer := _layer_of(path)) is not None]
    firsts: dict[tuple[str, int], int] = {}
    for i, layer in placed:
        firsts.setdefault(layer, i)
    stack = placed[-1][1][0] if placed else None
    return [i for (name, _), i in firsts.items() if name == stack]


def _layer_of(path: str) -> tuple[str, int] | None:
    """The stack and the number of the layer that a leaf belongs to: `decoder.layers.3.norm1.g` -> ("decoder.", 3)."""
    stack, found, rest = path.rpartition("layers.") if "layers." in path else (path, "", "")
    return (stack, int(rest.split(".")[0])) if found else None
