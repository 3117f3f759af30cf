"""Mistakes of grouped attention, and of the keys that a cache holds for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.grouped_attention import grouped_attention
from refllm.parameters import Tree
from refllm.verify.mutants import attention as parts
from refllm.verify.mutants.autodiff import Node, differentiable
from refllm.verify.mutants.bank import Function, Mutant
from refllm.verify.mutants.rotary import halves, interleaved, spin

LAYOUTS = {"rotary": halves, "rotary_interleaved": interleaved}
Turn = Callable[[Node], Node]
Heads = tuple[Node, Node, Node]


def _cut(y: Node, heads: int) -> Node:
    return y.reshape(*y.shape[:-1], heads, y.shape[-1] // heads).swap(-2, -3)


def _cut_without_swap(y: Node, heads: int) -> Node:
    return y.reshape(*y.shape[:-2], heads, y.shape[-2], y.shape[-1] // heads)


def _turned(q: Node, k: Node, v: Node, turn: Turn) -> Heads:
    return turn(q), turn(k), v


def _consecutive(heads: int, kv_heads: int) -> Array:
    """The key head of every query head."""
    return numpy.repeat(numpy.arange(kv_heads), heads // kv_heads)


def _merged(a: Node) -> Node:
    return a.swap(-2, -3).reshape(*a.shape[:-3], a.shape[-2], a.shape[-3] * a.shape[-1])


def grouped(
    *,
    cut: Callable[[Node, int], Node] = _cut,
    positions_of: Callable[[str, Array], Array] = lambda which, own: own,
    turned: Callable[[Node, Node, Node, Turn], Heads] = _turned,
    values: Callable[[int, int], Array] = _consecutive,
    keys: Callable[[int, int], Array] = _consecutive,
    scale: Callable[[int, int], float] = lambda D, C: D**-0.5,
    merge: Callable[[Node], Node] = _merged,
    project: Callable[[Node, int, Turn, Turn], Node] | None = None,
    read: Callable[[Node, Any], Node] = lambda k, turn: k,
    store_turned: bool = True,
) -> Function:
    """Grouped attention with a part of it exchanged, and the true gradient of what then is computed."""

    def changed(
        x: Array, r: Array | None, p: Tree, *, heads: int, kv_heads: int, rotation: str | None, positions: Array,
        base: float, causal: bool, attention_mask: Array | None, cache: Any = None,
    ) -> tuple[Array, Function]:  # fmt: skip
        own = positions if positions.ndim == 1 else positions[:, None]

        def turning(z: Node, at: Array) -> Node:
            return z if rotation is None else spin(z, LAYOUTS[rotation], positions=at, base=base)

        @differentiable
        def whole(x: Node, p: Tree, *bias: Node) -> Node:
            def turn(z: Node) -> Node:
                return turning(z, own)

            whole_turn = lambda z: turning(z, positions)
            q, k = (
                cut(x @ p[W], n) if project is None else project(x @ p[W], n, turn, whole_turn)
                for W, n in (("Wq", heads), ("Wk", kv_heads))
            )
            v = cut(x @ p["Wv"], kv_heads)
            if project is None:
                q, k, v = turned(q, k, v, turn) if store_turned else (turn(q), k, v)
            if cache is not None:
                k, v = (Node(z) for z in cache.extend(k.value, v.value))
                k = read(k, lambda z, at: turning(z, at(own, z.shape[-2])))
            elif not store_turned:
                k = turn(k)
            k, v = k[..., keys(heads, kv_heads), :, :], v[..., values(heads, kv_heads), :, :]
            s = q @ k.swap() * scale(q.shape[-1], x.shape[-1])
            if bias:
                T, S = q.shape[-2], k.shape[-2]
                s = s + bias[0][:, numpy.arange(S) - numpy.arange(T)[:, None] + T - 1]
            m = numpy.broadcast_to(parts.seen(q, k, causal, attention_mask), s.shape)
            return merge(parts.weights(parts.masked(s, m)) @ v) @ p["Wo"]

        y, back = whole(x, p, *([] if r is None else [r]))

        def pull(dy: Array) -> tuple[Array, Array | None, Tree]:
            dx, dp, *dr = back(dy)
            return dx, dr[0] if dr else None, dp

        return y, pull

    return changed


def _turned_before_the_cut(y: Node, heads: int, turn: Turn, whole: Turn) -> Node:
    return _cut(whole(y), heads)


def _cut_like_parts(a: Node) -> Node:
    return a.reshape(*a.shape[:-3], a.shape[-2], a.shape[-3] * a.shape[-1])


# fmt: off
MUTANTS = [
    Mutant("LONG/grouped-values-turned", grouped_attention, "grouped attention that turns the values too",
           grouped(turned=lambda q, k, v, turn: (turn(q), turn(k), turn(v)))),
    Mutant("LONG/grouped-keys-not-turned", grouped_attention, "grouped attention that turns the queries alone",
           grouped(turned=lambda q, k, v, turn: (turn(q), k, v))),
    Mutant("LONG/grouped-queries-not-turned", grouped_attention, "grouped attention that turns the keys alone",
           grouped(turned=lambda q, k, v, turn: (q, turn(k), v))),
    Mutant("LONG/grouped-turned-before-the-cut", grouped_attention, "grouped attention that turns the width of all "
           "heads as one", grouped(project=_turned_before_the_cut)),
    Mutant("LONG/grouped-values-in-turn", grouped_attention, "grouped attention whose query heads take key heads in "
           "order and value heads in turn",
           grouped(values=lambda H, G: numpy.tile(numpy.arange(G), H // G))),
    Mutant("LONG/grouped-in-turn", grouped_attention, "grouped attention whose query heads take the key heads in turn",
           grouped(values=lambda H, G: numpy.tile(numpy.arange(G), H // G),
                   keys=lambda H, G: numpy.tile(numpy.arange(G), H // G))),
    Mutant("LONG/grouped-scale-model-width", grouped_attention, "grouped attention scaled by the width of the model",
           grouped(scale=lambda D, C: C**-0.5)),
    Mutant("LONG/grouped-no-scale", grouped_attention, "grouped attention without the 1/√D scale",
           grouped(scale=lambda D, C: 1.0)),
    Mutant("LONG/grouped-split-without-transpose", grouped_attention, "grouped attention whose heads are cut by a "
           "reshape without a transpose", grouped(cut=_cut_without_swap)),
    Mutant("LONG/grouped-merge-without-transpose", grouped_attention, "grouped attention whose heads are joined "
           "without a transpose", grouped(merge=_cut_like_parts)),
    Mutant("GEN/llama-keys-turned-again", grouped_attention, "a cache whose keys are turned again when they are read",
           grouped(read=lambda k, turn: turn(k, lambda own, S: numpy.arange(S)))),
    Mutant("GEN/llama-keys-never-turned", grouped_attention, "a cache whose keys are never turned",
           grouped(store_turned=False)),
    Mutant("GEN/llama-keys-turned-by-newest", grouped_attention, "a cache whose keys are all turned by the newest "
           "position", grouped(store_turned=False, read=lambda k, turn: turn(k, lambda own, S: own[..., -1:]))),
    Mutant("GEN/llama-keys-turned-from-newest", grouped_attention, "a cache whose keys are turned by positions that "
           "count from the newest tokens",
           grouped(store_turned=False, read=lambda k, turn: turn(k, lambda own, S: own[..., :1] + numpy.arange(S)))),
]
