"""BERT as an implementation: its states, its heads and its losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array, namespace, to_host
from refllm.models import bert as model
from refllm.objectives.classification import classification_loss
from refllm.objectives.pretraining import pretraining_loss
from refllm.objectives.span import span_loss
from refllm.parameters import Tree

Pullback = Callable[..., Any]
Answer = tuple[Any, Pullback]


def functions() -> dict[str, Callable[..., Any]]:
    return {"bert": bert, "pretraining_loss": pretraining, "classifier_loss": classifier, "span_loss": spans}


def _config(p: Tree, config: dict[str, Any]) -> model.Config:
    """With the heads that the parameters are of."""
    return model.Config(**config, outputs=tuple(name for name in model.OUTPUTS if name in p))


def bert(p: Tree, *, output: str, config: dict[str, Any], **text: Any) -> Answer:
    """The states of all tokens ("hidden"), or what a head makes of them."""
    chosen = _config(p, config)
    h, back_h = model.encode(p, **text, config=chosen, dropout_mask=None)
    if output == "hidden":
        return h, lambda dh: model.whole_gradient(p, back_h(dh))
    heads: dict[str, Callable[[], Any]] = {
        "masked": lambda: model.masked_logits(h, p, config=chosen),
        "pair": lambda: model.pair_logits(h, p),
        "classes": lambda: model.class_logits(h, p, dropout_mask=None, rate=0.0),
        "span": lambda: model.span_logits(h, p),
    }
    y, back_y = heads[output]()

    def back(dy: Array) -> Tree:
        dh, dhead = back_y(dy)
        return model.whole_gradient(p, back_h(dh), dhead)

    return y, back


def pretraining(p: Tree, *, targets: Array, ignore: int, pairs: Array, config: dict[str, Any], **text: Any) -> Answer:
    """The means over the masked places and over the pairs; the places are those whose target is not ignored."""
    xp, counted = namespace(targets), to_host(targets) != ignore
    places = xp.asarray(numpy.argsort(~counted, axis=1, kind="stable")[:, : int(counted.sum(axis=1).max())])
    (masked, pair), back = pretraining_loss(
        p, model=model, **text, positions=places, targets=xp.take_along_axis(targets, places, axis=1), pair=pairs,
        ignore=ignore, config=_config(p, config), dropout_mask=None,
    )  # fmt: skip
    words, texts = masked.dtype.type(counted.sum()), masked.dtype.type(len(pairs))
    return (masked / words, pair / texts), lambda dmasked, dpair: back(dmasked / words, dpair / texts)


def classifier(
    p: Tree, *, targets: Array, config: dict[str, Any], weights: Array | None = None, smoothing: float = 0.0,
    **text: Any,
) -> Answer:  # fmt: skip
    """The mean over the texts, by their weights if they have any."""
    y, back = classification_loss(
        p, model=model, **text, targets=targets, weights=weights, smoothing=smoothing, config=_config(p, config),
        dropout_mask=None,
    )  # fmt: skip
    count = y.dtype.type(len(targets) if weights is None else to_host(weights).sum())
    return y / count, lambda dy: back(dy / count)


def spans(p: Tree, *, answer_mask: Array | None, targets: Array, config: dict[str, Any], **text: Any) -> Answer:
    """The mean over the texts, and over starts and ends."""
    y, back = span_loss(
        p, model=model, **text, answer_mask=answer_mask, targets=targets, ignore=None, config=_config(p, config),
        dropout_mask=None,
    )  # fmt: skip
    count = y.dtype.type(targets.size)
    return y / count, lambda dy: back(dy / count)
