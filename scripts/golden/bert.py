"""BERT as formulas: the encoder that sees both sides, what its heads ask of it, and the losses of the training."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from golden.formulas import (
    Array,
    Tap,
    add_positions,
    cross_entropy,
    dot,
    each,
    embedding,
    layer_norm,
    linear,
    mean,
    smoothed_cross_entropy,
    untapped,
)
from golden.model import ACTIVATIONS, inside, layer_shapes, transformer_layer
from golden.tape import constant, tanh, total
from golden.tree import Tree


def bert(
    p: Tree,
    *,
    ids: Array,
    segments: Array,
    allowed: Array | None,
    output: str,
    config: Tree,
    tap: Tap = untapped,
) -> Array:
    """BERT (Devlin 2019): the states of all tokens, and what a head makes of them.

    "hidden" the states (B, T, C); "masked" the logits of a word at every place (B, T, V); "pair" two classes (B, 2);
    "classes" (B, labels); "span" start and end (B, T, 2).
    """
    h = _encode(p, ids=ids, segments=segments, allowed=allowed, config=config, tap=tap)
    if output == "hidden":
        return h
    if output == "masked":
        q = p["masked"]
        t = ACTIVATIONS[config["activation"]](linear(h, q["W"], q["b"]))
        t = layer_norm(t, q["norm"]["g"], q["norm"]["b"], eps=config["eps"])
        tap("transform", t)
        y = linear(t, p["token"].T, q["bias"])
    elif output == "span":
        y = linear(h, p["span"]["W"], p["span"]["b"])
    else:
        c = each(tanh, linear(h[:, 0], p["pooler"]["W"], p["pooler"]["b"]))
        tap("pooled", c)
        y = linear(c, p[output]["W"], p[output]["b"])
    tap("logits", y)
    return y


def _encode(p: Tree, *, ids: Array, segments: Array, allowed: Array | None, config: Tree, tap: Tap) -> Array:
    """token + position + segment, LN, and layers that are post-norm and attend in both directions."""
    x = add_positions(embedding(p["token"], ids=ids), p["position"], positions=np.arange(ids.shape[-1]))
    x = x + embedding(p["segment"], ids=segments)
    tap("embedding", x)
    x = layer_norm(x, p["norm"]["g"], p["norm"]["b"], eps=config["eps"])
    tap("norm", x)
    for n, layer in enumerate(p["layers"]):
        x = transformer_layer(
            x,
            layer,
            norm="post",
            heads=config["heads"],
            causal=False,
            allowed=allowed,
            activation=config["activation"],
            eps=config["eps"],
            tap=inside(tap, f"layers.{n}"),
        )
    return x


def pretraining_loss(
    p: Tree, *, targets: Array, ignore: int | None, pairs: Array, tap: Tap = untapped, **text: Any
) -> dict[str, Array]:
    """MLM and NSP: the mean of -log P(word) over the masked places, which are those whose target is not ignored, and
    the mean of -log P(class of the pair) over the texts. The training loss is their sum."""
    words = bert(p, output="masked", tap=tap, **text)
    classes = bert(p, output="pair", **text)
    return {
        "masked": cross_entropy(words, targets=targets, ignore=ignore, reduction="mean"),
        "pair": cross_entropy(classes, targets=pairs, ignore=None, reduction="mean"),
    }


def classifier_loss(
    p: Tree, *, targets: Array, weights: Array | None = None, smoothing: float = 0.0, tap: Tap = untapped, **text: Any
) -> dict[str, Array]:
    """CLS: the mean over the texts of -log P(label); one prediction a text (erratum E13).

    With weights (B,): sum_n weights_n loss_n / sum_n weights_n. With smoothing the loss of a text is that against
    (1 - smoothing) onehot(label) + smoothing / labels (Szegedy 2016, 7), all of which its weight multiplies.
    """
    y = bert(p, output="classes", tap=tap, **text)
    loss = partial(smoothed_cross_entropy, smoothing=smoothing) if smoothing else cross_entropy
    if weights is None:
        return {"loss": loss(y, targets=targets, ignore=None, reduction="mean")}
    w = [constant(weight) for weight in weights]
    weighted = dot(w, loss(y, targets=targets, ignore=None, reduction="none")) / total(w)
    return {"loss": np.asarray(weighted, dtype=object)}


def span_loss(p: Tree, *, possible: Array | None, targets: Array, tap: Tap = untapped, **text: Any) -> dict[str, Array]:
    """TASKS (Devlin 2019, 4.2): -log P(start) and -log P(end), each a softmax over the possible places; the mean over
    both and over the texts. targets (B, 2), possible (B, T)."""
    y = bert(p, output="span", tap=tap, **text)
    everywhere = np.ones(y.shape[:2], dtype=bool)
    places = [np.flatnonzero(row) for row in (everywhere if possible is None else possible)]
    losses = [
        cross_entropy(y[n, place, side], targets=np.searchsorted(place, targets[n, side]), ignore=None, reduction="sum")
        for n, place in enumerate(places)
        for side in (0, 1)
    ]
    return {"loss": np.asarray(mean([loss.item() for loss in losses]), dtype=object)}


def shapes(config: dict[str, Any], outputs: list[str]) -> dict[str, tuple[int, ...]]:
    """The flat names and shapes of the parameters, with the heads of these outputs."""
    V, C = config["vocabulary"], config["width"]
    found = {
        "token": (V, C),
        "position": (config["context"], C),
        "segment": (config["segments"], C),
        "norm.g": (C,),
        "norm.b": (C,),
    }
    for n in range(config["layers"]):
        found |= {f"layers.{n}.{name}": shape for name, shape in layer_shapes(C, config["hidden"]).items()}
    found |= {"pooler.W": (C, C), "pooler.b": (C,)}
    heads: dict[str, dict[str, tuple[int, ...]]] = {
        "masked": {"W": (C, C), "b": (C,), "norm.g": (C,), "norm.b": (C,), "bias": (V,)},
        "pair": {"W": (C, 2), "b": (2,)},
        "classes": {"W": (C, config["labels"]), "b": (config["labels"],)},
        "span": {"W": (C, 2), "b": (2,)},
    }
    for head in outputs:
        found |= {f"{head}.{name}": shape for name, shape in heads[head].items()}
    return found
