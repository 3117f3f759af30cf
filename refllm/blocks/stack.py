"""An encoder or a decoder: the embedding below its layers, the bias by distance beside them, the norm above them.

Its parameters say what a stack has: each of a table of positions, a norm after the embedding, a table of distances and
a norm above the layers may be there or be missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.backend import Array, namespace
from refllm.blocks.layers import through
from refllm.blocks.residual import maybe_dropout, normalise
from refllm.differentiable import differentiable
from refllm.ops.embedding import embedding
from refllm.ops.position import add_positions, sinusoidal
from refllm.ops.relative import t5_bias_bidirectional, t5_bias_causal
from refllm.parameters import Tree


def stack_shapes(
    *,
    norm: Tree,
    position: tuple[int, int] | None,
    relative: tuple[int, int] | None,
    embedding_norm: bool,
    last_norm: bool,
) -> Callable[[int, dict[str, Tree]], Tree]:
    """The structure of a stack, a function of the number of its layers and of the sublayers of each in their order.

    A layer has norm1, norm2 ... in front of its sublayers.
    """

    def of(layers: int, sublayers: dict[str, Tree]) -> Tree:
        layer: Tree = {}
        for i, (name, sublayer) in enumerate(sublayers.items(), start=1):
            layer |= {f"norm{i}": norm, name: sublayer}
        tree: Tree = {} if position is None else {"position": position}
        if embedding_norm:
            tree["embedding_norm"] = norm
        if relative is not None:
            tree["relative"] = relative
        tree["layers"] = [layer for _ in range(layers)]
        if last_norm:
            tree["norm"] = norm
        return tree

    return of


def stack(
    token: Array,
    p: Tree,
    layer: Callable[[Array, Array | None, Tree, int], tuple[Array, Callable[[Array], tuple[Any, ...]]]],
    *,
    ids: Array,
    positions: Array,
    keys: int,
    causal: bool,
    scale: float,
    waves: bool,
    farthest: int,
    eps: float,
    dropout_mask: Array | None,
    rate: float,
) -> tuple[Array, Callable[[Array], tuple[Any, ...]]]:
    """ENCDEC, one half: y = N(layer_L( ... layer_1(e))),   e the embedding, layer_i(x) = layer(x, r, p of it, i) with r
    the bias by distance that all layers share

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.1; Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1.
    Shapes:  token (V, C); ids (B, T) in [0, V); positions int (T,); dropout_mask bool (B, T, C), or None -> y (B, T, C)
    Back:    gives dtoken, the gradients of what the layers read besides, and those of p. A layer's gives dx, the
             gradients of what it reads besides, dr and those of its p.

    >>> layer = lambda x, r, p, number: (2 * x, lambda dy: (2 * dy, None, {}))  # a layer that doubles
    >>> how = {"ids": array([[1]]), "positions": arange(1), "keys": 1, "causal": True, "scale": 1.0, "waves": False}
    >>> how |= {"farthest": 8, "eps": 1e-5, "dropout_mask": None, "rate": 0.0}
    >>> stack(array([[5.0], [3.0]]), {"layers": [{}, {}]}, layer, **how)[0].tolist()  # row 1, twice doubled
    [[[12.0]]]
    """
    x, back_embed = stack_embedding(
        token, p, ids=ids, positions=positions, scale=scale, waves=waves, eps=eps, dropout_mask=dropout_mask, rate=rate
    )
    r, back_r = distance_bias(p, queries=ids.shape[1], keys=keys, causal=causal, farthest=farthest)
    h, back_layers = through(x, p["layers"], lambda x, of_layer, i: layer(x, r, of_layer, i))
    y, back_norm = maybe_norm(h, p, name="norm", eps=eps)

    def back(dy: Array) -> tuple[Any, ...]:
        dh, dnorm = back_norm(dy)
        dx, *dread, dr, dlayers = back_layers(dh)
        dtoken, dembed = back_embed(dx)
        return dtoken, *dread, {**dembed, **back_r(dr), "layers": dlayers, **dnorm}

    return y, back


@differentiable
def stack_embedding(
    token: Array,
    p: Tree,
    *,
    ids: Array,
    positions: Array,
    scale: float,
    waves: bool,
    eps: float,
    dropout_mask: Array | None,
    rate: float,
) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """EMB, PE-SIN, PE-LRN: y = drop(N(scale token[ids] + positions)); the token table belongs to both stacks

    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.4, 3.5; Lewis et al. 2020 (arXiv:1910.13461), code.
    Shapes:  token (V, C); ids (B, T) in [0, V); positions int (T,); dropout_mask bool (B, T, C), or None;
             position (K, C), or None; embedding_norm tree, or None; relative (N, H), or None; layers tree, or None;
             norm tree, or None -> y (B, T, C)
    Back:    gives dtoken and the gradients of "position" and "embedding_norm", where p has them.

    >>> token, p = array([[1.0], [2.0]]), {"position": array([[10.0], [20.0]])}
    >>> how = {"scale": 3.0, "waves": False, "eps": 1e-5, "dropout_mask": None, "rate": 0.0}
    >>> stack_embedding(token, p, ids=array([[1, 0]]), positions=arange(2), **how)[0].tolist()  # 3 · 2 + 10, 3 · 1 + 20
    [[[16.0], [23.0]]]
    """
    words, back_words = embedding(token, ids=ids)
    placed, back_placed = stack_positions(words * scale, p, positions=positions, waves=waves)
    normed, back_norm = maybe_norm(placed, p, name="embedding_norm", eps=eps)
    y, back_drop = maybe_dropout(normed, dropout_mask=dropout_mask, rate=rate)

    def back(dy: Array) -> tuple[Array, Tree]:
        dplaced, dnorm = back_norm(back_drop(dy))
        dwords, dposition = back_placed(dplaced)
        return back_words(dwords * scale), {**dposition, **dnorm}

    return y, back


def stack_positions(
    x: Array, p: Tree, *, positions: Array, waves: bool
) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """PE-LRN where p has a table "position"; PE-SIN with `waves`; else nothing, as where distances come in later

    Source:  see `add_positions` and `sinusoidal`.
    Shapes:  x (B, T, C); positions int (T,) -> y (B, T, C)

    >>> stack_positions(zeros((1, 1, 2)), {}, positions=arange(1), waves=True)[0].tolist()  # sin 0 and cos 0
    [[[0.0, 1.0]]]
    """
    if "position" in p:
        y, back_table = add_positions(x, p["position"], positions=positions)

        def back(dy: Array) -> tuple[Array, Tree]:
            dx, dtable = back_table(dy)
            return dx, {"position": dtable}

        return y, back
    if waves:
        x = x + sinusoidal(positions.astype(x.dtype), width=x.shape[-1])[0]
    return x, lambda dy: (dy, {})


def distance_bias(
    p: Tree, *, queries: int, keys: int, causal: bool, farthest: int
) -> tuple[Array | None, Callable[[Array | None], Tree]]:
    """T5-REL: the bias that all layers of a stack add to their scores, where p has a table "relative"

    Source:  Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1.
    Shapes:  relative (K, H) -> r (H, T+S-1) or None
    Back:    takes the sum of the gradients of r from all layers, None where there is none, and gives that of
             "relative": the table is shared.

    >>> r, back = distance_bias({"relative": array([[7.0]])}, queries=1, keys=2, causal=True, farthest=2)
    >>> r.tolist(), distance_bias({}, queries=1, keys=2, causal=True, farthest=2)[0]
    ([[7.0, 7.0]], None)
    """
    if "relative" not in p:
        return None, lambda dr: {}
    if not queries:  # no token looks at any
        xp = namespace(p["relative"])
        nothing = xp.zeros((p["relative"].shape[1], max(0, keys - 1)), p["relative"].dtype)
        return nothing, lambda dr: {"relative": xp.zeros_like(p["relative"])}
    bias = t5_bias_causal if causal else t5_bias_bidirectional
    r, back_r = bias(p["relative"], queries=queries, keys=keys, farthest=farthest)
    return r, lambda dr: {"relative": back_r(dr)}


def maybe_norm(x: Array, p: Tree, *, name: str, eps: float) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """LN or RMS norm of that name where p has one

    Source:  see `normalise`.
    Shapes:  x (..., C) -> y (..., C)

    >>> maybe_norm(array([2.0, 2.0]), {}, name="norm", eps=1e-5)[0].tolist()
    [2.0, 2.0]
    """
    if name not in p:
        return x, _without_norm
    y, back_norm = normalise(x, p[name], eps=eps)

    def back(dy: Array) -> tuple[Array, Tree]:
        dx, dnorm = back_norm(dy)
        return dx, {name: dnorm}

    return y, back


def _without_norm(dy: Array) -> tuple[Array, Tree]:
    return dy, {}


def then_norm(
    y: Array, back_y: Callable[[Array], tuple[Any, ...]], p: Tree, *, name: str, eps: float
) -> tuple[Array, Callable[[Array], tuple[Any, ...]]]:
    """LN or RMS norm, where p has one of that name, of the y that the pullback `back_y` came with

    Source:  see `normalise`.
    Shapes:  y (..., C) -> n (..., C)
    Back:    what `back_y` gives, and after it, where there is a norm, its gradient by its name.

    >>> y, back = then_norm(array([2.0, 2.0]), lambda dy: (dy, {}), {}, name="norm", eps=1e-5)
    >>> y.tolist()
    [2.0, 2.0]
    """
    if name not in p:
        return y, back_y
    n, back_norm = normalise(y, p[name], eps=eps)

    def back(dn: Array) -> tuple[Any, ...]:
        dy, dnorm = back_norm(dn)
        return *back_y(dy), {name: dnorm}

    return n, back
