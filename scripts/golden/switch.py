"""MOE (Fedus 2021): each token goes to one expert, an expert has room for so many, the others pass by the residual.

A slot is a number: place k of expert e is e * capacity + k, and experts * capacity means that a token has none.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from mpmath import mpf

from golden.formulas import (
    Array,
    Tap,
    add_positions,
    cross_entropy,
    each,
    embedding,
    layer_norm,
    matmul,
    mean,
    softmax,
    untapped,
)
from golden.model import ACTIVATIONS, inside, layer_shapes, self_attention, transformer_layer
from golden.tape import constant, total
from golden.tree import Tree


def gate(p: Array, *, chosen: Array) -> Array:
    """Eq. 2 with one expert: the probability of the expert that takes the token."""
    return np.take_along_axis(p, chosen[..., None], axis=-1)[..., 0]


def load_balance(p: Array, *, chosen: Array, valid: Array | None) -> Array:
    """Eq. 4 to 6: E sum_e f_e P_e over the counted tokens of each text: f_e the share of them whose expert is e, a
    count without a gradient, and P_e their mean probability of e."""
    E = p.shape[-1]
    y = np.empty(p.shape[:-2], dtype=object)
    for text in np.ndindex(y.shape):
        tokens = range(p.shape[-2]) if valid is None else np.flatnonzero(valid[text])
        terms = []
        for e in range(E) if len(tokens) else ():
            f = constant(sum(int(chosen[(*text, t)] == e) for t in tokens)) / len(tokens)
            terms.append(f * (total(p[(*text, t, e)] for t in tokens) / len(tokens)))
        y[text] = E * total(terms)
    return y


def dispatch(x: Array, *, slots: Array, experts: int, capacity: int) -> Array:
    """Sec. 2.2: every slot holds the sum of the tokens that have it: one, or none and so zeros."""
    *texts, _, C = x.shape
    y = np.empty((*texts, experts * capacity, C), dtype=object)
    for text in np.ndindex(*texts):
        for slot in range(experts * capacity):
            there = np.flatnonzero(slots[text] == slot)
            y[(*text, slot)] = [total(x[(*text, t, c)] for t in there) for c in range(C)]
    return y.reshape(*texts, experts, capacity, C)


def combine(z: Array, g: Array, *, slots: Array) -> Array:
    """Eq. 2: g times what the expert made of the token; zeros for a token without a slot."""
    *texts, T = slots.shape
    C = z.shape[-1]
    by_slot = z.reshape(*texts, -1, C)
    y = np.empty((*texts, T, C), dtype=object)
    for place in np.ndindex(*slots.shape):
        slot = slots[place]
        there = slot < by_slot.shape[-2]
        y[place] = by_slot[(*place[:-1], slot)] * g[place] if there else each(constant, np.zeros(C))
    return y


def expert_matmul(x: Array, W: Array) -> Array:
    """Fig. 2: every expert has a matrix of its own."""
    y = np.empty((*x.shape[:-1], W.shape[-1]), dtype=object)
    for e, matrix in enumerate(W):
        y[..., e, :, :] = matmul(x[..., e, :, :], matrix)
    return y


def expert_linear(x: Array, W: Array, b: Array) -> Array:
    """The same with a bias for each."""
    return expert_matmul(x, W) + b[:, None, :]


# --- the layer -------------------------------------------------------------------------------------------------------


def switch_layer(x: Array, p: Tree, *, activation: str, capacity: int, valid: Array | None) -> dict[str, Array]:
    """Sec. 2: y_t = P_t[e] FFN_e(x_t) with P_t = softmax(x_t Wr) and e the most probable expert, of equal ones the
    first; and the load balance of each text. An expert takes the first `capacity` valid tokens that choose it; the
    others have y = 0. The margin is how far the nearest choice is from a tie, in scores."""
    scores = matmul(x, p["Wr"])
    P = softmax(scores)
    chosen, margin = _chosen(scores)
    E, T = P.shape[-1], x.shape[-2]
    slots = np.empty(chosen.shape, np.int64)
    for text in np.ndindex(chosen.shape[:-1]):
        taken = [0] * E
        for t in range(T):
            e = chosen[(*text, t)]
            has_place = taken[e] < capacity and (valid is None or valid[(*text, t)])
            slots[(*text, t)] = e * capacity + taken[e] if has_place else E * capacity
            taken[e] += has_place
    z = dispatch(x, slots=slots, experts=E, capacity=capacity)
    f = ACTIVATIONS[activation]
    if "b1" in p:
        a = expert_linear(f(expert_linear(z, p["W1"], p["b1"])), p["W2"], p["b2"])
    else:
        a = expert_matmul(f(expert_matmul(z, p["W1"])), p["W2"])
    y = combine(a, gate(P, chosen=chosen), slots=slots)
    return {"y": y, "balance": load_balance(P, chosen=chosen, valid=valid), "margin": margin}


def _chosen(scores: Array) -> tuple[Array, Array]:
    """The first of the largest scores of every row, and the least distance of another score to the largest."""
    chosen, gaps = np.empty(scores.shape[:-1], np.int64), [mpf("inf")]
    for i in np.ndindex(chosen.shape):
        row = [s.value for s in scores[i]]
        chosen[i] = row.index(max(row))
        gaps += [max(row) - s for s in row if s != max(row)]
    return chosen, np.asarray(constant(min(gaps)), dtype=object)


# --- the model -------------------------------------------------------------------------------------------------------


def switch(p: Tree, *, ids: Array, config: Tree, tap: Tap = untapped) -> dict[str, Array]:
    """The logits in use: no token is dropped, so an expert has a place for every token."""
    found = _model(p, ids=ids, config=config, capacity=ids.shape[-1], tap=tap)
    return {"logits": found["logits"], "margin": found["margin"]}


def switch_loss(
    p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: Tree, tap: Tap = untapped
) -> dict[str, Array]:
    """Sec. 2.2, eq. 3 and 4: the mean over the targets, with room for capacity_factor T / E tokens of a text, rounded
    down, and `balance` times the sum over the layers of the mean over the texts of their load balance. A target that is
    ignored is left out of the first mean alone."""
    T = ids.shape[-1]
    places = math.floor(Fraction(str(config["capacity_factor"])) * T / config["experts"])
    found = _model(p, ids=ids, config=config, capacity=min(places, T), tap=tap)
    nll = cross_entropy(found["logits"], targets=targets, ignore=ignore, reduction="mean")
    loss = nll.item() + constant(config["balance"]) * found["balance"]
    return {"loss": np.asarray(loss, dtype=object), "margin": found["margin"]}


def _model(p: Tree, *, ids: Array, config: Tree, capacity: int, tap: Tap) -> dict[str, Any]:
    """A pre-norm GPT with learned positions and a tied head whose layers number `every`, 2 `every` ... have experts."""

    def seen(name: str, value: Array) -> Array:
        tap(name, value)
        return value

    how = {name: config[name] for name in ("heads", "activation", "eps")}
    x = add_positions(embedding(p["token"], ids=ids), p["position"], positions=np.arange(ids.shape[-1]))
    tap("embedding", x)
    balances, margins = [], []
    for n, layer in enumerate(p["layers"]):
        if "switch" not in layer:
            x = transformer_layer(
                x, layer, norm="pre", causal=True, allowed=None, tap=inside(tap, f"layers.{n}"), **how
            )
            continue
        z = seen(f"layers.{n}.norm1", layer_norm(x, **layer["norm1"], eps=config["eps"]))
        a = self_attention(z, layer["attention"], heads=config["heads"], causal=True, allowed=None)
        x = seen(f"layers.{n}.residual1", x + seen(f"layers.{n}.attention", a))
        z = seen(f"layers.{n}.norm2", layer_norm(x, **layer["norm2"], eps=config["eps"]))
        found = switch_layer(z, layer["switch"], activation=config["activation"], capacity=capacity, valid=None)
        x = seen(f"layers.{n}.residual2", x + seen(f"layers.{n}.switch", found["y"]))
        balances.append(mean(list(found["balance"].flat)))
        margins.append(found["margin"])
    x = seen("norm", layer_norm(x, **p["norm"], eps=config["eps"]))
    logits = seen("logits", matmul(x, p["token"].T))
    nearest = min(margins, key=lambda margin: margin.item().value)
    return {"logits": logits, "balance": total(balances), "margin": nearest}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The flat names and shapes of the parameters of `switch`."""
    C, F = config["width"], config["hidden"]
    found: dict[str, tuple[int, ...]] = {"token": (config["vocabulary"], C), "position": (config["context"], C)}
    for n in range(config["layers"]):
        of_layer = layer_shapes(C, F)
        if (n + 1) % config["every"] == 0:
            of_layer = {name: s for name, s in of_layer.items() if not name.startswith("feed_forward")}
            of_layer |= {f"switch.{name}": s for name, s in expert_shapes(C, F, config["experts"]).items()}
        found |= {f"layers.{n}.{name}": shape for name, shape in of_layer.items()}
    return {**found, "norm.g": (C,), "norm.b": (C,)}


def expert_shapes(C: int, F: int, E: int, *, biases: bool = True) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"Wr": (C, E), "W1": (E, C, F), "b1": (E, F), "W2": (E, F, C), "b2": (E, C)}
    return {name: shape for name, shape in found.items() if biases or not name.startswith("b")}
