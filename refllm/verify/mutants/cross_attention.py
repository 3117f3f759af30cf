"""Mistakes of reading a source: cross-attention, and what of it is kept while a text is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.cross_attention import cross_attention
from refllm.parameters import Tree
from refllm.verify.mutants import attention as mistakes
from refllm.verify.mutants.autodiff import Node, differentiable
from refllm.verify.mutants.bank import Function, Mutant


def reading(
    *,
    queries: Callable[[Node, Node], Node] = lambda x, memory: x,
    keys: Callable[[Node, Node], Node] = lambda x, memory: memory,
    values: Callable[[Node, Node], Node] = lambda x, memory: memory,
    order: Callable[[Node, Node], tuple[Node, Node]] = lambda k, v: (k, v),
    seen: Callable[[Array], Array] = lambda attention_mask: attention_mask,
    causal: bool = False,
    scale: Callable[[int, int, int], float] = lambda D, H, C: D**-0.5,
    scaled_as: Callable[[bool], bool] = lambda scaled: scaled,
    out_bias: float = 1.0,
    kv_bias: float = 1.0,
) -> Function:
    """Cross-attention with a part exchanged; right where there is a cache, which a mistake of the block needs not."""

    @differentiable
    def changed(
        x: Node, memory: Node, p: Tree, *, heads: int, scaled: bool, attention_mask: Array | None, cache: Any
    ) -> Node:
        def bias(name: str, factor: float = 1.0) -> Any:
            return p[name] * factor if name in p else 0.0

        def cut(y: Node) -> Node:
            return y.reshape(*y.shape[:-1], heads, y.shape[-1] // heads).swap(-2, -3)

        q = cut(queries(x, memory) @ p["Wq"] + bias("bq"))
        inner = p["Wkv"].shape[-1] // 2
        k = (keys(x, memory) @ p["Wkv"] + bias("bkv", kv_bias))[..., :inner]
        v = (values(x, memory) @ p["Wkv"] + bias("bkv", kv_bias))[..., inner:]
        k, v = order(cut(k), cut(v))
        s = q @ k.swap() * (scale(q.shape[-1], heads, x.shape[-1]) if scaled_as(scaled) else 1.0)
        mask = None if attention_mask is None else seen(attention_mask)
        T, S = s.shape[-2:]
        may = numpy.ones((T, S), bool) if mask is None or mask.shape[-1] != S else mask
        may = may & (numpy.arange(S) <= numpy.arange(T)[:, None]) if causal else may
        a = mistakes.weights(mistakes.masked(s, numpy.broadcast_to(may, s.shape))) @ v
        y = a.swap(-2, -3)
        return y.reshape(*y.shape[:-2], heads * y.shape[-1]) @ p["Wo"] + bias("bo", out_bias)

    def block(x: Array, memory: Array, p: Tree, *, cache: Any, **how: Any) -> Any:
        if cache is not None:
            return cross_attention(x, memory, p, cache=cache, **how)
        return changed(x, memory, p, cache=None, **how)

    return block


def _if_alike(x: Node, memory: Node) -> tuple[Node, Node]:
    return (memory, x) if x.shape == memory.shape else (x, memory)


def _reading_gradient(change: Callable[[Array, Array], tuple[Array, Array]]) -> Function:
    """Cross-attention with changed gradients of x and of the memory."""

    def changed(x: Array, memory: Array, p: Tree, **how: Any) -> Any:
        y, back = cross_attention(x, memory, p, **how)

        def pulled(dy: Array) -> Any:
            dx, dmemory, dp = back(dy)
            return *change(dx, dmemory), dp

        return y, pulled

    return changed


def _keys_of_decoder(x: Array, memory: Array, p: Tree, *, cache: Any, **how: Any) -> Any:
    """Keys and values are made anew at every step of writing, of what the decoder just computed."""
    if cache is None:
        return cross_attention(x, memory, p, cache=None, **how)
    first = cache.held is None
    cache.held = (memory, memory)
    return cross_attention(
        x, memory if first else x, p, cache=None, **{**how, **({} if first else {"attention_mask": None})}
    )


def _keys_of_last(x: Array, memory: Array, p: Tree, *, cache: Any, **how: Any) -> Any:
    """Every row reads the source of the next one from the second step on."""
    if cache is not None and cache.held is not None:
        k, v = cache.held
        held, cache.held = cache.held, (numpy.roll(k, 1, axis=0), numpy.roll(v, 1, axis=0))
        y = cross_attention(x, memory, p, cache=cache, **how)
        cache.held = held
        return y
    return cross_attention(x, memory, p, cache=cache, **how)


# fmt: off
MUTANTS = [
    Mutant("XATT/queries-from-memory", cross_attention, "cross-attention with x and memory taken for each other (where "
           "they are alike)", reading(queries=lambda x, m: _if_alike(x, m)[0], keys=lambda x, m: _if_alike(x, m)[1],
                                      values=lambda x, m: _if_alike(x, m)[1])),
    Mutant("XATT/reads-itself", cross_attention, "cross-attention with keys and values from x: self-attention",
           reading(keys=lambda x, m: x, values=lambda x, m: x)),
    Mutant("XATT/values-from-decoder", cross_attention, "cross-attention with values from x (where it is as long)",
           reading(values=lambda x, m: x if x.shape == m.shape else m)),
    Mutant("XATT/keys-values-exchanged", cross_attention, "cross-attention with keys and values exchanged",
           reading(order=lambda k, v: (v, k))),
    Mutant("XATT/mask-ignored", cross_attention, "cross-attention that reads the padding of the source",
           reading(seen=numpy.ones_like)),
    Mutant("XATT/mask-inverted", cross_attention, "cross-attention that reads the padding of the source alone",
           reading(seen=numpy.invert)),
    Mutant("XATT/causal", cross_attention, "cross-attention with a causal mask", reading(causal=True)),
    Mutant("XATT/always-scaled", cross_attention, "cross-attention that divides by √d_k where it should not",
           reading(scaled_as=lambda scaled: True)),
    Mutant("XATT/never-scaled", cross_attention, "cross-attention that does not divide by √d_k",
           reading(scaled_as=lambda scaled: False)),
    Mutant("XATT/scaled-by-model-width", cross_attention, "cross-attention divided by √(C / H), which is not d_k where "
           "heads have a width of their own", reading(scale=lambda D, H, C: (C / H) ** -0.5)),
    Mutant("XATT/no-memory-bias", cross_attention, "cross-attention without the bias of keys and values",
           reading(kv_bias=0.0)),
    Mutant("XATT/no-output-bias", cross_attention, "cross-attention without the bias of its output",
           reading(out_bias=0.0)),
    Mutant("XATT/back-memory-detached", cross_attention, "cross-attention with no gradient to the memory",
           _reading_gradient(lambda dx, dmemory: (dx, 0 * dmemory))),
    Mutant("XATT/back-queries-detached", cross_attention, "cross-attention with no gradient to the decoder",
           _reading_gradient(lambda dx, dmemory: (0 * dx, dmemory))),
    Mutant("GEN/memory-made-anew", cross_attention, "translating with keys and values of the decoder's last states",
           _keys_of_decoder),
    Mutant("GEN/memory-of-other-row", cross_attention, "translating with the source of another row from the second "
           "step on", _keys_of_last),
]
