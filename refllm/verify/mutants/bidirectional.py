"""Mistakes of recurrent layers in both directions: the way back, what is put side by side, the padding."""

from __future__ import annotations

from refllm.spec.recurrent_layer import bidirectional
from refllm.verify.mutants.bank import Edited, Edits, edit

AHEAD = 'ahead, forward_back = recurrent_layer(x, p["forward"], cell=cell, token_mask=token_mask)'
BEHIND = 'behind, backward_back = recurrent_layer(x[:, ::-1], p["backward"], cell=cell, token_mask=turned)'
JOINED = "return concatenate([ahead, behind[:, ::-1]], axis=-1), bidirectional_back"
DX = 'return dx_ahead + dx_behind[:, ::-1], {"forward": dforward, "backward": dbackward}'


def joined(new: str) -> Edits:
    return edit(bidirectional, JOINED, f"return {new}, bidirectional_back")


def behind(old: str, new: str) -> Edits:
    """Another way back."""
    return edit(bidirectional, BEHIND, BEHIND.replace(old, new))


# fmt: off
MUTANTS = [
    Edited("BIRNN/not-turned", "a bidirectional layer that goes forwards twice",
           edit(bidirectional, BEHIND, BEHIND.replace("x[:, ::-1]", "x").replace("turned", "token_mask"),
                JOINED, "return concatenate([ahead, behind], axis=-1), bidirectional_back")),
    Edited("BIRNN/states-left-turned", "a bidirectional layer whose states of the way back stay in reversed order",
           joined("concatenate([ahead, behind], axis=-1)")),
    Edited("BIRNN/backward-first", "a bidirectional layer with the way back in the first half",
           joined("concatenate([behind[:, ::-1], ahead], axis=-1)")),
    Edited("BIRNN/entry-by-entry", "a bidirectional layer whose two states are mixed entry by entry",
           joined("stack([ahead, behind[:, ::-1]], axis=-1).reshape(*ahead.shape[:-1], -1)")),
    Edited("BIRNN/summed", "a bidirectional layer with the sum of both states in both halves",
           joined("concatenate([ahead + behind[:, ::-1]] * 2, axis=-1)")),
    Edited("BIRNN/shared-weights", "a bidirectional layer with the weights of the way forward in both",
           behind('p["backward"]', 'p["forward"]')),
    Edited("BIRNN/weights-exchanged", "a bidirectional layer with the weights of the two ways exchanged",
           edit(bidirectional, AHEAD, AHEAD.replace('p["forward"]', 'p["backward"]'),
                BEHIND, BEHIND.replace('p["backward"]', 'p["forward"]'))),
    Edited("BIRNN/padding-read", "a bidirectional layer whose way back begins in the padding",
           behind("turned", "None"), "https://github.com/pytorch/pytorch/issues/1811"),
    Edited("BIRNN/padding-not-turned", "a bidirectional layer whose mask is not turned for the way back",
           behind("turned", "token_mask")),
    Edited("BIRNN/back-forward-alone", "a bidirectional layer whose input has the gradient of the way forward alone",
           edit(bidirectional, DX, DX.replace(" + dx_behind[:, ::-1]", ""))),
    Edited("BIRNN/back-not-turned", "a bidirectional layer that adds the gradient of the way back in reversed order",
           edit(bidirectional, DX, DX.replace("dx_behind[:, ::-1]", "dx_behind"))),
]
