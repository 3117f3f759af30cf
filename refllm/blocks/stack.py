"""What stands around the layers of an encoder or a decoder: the embedding below them, the bias by distance beside them.

Its parameters say what a stack has: each of a table of positions, a norm after the embedding, a table of distances and
a norm above the layers may be there or be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from refllm.backend import Array, namespace
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
    Shapes:  token (V, C); ids (B, T) in [0, V); positions int (T,); dropout_mask bool (B, T, C), or None -> y (B, T, C)
    Back:    gives dtoken and the gradients of "position" and "embedding_norm", where p has them.
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
) -> tuple[Array | None, Callable[[Sequence[Array | None]], Tree]]:
    """T5-REL: the bias that all layers of a stack add to their scores, where p has a table "relative"

    Source:  Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1.
    Shapes:  relative (K, H) -> r (H, T+S-1) or None
    Back:    takes the gradient of r from each layer and gives that of "relative": the table is shared.
    """
    if "relative" not in p:
        return None, lambda drs: {}
    if not queries:  # no token looks at any
        xp = namespace(p["relative"])
        nothing = xp.zeros((p["relative"].shape[1], max(0, keys - 1)), p["relative"].dtype)
        return nothing, lambda drs: {"relative": xp.zeros_like(p["relative"])}
    bias = t5_bias_causal if causal else t5_bias_bidirectional
    r, back_r = bias(p["relative"], queries=queries, keys=keys, farthest=farthest)
    return r, lambda drs: {"relative": back_r(sum(dr for dr in drs if dr is not None))}


def maybe_norm(x: Array, p: Tree, *, name: str, eps: float) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """LN or RMS norm of that name where p has one

    Source:  see `normalise`.
    Shapes:  x (..., C) -> y (..., C)
    """
    if name not in p:
        return x, lambda dy: (dy, {})
    y, back_norm = normalise(x, p[name], eps=eps)

    def back(dy: Array) -> tuple[Array, Tree]:
        dx, dnorm = back_norm(dy)
        return dx, {name: dnorm}

    return y, back
