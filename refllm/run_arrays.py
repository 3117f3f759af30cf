"""The arrays that a checkpoint of a run holds, in groups: how they are written and how they are read.

weights            of the whole model
moment1, moment2   of what is trained
trained            the weights of that part, where a part is trained
best               those of the best report, while a run with patience goes on
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from refllm.finetune.stored import require_floating
from refllm.parameters import named_leaves
from refllm.piecewise import Piecewise
from refllm.tasks import Task
from refllm.train import Trainer

Groups: TypeAlias = dict[str, dict[str, Any]]  # arrays, or piecewise


def groups_of(trainer: Trainer, task: Task) -> Groups:
    """What is written. Who loads a run of which a part is trained finds the whole model."""
    groups: Groups = trainer.groups()
    if hasattr(task, "full") and trainer.cut is None:  # where layers are gathered, all of them are trained
        whole = dict(named_leaves(task.full(trainer.parameters.tree)))
        if whole.keys() != groups["weights"].keys():
            groups = {**groups, "weights": whole, "trained": groups["weights"]}
    return {**groups, **trainer.best()}


def groups_to_go_on_with(files: dict[str, Any], read: Callable[[str], dict[str, Piecewise]]) -> Groups:
    """What is read, of the `files` that there are: `weights` are those that are trained. UserError for numbers that no
    training makes."""
    groups: Groups = {group: dict(read(group)) for group in ("weights", "moment1", "moment2")}
    groups |= {group: dict(read(group)) for group in ("best", "trained") if group in files}
    groups["weights"] = groups.pop("trained", groups["weights"])
    for arrays in groups.values():
        require_floating(arrays)
    return groups
