"""A language model of refllm as two operations of the golden files: its logits and its loss, both with taps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.backend import Array
from refllm.objectives.causal import causal_loss
from refllm.parameters import Tree
from refllm.verify import taps

Answer = tuple[Array, Callable[[Array], Tree], dict[str, Array]]
Stages = Callable[..., list[taps.Stage]]


def logits(model: Any, stages: Stages) -> Callable[..., Answer]:
    """The logits of ids (B, T), or (T,), which are a batch of one."""

    def answer(p: Tree, *, ids: Array, config: dict[str, Any]) -> Answer:
        batch = ids if ids.ndim == 2 else ids[None]
        y, back = model.forward(p, ids=batch, config=model.Config(**config), dropout_mask=None, cache=None)
        found = taps.values(stages(p, ids=batch, config=config), {})
        if ids.ndim == 2:
            return y, back, found
        return y[0], lambda dy: back(dy[None]), {name: x[0] for name, x in found.items()}

    return answer


def loss(model: Any, stages: Stages) -> Callable[..., Answer]:
    """The mean over the targets that are not ignored; 0 if there is none."""

    def answer(p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: dict[str, Any]) -> Answer:
        total, back = causal_loss(
            p, model=model, ids=ids, targets=targets, ignore=ignore, config=model.Config(**config), dropout_mask=None
        )
        count = targets.size if ignore is None else int((targets != ignore).sum())
        share = total.dtype.type(1 / max(1, count))
        found = taps.values(stages(p, ids=ids, config=config), {})
        return total * share, lambda dy: back(dy * share), found

    return answer
