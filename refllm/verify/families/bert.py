"""BERT as an implementation: its states, its heads, its losses, and the stages between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array, namespace, to_host
from refllm.models import bert as model
from refllm.objectives.classification import classification_loss
from refllm.objectives.pretraining import pretraining_loss
from refllm.objectives.span import span_loss
from refllm.ops.activation import tanh
from refllm.ops.embedding import embedding
from refllm.ops.layer_norm import layer_norm
from refllm.ops.linear import linear
from refllm.ops.position import add_positions
from refllm.parameters import Tree
from refllm.verify import taps
from refllm.verify.case import Case

Pullback = Callable[..., Any]
Answer = tuple[Any, Pullback, dict[str, Array]]


def functions() -> dict[str, Callable[..., Any]]:
    return {"bert": bert, "pretraining_loss": pretraining, "classifier_loss": classifier, "span_loss": spans}


def _config(p: Tree, config: dict[str, Any]) -> model.Config:
    """With the heads that the parameters are of."""
    return model.Config(**config, outputs=tuple(name for name in model.OUTPUTS if name in p))


def bert(p: Tree, *, output: str, config: dict[str, Any], **text: Any) -> Answer:
    """The states of all tokens ("hidden"), or what a head makes of them."""
    chosen = _config(p, config)
    h, back_h = model.encode(p, **text, config=chosen, dropout_mask=None)
    found = _taps(p, output=output, config=config, **text)
    if output == "hidden":
        return h, lambda dh: model.whole_gradient(p, back_h(dh)), found
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

    return y, back, found


def pretraining(p: Tree, *, targets: Array, ignore: int, pairs: Array, config: dict[str, Any], **text: Any) -> Answer:
    """The means over the masked places and over the pairs; the places are those whose target is not ignored."""
    xp, counted = namespace(targets), to_host(targets) != ignore
    places = xp.asarray(numpy.argsort(~counted, axis=1, kind="stable")[:, : int(counted.sum(axis=1).max())])
    (masked, pair), back = pretraining_loss(
        p, model=model, **text, positions=places, targets=xp.take_along_axis(targets, places, axis=1), pair=pairs,
        ignore=ignore, config=_config(p, config), dropout_mask=None,
    )  # fmt: skip
    words, texts = masked.dtype.type(counted.sum()), masked.dtype.type(len(pairs))
    found = _taps(p, output="masked", config=config, **text)
    return (masked / words, pair / texts), lambda dmasked, dpair: back(dmasked / words, dpair / texts), found


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
    return y / count, lambda dy: back(dy / count), _taps(p, output="classes", config=config, **text)


def spans(p: Tree, *, answer_mask: Array | None, targets: Array, config: dict[str, Any], **text: Any) -> Answer:
    """The mean over the texts, and over starts and ends."""
    y, back = span_loss(
        p, model=model, **text, answer_mask=answer_mask, targets=targets, ignore=None, config=_config(p, config),
        dropout_mask=None,
    )  # fmt: skip
    count = y.dtype.type(targets.size)
    return y / count, lambda dy: back(dy / count), _taps(p, output="span", config=config, **text)


OUTPUTS = {"pretraining_loss": "masked", "classifier_loss": "classes", "span_loss": "span"}


def stages(case: Case, arguments: Tree, keywords: dict[str, Any]) -> list[taps.Stage]:
    """From the embedding to the states, or to the logits."""
    if case.operation not in functions():
        return []
    output = keywords.get("output") or OUTPUTS[case.operation]
    text = {name: keywords[name] for name in ("ids", "segments", "attention_mask")}
    return _stages(arguments["p"], **text, output=output, config=keywords["config"])


def _taps(p: Tree, **how: Any) -> dict[str, Array]:
    return taps.values(_stages(p, **how), {})


def _stages(
    p: Tree, *, ids: Array, segments: Array, attention_mask: Array | None, output: str, config: dict[str, Any]
) -> list[taps.Stage]:
    def embed() -> Array:
        words, _ = embedding(p["token"], ids=ids)
        placed, _ = add_positions(words, p["position"], positions=namespace(ids).arange(ids.shape[1]))
        return add_positions(placed, p["segment"], positions=segments)[0]

    def normed(x: Array) -> Array:
        return layer_norm(x, **p["norm"], eps=config["eps"])[0]

    found = [taps.Stage("embedding", (), embed), taps.Stage("norm", ("embedding",), normed)]
    how = {name: config[name] for name in ("heads", "activation", "eps")}
    for i, layer in enumerate(p["layers"]):
        before = found[-1].name
        found += taps.layer_stages(
            layer, before, f"layers.{i}.", norm="post", causal=False, attention_mask=attention_mask, **how
        )
    return [*found, *_head_stages(p, found[-1].name, output=output, config=config)]


def _head_stages(p: Tree, states: str, *, output: str, config: dict[str, Any]) -> list[taps.Stage]:
    def transformed(h: Array) -> Array:
        return model.masked_transform(h, p, config=_config(p, config))[0]

    def decoded(t: Array) -> Array:
        return linear(t, p["token"].T, p["masked"]["bias"])[0]

    def pooled(h: Array) -> Array:
        return tanh(linear(h[:, 0], **p["pooler"])[0])[0]

    def asked(x: Array) -> Array:
        return linear(x, **p[output])[0]

    if output == "hidden":
        return []
    if output == "masked":
        return [taps.Stage("transform", (states,), transformed), taps.Stage("logits", ("transform",), decoded)]
    if output == "span":
        return [taps.Stage("logits", (states,), asked)]
    return [taps.Stage("pooled", (states,), pooled), taps.Stage("logits", ("pooled",), asked)]
