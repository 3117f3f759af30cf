"""Mistakes of grouped attention, and of the keys that a cache holds for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.grouped_attention import ROTATIONS
from refllm.blocks.grouped_attention import grouped_attention as block
from refllm.parameters import Tree
from refllm.spec.self_attention import grouped_attention
from refllm.verify.mutants.bank import Edited, Edits, Function, Patch, edit

Q = "q_turned, q_turn_back = maybe_turned(cut(q, heads), rotation, positions=own, base=base)"
K = "k_turned, k_turn_back = maybe_turned(cut(k, kv_heads), rotation, positions=own, base=base)"
K_REPEATED = "k_repeated, k_repeat_back = repeat_heads(k_turned, groups=groups)"
V_REPEATED = "v_repeated, v_repeat_back = repeat_heads(cut(v, kv_heads), groups=groups)"
ATTENDED = (
    "a, attention_back = "
    "maybe_biased(q_turned, k_repeated, v_repeated, r, causal=causal, attention_mask=attention_mask)"
)
OUT = 'y, out_back = matmul(joined(a), p["Wo"])'
WHOLE = "maybe_turned({}, rotation, positions=positions, base=base)[0]"
UNSWAPPED = "{0}.reshape(*{0}.shape[:-2], {1}, {0}.shape[-2], -1)"


def attended(q: str) -> Edits:
    """Other queries."""
    return edit(grouped_attention, ATTENDED, ATTENDED.replace("q_turned", q))


class _Held:
    """A cache that gives its keys and values as they are read by mistake: turned(keys, the positions of new tokens)."""

    def __init__(self, cache: Any, turned: Callable[[Array], Array]) -> None:
        self.cache, self.turned = cache, turned

    def extend(self, k: Array, v: Array) -> tuple[Array, Array]:
        keys, values = self.cache.extend(k, v)
        return self.turned(keys), values


def held(read: Callable[[Array, int], Array] | None, *, stored_turned: bool) -> Function:
    """The block whose cache holds keys that were turned, or not, and turns them when they are read by positions
    read(those of the new tokens, number of keys). Without a cache it is right."""

    def changed(
        x: Array,
        r: Array | None,
        p: Tree,
        *,
        rotation: str | None,
        positions: Array,
        base: float,
        cache: Any,
        **how: Any,
    ) -> tuple[Array, Function]:
        own = positions if positions.ndim < 2 else positions[:, None]

        def turned(k: Array, at: Array) -> Array:
            y: Array = k if rotation is None else ROTATIONS[rotation](k, positions=at, base=base)[0]
            return y

        def read_from(keys: Array) -> Array:
            n = own.shape[-1]
            if not stored_turned:  # what the block just turned is turned back where it lies
                keys[..., -n:, :] = turned(keys[..., -n:, :], -own)
            return keys if read is None else turned(keys, read(own, keys.shape[-2]))

        store = None if cache is None else _Held(cache, read_from)
        return block(x, r, p, rotation=rotation, positions=positions, base=base, cache=store, **how)

    return changed


# fmt: off
MUTANTS = [
    Edited("LONG/grouped-values-turned", "grouped attention that turns the values too",
           edit(grouped_attention, V_REPEATED,
                "v_turned, _ = maybe_turned(cut(v, kv_heads), rotation, positions=own, base=base)\n"
                "v_repeated, v_repeat_back = repeat_heads(v_turned, groups=groups)")),
    Edited("LONG/grouped-keys-not-turned", "grouped attention that turns the queries alone",
           edit(grouped_attention, K, "k_turned = cut(k, kv_heads)")),
    Edited("LONG/grouped-queries-not-turned", "grouped attention that turns the keys alone",
           edit(grouped_attention, Q, "q_turned = cut(q, heads)")),
    Edited("LONG/grouped-turned-before-the-cut", "grouped attention that turns the width of all heads as one",
           edit(grouped_attention, Q, f"q_turned = cut({WHOLE.format('q')}, heads)",
                K, f"k_turned = cut({WHOLE.format('k')}, kv_heads)")),
    Edited("LONG/grouped-values-in-turn", "grouped attention whose query heads take key heads in order and value heads "
           "in turn", edit(grouped_attention, V_REPEATED,
                           "v_repeated = cut(v, kv_heads)[..., arange(heads) % kv_heads, :, :]")),
    Edited("LONG/grouped-in-turn", "grouped attention whose query heads take the key heads in turn",
           edit(grouped_attention, K_REPEATED, "k_repeated = k_turned[..., arange(heads) % kv_heads, :, :]",
                V_REPEATED, "v_repeated = cut(v, kv_heads)[..., arange(heads) % kv_heads, :, :]")),
    Edited("LONG/grouped-scale-model-width", "grouped attention scaled by the width of the model",
           attended("unscaled(q_turned) / sqrt(x.shape[-1])")),
    Edited("LONG/grouped-no-scale", "grouped attention without the 1/√D scale", attended("unscaled(q_turned)")),
    Edited("LONG/grouped-split-without-transpose", "grouped attention whose heads are cut by a reshape without a "
           "transpose",
           edit(grouped_attention, Q, Q.replace("cut(q, heads)", UNSWAPPED.format("q", "heads")),
                K, K.replace("cut(k, kv_heads)", UNSWAPPED.format("k", "kv_heads")),
                V_REPEATED, V_REPEATED.replace("cut(v, kv_heads)", UNSWAPPED.format("v", "kv_heads")))),
    Edited("LONG/grouped-merge-without-transpose", "grouped attention whose heads are joined without a transpose",
           edit(grouped_attention, OUT, OUT.replace("joined(a)", "a.reshape(joined(a).shape)"))),
    Patch("GEN/llama-keys-turned-again", block, "a cache whose keys are turned again when they are read",
          held(lambda own, S: numpy.arange(S), stored_turned=True)),
    Patch("GEN/llama-keys-never-turned", block, "a cache whose keys are never turned", held(None, stored_turned=False)),
    Patch("GEN/llama-keys-turned-by-newest", block, "a cache whose keys are all turned by the newest position",
          held(lambda own, S: own[..., -1:], stored_turned=False)),
    Patch("GEN/llama-keys-turned-from-newest", block, "a cache whose keys are turned by positions that count from the "
          "newest tokens", held(lambda own, S: own[..., :1] + numpy.arange(S), stored_turned=False)),
]
