"""Training as an implementation: a step, and a trace of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from refllm.backend import Array, namespace
from refllm.optim import update
from refllm.optim.clip import clip_factor
from refllm.parameters import Tree, is_decayed, map_leaves
from refllm.verify.reference.language_models import MODELS, loss


def functions() -> dict[str, Callable[..., Any]]:
    return {"train_step": train_step, "train": train}


def train_step(
    p: Tree, m: Tree, v: Tree, *, ids: Array, targets: Array, ignore: int | None, step: int, lr: float, beta1: float,
    beta2: float, eps: float, decay: float, clip: float | None, config: dict[str, Any], model: str = "gpt",
) -> tuple[Array, Array, Tree, Tree, Tree]:  # fmt: skip
    """One step of AdamW on the mean loss: loss, norm of the gradient, parameters and moments."""
    mean, back = loss(MODELS[model], p, ids=ids, targets=targets, ignore=ignore, config=config)
    g = back(namespace(mean).ones_like(mean))
    leaves: list[Array] = []
    map_leaves(leaves.append, g)
    norm, factor = clip_factor(leaves, limit=math.inf if clip is None else clip)

    def one(p: Array, g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
        return update.adamw(
            p, g * factor, m, v, step=step, lr=lr, beta1=beta1, beta2=beta2, eps=eps,
            decay=decay if is_decayed(p.shape) else 0.0,
        )  # fmt: skip

    new = map_leaves(one, p, g, m, v)
    p, m, v = (map_leaves(lambda leaf, i=i: leaf[i], new) for i in range(3))
    return mean, norm, p, m, v


def train(
    p: Tree, m: Tree, v: Tree, *, ids: Array, targets: Array, first: int, **settings: Any
) -> tuple[Array, Array, Tree, Tree, Tree]:
    """Step `first + n` on batch `ids[n]`: every loss and norm, and the last state."""
    losses, norms = [], []
    for n in range(len(ids)):
        mean, norm, p, m, v = train_step(p, m, v, ids=ids[n], targets=targets[n], step=first + n, **settings)
        losses.append(mean)
        norms.append(norm)
    xp = namespace(losses[0])
    return xp.stack(losses), xp.stack(norms), p, m, v
