"""From a trained model to another one: what of it is trained further, and how it is made smaller.

    tuning = by_name("low-rank", model=bert, config=config, parameters=pretrained, rank=4)
    trainer = Trainer(model=tuning.model, config=config, objective=tuning.wrap(objective), ...)
    parameters = tuning.full(trainer.parameters.tree)       # an ordinary tree of the model

`tuning.frozen` and `tuning.options` make the same tuning again, so a run that keeps both is whole:
`by_name(**options, model=model, config=config, parameters=frozen)`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from refllm.errors import UserError
from refllm.finetune.low_rank import low_rank_tuning
from refllm.finetune.tuning import Tuning, everything
from refllm.finetune.upper import upper_layers
from refllm.parameters import Tree

__all__ = ["TUNES", "Tuning", "by_name"]

TUNES: dict[str, Callable[..., Tuning]] = {"all": everything, "upper": upper_layers, "low-rank": low_rank_tuning}


def by_name(tune: str, *, model: ModuleType, config: Any, parameters: Tree | None, **options: Any) -> Tuning:
    """What of a model is trained: "all" of it, its "upper" layers (`layers`), or a "low-rank" change of its embedding
    and its attention (`rank`, `alpha`, `pattern`, `whole`)

    `parameters` are those of a trained model, a tree or leaves by path, on the device of the training. Leaves that the
    model does not have, such as the head of another task, are left aside; leaves that `parameters` lacks, such as a new
    head, start from the model's initial values and are always trained in full.
    Raises:  UserError for another name, for parameters of other shapes, and for what the tuning itself refuses.
    """
    if tune not in TUNES:
        raise UserError(f"there is no tuning {tune!r}; choose one of {', '.join(TUNES)}")
    return TUNES[tune](model=model, config=config, parameters=parameters, **options)
