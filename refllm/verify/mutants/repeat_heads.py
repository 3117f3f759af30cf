"""Mistakes of key and value heads that several query heads share."""

from __future__ import annotations

from refllm.spec.repeat_heads import repeat_heads
from refllm.verify.mutants.bank import Edited, edit

HEADS = "return k[..., arange(G * groups) // groups, :, :], repeat_heads_back"
HEADS_BACK = "return sum(dy.reshape(*lead, G, groups, S, D), axis=-3, keepdims=False)"

# fmt: off
MUTANTS = [
    Edited("LONG/repeat-in-turn", "shared key heads in turn, 0, 1, 0, 1, instead of 0, 0, 1, 1",
           edit(repeat_heads, HEADS, "return k[..., arange(G * groups) % G, :, :], repeat_heads_back")),
    Edited("LONG/repeat-first", "shared key heads with the first one for all queries",
           edit(repeat_heads, HEADS, "return k[..., 0 * arange(G * groups), :, :], repeat_heads_back")),
    Edited("LONG/repeat-reversed", "shared key heads from the last to the first",
           edit(repeat_heads, HEADS, "return k[..., G - 1 - arange(G * groups) // groups, :, :], repeat_heads_back")),
    Edited("LONG/repeat-back-averaged", "shared key heads with the mean of their group's gradients, not the sum",
           edit(repeat_heads, HEADS_BACK, f"{HEADS_BACK} / groups")),
    Edited("LONG/repeat-back-first", "shared key heads with the gradient of the first query head alone",
           edit(repeat_heads, HEADS_BACK, "return dy[..., ::groups, :, :]")),
    Edited("LONG/repeat-back-in-turn", "shared key heads whose gradients are summed in turn",
           edit(repeat_heads, HEADS_BACK, "return sum(dy.reshape(*lead, groups, G, S, D), axis=-4, keepdims=False)")),
]
