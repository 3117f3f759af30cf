"""Mistakes of reading a source: cross-attention, and what of it is kept while a text is written."""

from __future__ import annotations

from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.cross_attention import cross_attention
from refllm.parameters import Tree
from refllm.spec import cross_attention as text
from refllm.verify.mutants.bank import Edited, Edits, Patch, edit

Q, KV = 'q, q_back = affine(x, p, "q")', 'kv, kv_back = affine(memory, p, "kv")'
CUT = "k, v = kv[..., : q.shape[-1]], kv[..., q.shape[-1] :]"
SCALED = "q_cut = cut(q, heads) if scaled else unscaled(cut(q, heads))"
ATTENDED = (
    "a, attention_back = attention(q_cut, cut(k, heads), cut(v, heads), causal=False, attention_mask=attention_mask)"
)
OUT, GRADIENTS = 'y, out_back = affine(joined(a), p, "o")', "return dx, dmemory, {**dq_map, **dkv_map, **dout}"


def reading(*lines: str) -> Edits:
    return edit(text.cross_attention, *lines)


def masked(new: str) -> Edits:
    return reading(ATTENDED, ATTENDED.replace("attention_mask=attention_mask", f"attention_mask={new}"))


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
    Edited("XATT/queries-from-memory", "cross-attention with x and memory taken for each other (where they are alike)",
           reading(Q, f"x, memory = (memory, x) if x.shape == memory.shape else (x, memory)\n{Q}")),
    Edited("XATT/reads-itself", "cross-attention with keys and values from x: self-attention",
           reading(KV, 'kv, kv_back = affine(x, p, "kv")', ATTENDED,
                   "if attention_mask is not None and attention_mask.shape[-1] != x.shape[-2]:\n"
                   f"    attention_mask = None\n{ATTENDED}")),
    Edited("XATT/values-from-decoder", "cross-attention with values from x (where it is as long)",
           reading(CUT, 'from_x = affine(x, p, "kv")[0] if x.shape == memory.shape else kv\n'
                   "k, v = kv[..., : q.shape[-1]], from_x[..., q.shape[-1] :]")),
    Edited("XATT/keys-values-exchanged", "cross-attention with keys and values exchanged",
           reading(CUT, CUT.replace("k, v", "v, k"))),
    Edited("XATT/mask-ignored", "cross-attention that reads the padding of the source", masked("None")),
    Edited("XATT/mask-inverted", "cross-attention that reads the padding of the source alone",
           masked("None if attention_mask is None else ~attention_mask")),
    Edited("XATT/causal", "cross-attention with a causal mask",
           reading(ATTENDED, "past = arange(memory.shape[-2]) <= arange(x.shape[-2])[:, None]\n"
                   "attention_mask = past if attention_mask is None else past & attention_mask\n" + ATTENDED)),
    Edited("XATT/always-scaled", "cross-attention that divides by √d_k where it should not",
           reading(SCALED, "q_cut = cut(q, heads)")),
    Edited("XATT/never-scaled", "cross-attention that does not divide by √d_k",
           reading(SCALED, "q_cut = unscaled(cut(q, heads))")),
    Edited("XATT/scaled-by-model-width", "cross-attention divided by √(C / H), which is not d_k where heads have a "
           "width "
           "of their own",
           reading(SCALED, "q_cut = unscaled(cut(q, heads)) / (sqrt(x.shape[-1] / heads) if scaled else 1)")),
    Edited("XATT/no-memory-bias", "cross-attention without the bias of keys and values",
           reading(KV, 'kv = memory @ p["Wkv"]')),
    Edited("XATT/no-output-bias", "cross-attention without the bias of its output",
           reading(OUT, 'y = joined(a) @ p["Wo"]')),
    Edited("XATT/back-memory-detached", "cross-attention with no gradient to the memory",
           reading(GRADIENTS, GRADIENTS.replace("dmemory,", "0 * dmemory,"))),
    Edited("XATT/back-queries-detached", "cross-attention with no gradient to the decoder",
           reading(GRADIENTS, GRADIENTS.replace("dx,", "0 * dx,"))),
    Patch("GEN/memory-made-anew", cross_attention, "translating with keys and values of the decoder's last states",
           _keys_of_decoder),
    Patch("GEN/memory-of-other-row", cross_attention, "translating with the source of another row from the second "
           "step on", _keys_of_last),
]
