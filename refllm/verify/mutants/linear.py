"""Mistakes of the affine maps, of the way into heads and out of them, and of the embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.self_attention import self_attention
from refllm.ops.embedding import embedding
from refllm.ops.linear import heads, linear, matmul
from refllm.parameters import Tree
from refllm.verify.mutants import attention as mistakes
from refllm.verify.mutants.autodiff import Node, differentiable
from refllm.verify.mutants.bank import Function, Mutant


def gradients(operation: Function, change: Callable[..., Any]) -> Function:
    """The operation with the right value and changed gradients: change(gradients, arguments, cotangents)."""

    def changed(*arrays: Array, **keywords: Any) -> tuple[Any, Function]:
        y, back = operation(*arrays, **keywords)
        return y, lambda *dy: change(back(*dy), arrays, dy)

    return changed


def _rows(x: Array) -> int:
    return x.size // x.shape[-1]


def _square(W: Any) -> bool:
    return W.shape[0] == W.shape[1]


def _last_alone(x: Array, dy: Array) -> tuple[Array, Array]:
    """What is left of dW and db where every entry of the first axis overwrites the one before."""
    dy = dy.reshape(*x.shape[:-1], dy.shape[-1])
    x, dy = (x[-1:], dy[-1:]) if x.ndim > 1 else (x, dy)
    rows = dy.reshape(-1, dy.shape[-1])
    return x.reshape(-1, x.shape[-1]).T @ rows, rows.sum(axis=0)


@differentiable
def _matmul_transposed(x: Node, W: Node) -> Node:
    return x @ (W.swap() if _square(W) else W)


@differentiable
def _linear_transposed(x: Node, W: Node, b: Node) -> Node:
    return x @ (W.swap() if _square(W) else W) + b


def split(order: Callable[..., list[Node]], bias: float = 1.0) -> Function:
    """The projection into heads with another way of cutting: order(y, heads, parts, D) gives the parts."""

    @differentiable
    def changed(x: Node, W: Node, b: Node, *, heads: int, parts: int) -> tuple[Node, ...]:
        y = x @ W + b * bias
        return tuple(order(y, heads, parts, y.shape[-1] // (heads * parts)))

    return changed


def _cut(y: Node, heads: int, parts: int, D: int) -> list[Node]:
    grid = y.reshape(*y.shape[:-1], parts, heads, D)
    return [grid[..., part, :, :].swap(-2, -3) for part in range(parts)]


def _without_swap(y: Node, heads: int, parts: int, D: int) -> list[Node]:
    grid = y.reshape(*y.shape[:-1], parts, heads * D)
    shape = (*y.shape[:-2], heads, y.shape[-2], D)
    return [grid[..., part, :].reshape(*shape) for part in range(parts)]


def _entry_major(y: Node, heads: int, parts: int, D: int) -> list[Node]:
    grid = y.reshape(*y.shape[:-1], parts, D, heads)
    return [grid[..., part, :, :].swap(-1, -2).swap(-2, -3) for part in range(parts)]


def _head_major(y: Node, heads: int, parts: int, D: int) -> list[Node]:
    grid = y.reshape(*y.shape[:-1], heads, parts, D)
    return [grid[..., part, :].swap(-2, -3) for part in range(parts)]


def _ordered(*places: int) -> Callable[..., list[Node]]:
    def order(y: Node, heads: int, parts: int, D: int) -> list[Node]:
        found = _cut(y, heads, parts, D)
        return [found[place] for place in places] if parts == len(places) else found

    return order


def _back_unswapped(x: Array, W: Array, b: Array, *, heads: int, parts: int) -> tuple[Any, Function]:
    right = split(_cut)
    y, back = right(x, W, b, heads=heads, parts=parts)

    def wrong(*dy: Array) -> Any:
        H, T, D = dy[0].shape[-3:]
        return back(*(d.reshape(*d.shape[:-3], T, H, D).swapaxes(-2, -3) for d in dy))

    return y, wrong


def block(
    *,
    merge: Callable[[Node], Node] = lambda a: a.swap(-2, -3),
    out: Callable[[Node, dict[str, Node]], Node] = lambda a, p: a @ p["Wo"] + p["bo"],
    change: Callable[[int], int] = lambda heads: heads,
) -> Function:
    """Self-attention with another way out of the heads; without a cache."""

    @differentiable
    def changed(x: Node, p: Tree, *, heads: int, causal: bool, attention_mask: Array | None, cache: Any = None) -> Node:
        y = x @ p["Wqkv"] + p["bqkv"]
        heads = change(heads)
        q, k, v = _cut(y, heads, 3, y.shape[-1] // (3 * heads))
        seen = mistakes.seen(q, k, causal, attention_mask)
        a = mistakes.weights(mistakes.masked(mistakes.scores(q, k), seen)) @ v
        return out(merge(a).reshape(*x.shape), p)

    return changed


def _transposed_out(a: Node, p: dict[str, Node]) -> Node:
    return a @ p["Wo"].swap() + p["bo"]


def _times_index(E: Node, *, ids: Array) -> Node:
    return E[0] * ids[..., None].astype(E.value.dtype)


def _shifted_ids(shift: int) -> Function:
    return differentiable(lambda E, *, ids: E[(ids + shift) % E.shape[0]])


def _embedding_back(rows: Callable[[Array, Array, Array], Any]) -> Function:
    """The embedding whose gradient is written by rows(dE, ids, dy)."""

    def changed(E: Array, *, ids: Array) -> tuple[Array, Function]:
        def back(dy: Array) -> Array:
            dE = numpy.zeros_like(E)
            rows(dE, ids.reshape(-1), dy.reshape(-1, E.shape[1]))
            return dE

        return E[ids], back

    return changed


def _assign(dE: Array, ids: Array, dy: Array) -> None:
    dE[ids] = dy


def _average(dE: Array, ids: Array, dy: Array) -> None:
    numpy.add.at(dE, ids, dy)
    dE /= numpy.maximum(numpy.bincount(ids, minlength=len(dE)), 1)[:, None]


def _without_first(dE: Array, ids: Array, dy: Array) -> None:
    numpy.add.at(dE, ids, dy)
    dE[0] = 0


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Mutant("LMHEAD/transposed", matmul, "matmul with the weights transposed, x Wᵀ (where they are square)",
           _matmul_transposed),
    Mutant("LMHEAD/back-input-untransposed", matmul, "matmul with dx = dy W instead of dy Wᵀ (where W is square)",
           gradients(matmul, lambda d, a, dy: (dy[0] @ a[1] if _square(a[1]) else d[0], d[1]))),
    Mutant("LMHEAD/back-weight-transposed", matmul, "matmul with dW transposed (where it is square)",
           gradients(matmul, lambda d, a, dy: (d[0], d[1].T if _square(d[1]) else d[1]))),
    Mutant("LMHEAD/back-weight-mean", matmul, "matmul with dW averaged over the rows instead of summed",
           gradients(matmul, lambda d, a, dy: (d[0], d[1] / _rows(a[0])))),
    Mutant("LMHEAD/back-weight-last", matmul, "matmul whose dW is overwritten, not added to: the last row alone counts",
           gradients(matmul, lambda d, a, dy: (d[0], _last_alone(a[0], dy[0])[0]))),
    Mutant("FFN/linear-transposed", linear, "linear with the weights transposed, x Wᵀ + b (where they are square)",
           _linear_transposed),
    Mutant("FFN/linear-no-bias", linear, "linear without the bias", differentiable(lambda x, W, b: x @ W)),
    Mutant("FFN/linear-bias-twice", linear, "linear with the bias added twice",
           differentiable(lambda x, W, b: x @ W + b + b)),
    Mutant("FFN/linear-back-bias-mean", linear, "linear with db averaged over the rows instead of summed",
           gradients(linear, lambda d, a, dy: (d[0], d[1], d[2] / _rows(a[0])))),
    Mutant("FFN/linear-back-mean", linear, "linear with dW and db averaged over the rows instead of summed",
           gradients(linear, lambda d, a, dy: (d[0], d[1] / _rows(a[0]), d[2] / _rows(a[0])))),
    Mutant("FFN/linear-back-last", linear, "linear whose dW and db are overwritten along the first axis, not added to",
           gradients(linear, lambda d, a, dy: (d[0], *_last_alone(a[0], dy[0])))),
    Mutant("FFN/linear-back-no-bias", linear, "linear with no gradient for the bias",
           gradients(linear, lambda d, a, dy: (d[0], d[1], 0 * d[2]))),
    Mutant("FFN/linear-back-input-untransposed", linear, "linear with dx = dy W instead of dy Wᵀ (where W is square)",
           gradients(linear, lambda d, a, dy: (dy[0] @ a[1] if _square(a[1]) else d[0], *d[1:]))),
    Mutant("MHA/split-without-transpose", heads, "heads cut by a reshape to (H, T, D) without a transpose",
           split(_without_swap), G + "reczoo/FuxiCTR/issues/30"),
    Mutant("MHA/split-entry-major", heads, "heads cut with the entries before the heads, column d H + h",
           split(_entry_major)),
    Mutant("MHA/split-head-major", heads, "heads cut with the heads before the parts, columns q k v of head 0 first",
           split(_head_major)),
    Mutant("MHA/order-kqv", heads, "heads with query and key taken in the order k, q, v", split(_ordered(1, 0, 2))),
    Mutant("MHA/order-qvk", heads, "heads with key and value taken in the order q, v, k", split(_ordered(0, 2, 1))),
    Mutant("MHA/order-vkq", heads, "heads with query and value taken in the order v, k, q", split(_ordered(2, 1, 0))),
    Mutant("MHA/no-projection-bias", heads, "heads without the bias of the projection", split(_cut, bias=0.0)),
    Mutant("MHA/back-split-without-transpose", heads, "heads whose gradient is put together without a transpose",
           _back_unswapped),
    Mutant("MHA/back-projection-bias-mean", heads, "heads with the gradient of the bias averaged instead of summed",
           gradients(heads, lambda d, a, dy: (d[0], d[1], d[2] / _rows(a[0])))),
    Mutant("MHA/merge-without-transpose", self_attention, "self-attention whose heads are joined without a transpose",
           block(merge=lambda a: a), G + "jsbaan/transformer-from-scratch/pull/6"),
    Mutant("MHA/merge-entry-major", self_attention, "self-attention whose heads are joined entry by entry",
           block(merge=lambda a: a.swap(-2, -3).swap(-1, -2))),
    Mutant("MHA/no-output-projection", self_attention, "self-attention without the output projection",
           block(out=lambda a, p: a)),
    Mutant("MHA/no-output-bias", self_attention, "self-attention without the bias of the output projection",
           block(out=lambda a, p: a @ p["Wo"])),
    Mutant("MHA/output-transposed", self_attention, "self-attention with the output projection transposed",
           block(out=_transposed_out)),
    Mutant("MHA/one-head", self_attention, "self-attention with one head of the full width",
           block(change=lambda heads: 1)),
    Mutant("EMB/next-row", embedding, "embedding of the row after the one asked for: ids counted from -1",
           _shifted_ids(1)),
    Mutant("EMB/previous-row", embedding, "embedding of the row before the one asked for: ids counted from 1",
           _shifted_ids(-1)),
    Mutant("EMB/times-root-width", embedding, "embedding multiplied by √C, as the Transformer of 2017 does",
           differentiable(lambda E, *, ids: E[ids] * E.shape[1] ** 0.5)),
    Mutant("EMB/times-index", embedding, "embedding of a word as its index times a row of the table (E7)",
           differentiable(_times_index)),
    Mutant("EMB/back-assigned", embedding, "embedding whose gradient is assigned, not added: repeated ids count once",
           _embedding_back(_assign), G + "PaddlePaddle/Paddle/pull/17705"),
    Mutant("EMB/back-averaged", embedding, "embedding whose gradient is averaged over the places of a word",
           _embedding_back(_average)),
    Mutant("EMB/back-first-row-frozen", embedding, "embedding with no gradient for row 0, taken for padding",
           _embedding_back(_without_first)),
]
