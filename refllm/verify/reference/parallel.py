"""Parallel shards: the operation on the whole, of which a rank's part is taken. What belongs to others is masked, so
the pullback is that of the whole too."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from refllm.backend import Array, namespace
from refllm.blocks.feed_forward import feed_forward
from refllm.blocks.self_attention import self_attention
from refllm.ops.attention import attention
from refllm.ops.cross_entropy import cross_entropy
from refllm.ops.dropout import dropout
from refllm.ops.embedding import embedding
from refllm.ops.layer_norm import layer_norm
from refllm.ops.linear import linear
from refllm.optim.update import adamw
from refllm.parameters import Tree

Pullback = Callable[..., Any]


def functions() -> dict[str, Callable[..., Any]]:
    own: tuple[Callable[..., Any], ...] = (
        column_parallel_linear, row_parallel_linear, parallel_feed_forward, head_parallel_attention,
        vocabulary_parallel_embedding, vocabulary_parallel_sums, vocabulary_parallel_cross_entropy,
        sequence_parallel_norm, sequence_parallel_dropout, ring_attention, expert_parallel_layer, pipeline_stage,
        data_parallel_cross_entropy, sharded_squares, sharded_clip, sharded_adamw,
    )  # fmt: skip
    return {f.__name__: f for f in own}


def _own(xp: Any, size: int, ranks: int, rank: int) -> Array:
    """Which of so many places the rank has."""
    return xp.arange(size) // max(1, -(-size // ranks)) == rank


def _whole(part: Array, own: Array, axis: int) -> Array:
    """The part at its places, zeros elsewhere."""
    shape = list(part.shape)
    shape[axis] = len(own)
    y = namespace(part).zeros(shape, part.dtype)
    y.swapaxes(0, axis)[own] = part.swapaxes(0, axis)
    return y


def column_parallel_linear(x: Array, W: Array, b: Array, *, ranks: int, rank: int) -> tuple[Array, Pullback]:
    own = _own(namespace(x), W.shape[-1], ranks, rank)
    y, back = linear(x, W, b)
    return y[..., own], lambda dy: back(_whole(dy, own, -1))


def row_parallel_linear(x: Array, W: Array, b: Array, *, ranks: int, rank: int) -> tuple[Array, Pullback]:
    own = _own(namespace(x), len(W), ranks, rank).astype(x.dtype)
    first = int(rank == 0)
    y, back_of_all = linear(x * own, W, b * first)

    def back(dy: Array) -> tuple[Array, Array, Array]:
        dx, dW, db = back_of_all(dy)
        return dx * own, dW, db * first

    return y, back


def parallel_feed_forward(x: Array, p: Tree, *, activation: str, ranks: int, rank: int) -> tuple[Array, Pullback]:
    own = _own(namespace(x), len(p["b1"]), ranks, rank).astype(x.dtype)
    first = int(rank == 0)
    y, back_of_all = feed_forward(x, {**p, "W2": p["W2"] * own[:, None], "b2": p["b2"] * first}, activation=activation)

    def back(dy: Array) -> tuple[Array, Tree]:
        dx, d = back_of_all(dy)
        return dx, {**d, "W2": d["W2"] * own[:, None], "b2": d["b2"] * first}

    return y, back


def head_parallel_attention(
    x: Array, p: Tree, *, heads: int, causal: bool, attention_mask: Array | None, ranks: int, rank: int
) -> tuple[Array, Pullback]:
    """The rows of Wo for the heads of others are 0, and so are all gradients behind them."""
    xp = namespace(x)
    own = xp.repeat(_own(xp, heads, ranks, rank), len(p["Wo"]) // heads).astype(x.dtype)
    first = int(rank == 0)
    y, back_of_all = self_attention(
        x, {**p, "Wo": p["Wo"] * own[:, None], "bo": p["bo"] * first},
        heads=heads, causal=causal, attention_mask=attention_mask, cache=None,
    )  # fmt: skip

    def back(dy: Array) -> tuple[Array, Tree]:
        dx, d = back_of_all(dy)
        return dx, {**d, "Wo": d["Wo"] * own[:, None], "bo": d["bo"] * first}

    return y, back


def vocabulary_parallel_embedding(E: Array, *, ids: Array, ranks: int, rank: int) -> tuple[Array, Pullback]:
    own = _own(namespace(E), len(E), ranks, rank)
    y, back_of_all = embedding(E * own[:, None].astype(E.dtype), ids=ids)
    return y, lambda dy: back_of_all(dy) * own[:, None].astype(E.dtype)


def vocabulary_parallel_sums(
    logits: Array, *, targets: Array, ranks: int, rank: int
) -> tuple[tuple[Array, Array], Pullback]:
    xp, V = namespace(logits), logits.shape[-1]
    own = _own(xp, V, ranks, rank)
    masked = xp.where(own, logits, logits.dtype.type(-math.inf))
    largest = masked.max(axis=-1, keepdims=True) if bool(own.any()) else xp.zeros((*logits.shape[:-1], 1), logits.dtype)
    e = xp.exp(masked - largest)
    Z = e.sum(axis=-1, keepdims=True)
    divisor = xp.where(Z == 0, 1, Z)
    l = xp.where(Z == 0, -math.inf, largest + xp.log(divisor)).astype(logits.dtype)
    hit = (targets[..., None] == xp.arange(V)) & own
    of_target = xp.where(hit, logits, 0).sum(axis=-1)
    return (
        (l[..., 0], of_target),
        lambda dl, dt: dl[..., None] * (e / divisor) + xp.where(hit, dt[..., None], 0),
    )


def vocabulary_parallel_cross_entropy(
    l: Array, t: Array, *, targets: Array, ignore: int | None
) -> tuple[Array, Pullback]:
    xp = namespace(l)
    counted = xp.ones(targets.shape, bool) if ignore is None else targets != ignore
    share = counted.astype(l.dtype) / max(1, int(counted.sum()))
    largest = l.max(axis=0)
    e = xp.exp(l - largest)
    Z = e.sum(axis=0)
    y = (share * (largest + xp.log(Z) - t.sum(axis=0))).sum()
    return y, lambda dy: (dy * share * e / Z, xp.zeros_like(t) - dy * share)


def sequence_parallel_norm(
    x: Array, g: Array, b: Array, *, eps: float, ranks: int, rank: int
) -> tuple[Array, Pullback]:
    own = _own(namespace(x), x.shape[-2], ranks, rank)
    y, back = layer_norm(x, g, b, eps=eps)
    return y[..., own, :], lambda dy: back(_whole(dy, own, -2))


def sequence_parallel_dropout(
    x: Array, *, dropout_mask: Array, rate: float, ranks: int, rank: int
) -> tuple[Array, Pullback]:
    own = _own(namespace(x), x.shape[-2], ranks, rank)
    y, back = dropout(x, dropout_mask=dropout_mask, rate=rate)
    return y[..., own, :], lambda dy: back(_whole(dy, own, -2))


def ring_attention(
    q: Array, k: Array, v: Array, *, causal: bool, attention_mask: Array | None, ranks: int, rank: int
) -> tuple[Array, Pullback]:
    """All keys at once."""
    own = _own(namespace(q), q.shape[-2], ranks, rank)
    y, back = attention(q, k, v, causal=causal, attention_mask=attention_mask)
    return y[..., own, :], lambda dy: back(_whole(dy, own, -2))


def expert_parallel_layer(
    x: Array, g: Array, p: Tree, *, chosen: Array, capacity: int, activation: str, ranks: int, rank: int
) -> tuple[Array, Pullback]:
    """Every own expert reads all tokens, and a weight of 0 takes away what is not for it."""
    xp, E = namespace(x), len(p["W1"])
    taken = chosen[..., None] == xp.arange(E)
    taken &= taken.cumsum(axis=-2) <= capacity
    experts = [e for e in range(E) if bool(_own(xp, E, ranks, rank)[e])]
    parts = [feed_forward(x, {name: w[e] for name, w in p.items()}, activation=activation) for e in experts]
    weights = [taken[..., e].astype(x.dtype) for e in experts]
    y = xp.zeros_like(x)
    for (a, _), weight in zip(parts, weights, strict=True):
        y = y + (weight * g)[..., None] * a

    def back(dy: Array) -> tuple[Array, Array, Tree]:
        dx, dg = xp.zeros_like(x), xp.zeros_like(g)
        dp = {name: xp.zeros_like(w) for name, w in p.items()}
        for e, (a, part_back), weight in zip(experts, parts, weights, strict=True):
            dx_part, d = part_back((weight * g)[..., None] * dy)
            dx, dg = dx + dx_part, dg + weight * (dy * a).sum(axis=-1)
            for name, dw in dp.items():
                dw[e] = d[name]
        return dx, dg, dp

    return y, back


def pipeline_stage(x: Array, p: Tree, *, activation: str, ranks: int, rank: int) -> tuple[Array, Pullback]:
    """All micro-batches at once."""
    xp, layers = namespace(x), p["layers"]
    own = [n for n in range(len(layers)) if bool(_own(xp, len(layers), ranks, rank)[n])]
    y = x
    backs: list[Pullback] = []
    for n in own:
        a, layer_back = feed_forward(y, layers[n], activation=activation)
        y, backs = y + a, [*backs, layer_back]

    def back(dy: Array) -> tuple[Array, Tree]:
        found = [{name: xp.zeros_like(w) for name, w in layer.items()} for layer in layers]
        for n, layer_back in zip(reversed(own), reversed(backs), strict=True):
            da, found[n] = layer_back(dy)
            dy = dy + da
        return (dy if own else dy.copy()), {"layers": found}

    return (y if own else y.copy()), back


def data_parallel_cross_entropy(
    logits: Array, *, targets: Array, ignore: int | None, ranks: int, rank: int
) -> tuple[Array, Pullback]:
    """Targets of others are ignored in the sum."""
    xp = namespace(logits)
    nobody, own = -1, _own(xp, len(logits), ranks, rank).reshape(-1, *(1,) * (targets.ndim - 1))
    counted = xp.ones(targets.shape, bool) if ignore is None else targets != ignore
    count = max(1, int(counted.sum()))
    loss, back = cross_entropy(logits, targets=xp.where(counted & own, targets, nobody), ignore=nobody, reduction="sum")
    return loss / count, lambda dy: back(dy / count)


def sharded_squares(g: list[Array], *, cut: Array, ranks: int, rank: int) -> Array:
    xp = namespace(g[0])
    s = xp.zeros((), g[0].dtype)
    for x, is_cut in zip(g, cut, strict=True):
        own = _own(xp, len(x), ranks, rank) if is_cut else xp.full(len(x), rank == 0)
        s = s + (x[own].reshape(-1) ** 2).sum()
    return s


def sharded_clip(g: list[Array], squares: Array, *, clip: float) -> tuple[Array, list[Array]]:
    norm = namespace(squares).sqrt(squares.sum())
    scale = min(1.0, clip / float(norm)) if float(norm) else 1.0
    return norm, [x * scale for x in g]


def sharded_adamw(
    p: Array, g: Array, m: Array, v: Array, *,
    decayed: Array, step: int, lr: float, beta1: float, beta2: float, eps: float, decay: float, ranks: int, rank: int,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """The step of the whole with the decay and without it, of which each parameter takes one."""
    xp = namespace(p)
    own = _own(xp, len(p), ranks, rank)
    both = [
        adamw(
            p, g.sum(axis=0), _whole(m, own, 0), _whole(v, own, 0),
            step=step, lr=lr, beta1=beta1, beta2=beta2, eps=eps, decay=strength,
        )
        for strength in (decay, 0.0)
    ]  # fmt: skip
    (with_decay, m, v), (without, _, _) = both
    return xp.where(decayed, with_decay, without)[own], m[own], v[own]
