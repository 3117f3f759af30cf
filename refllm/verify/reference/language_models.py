"""The language models of refllm as operations of the golden files: the logits of each, and its loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from refllm.backend import Array, namespace, to_host
from refllm.models import gpt, hybrid, llama, nnlm, recurrent_lm, switch
from refllm.objectives.causal import causal_loss
from refllm.parameters import Tree

MODELS: dict[str, ModuleType] = {
    "gpt": gpt, "llama": llama, "switch": switch, "recurrent_lm": recurrent_lm, "nnlm": nnlm, "hybrid": hybrid,
}  # fmt: skip
Answer = tuple[Array, Callable[[Array], Tree]]


def functions() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {"hybrid_states": hybrid_states}
    for name, model in MODELS.items():
        found |= {name: partial(logits, model), f"{name}_loss": partial(loss, model)}
    return found


def logits(model: Any, p: Tree, *, ids: Array, config: dict[str, Any]) -> Answer:
    """The logits of ids (B, T), or (T,), which are a batch of one."""
    batch = ids if ids.ndim == 2 else ids[None]
    y, back = model.forward(p, ids=batch, config=model.Config(**config), dropout_mask=None, cache=None)
    return (y, back) if ids.ndim == 2 else (y[0], lambda dy: back(dy[None]))


def loss(model: Any, p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: dict[str, Any]) -> Answer:
    """The mean over the targets that are not ignored; 0 if there is none."""
    total, back = causal_loss(
        p, model=model, ids=ids, targets=targets, ignore=ignore, config=model.Config(**config), dropout_mask=None
    )
    count = targets.size if ignore is None else int((to_host(targets) != ignore).sum())
    share = total.dtype.type(1 / max(1, count))
    return total * share, lambda dy: back(dy * share)


def hybrid_states(p: Tree, *, ids: Array, attention_mask: Array | None, config: dict[str, Any]) -> Answer:
    y, back = hybrid.encode(
        p, ids=ids, attention_mask=attention_mask, config=hybrid.Config(**config), dropout_mask=None
    )

    def whole(dy: Array) -> Tree:
        return {**back(dy), "head": namespace(p["head"]).zeros_like(p["head"])}  # which has no part in the states

    return y, whole
