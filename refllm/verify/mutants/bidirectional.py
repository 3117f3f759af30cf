"""Mistakes of recurrent layers in both directions: the way back, what is put side by side, the padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.recurrent import bidirectional, recurrent
from refllm.parameters import Tree, map_leaves
from refllm.verify.mutants.bank import Function, Mutant

_recurrent = recurrent  # refllm's, not what is planted


def _run(x: Array, p: Tree, cell: str, token_mask: Array | None) -> tuple[Array, Function]:
    """A layer from a state of zeros, right."""
    return _recurrent(x, p, cell=cell, token_mask=token_mask, state=None)


def _turn(x: Array) -> Array:
    return x[:, ::-1]


def both_ways(
    *,
    turn: Callable[[Array], Array] = _turn,
    back_turn: Callable[[Array], Array] = _turn,
    turn_mask: Callable[[Array], Array] = _turn,
    mask: Callable[[Array | None], Array | None] = lambda token_mask: token_mask,
    own: Callable[[Tree], tuple[Tree, Tree]] = lambda p: (p["forward"], p["backward"]),
    join: Callable[[Array, Array], Array] = lambda a, b: numpy.concatenate([a, b], axis=-1),
    cut: Callable[[Array, int], tuple[Array, Array]] = lambda d, N: (d[..., :N], d[..., N:]),
    dx: Callable[[Array, Array], Array] = lambda a, b: a + b,
) -> Function:
    """The bidirectional layer with a part exchanged; `back_turn` puts the states of the way back into their places."""

    def changed(x: Array, p: Tree, *, cell: str, token_mask: Array | None) -> tuple[Array, Function]:
        turned = None if token_mask is None else turn_mask(token_mask)
        first, second = own(p)
        ahead, back_ahead = _run(x, first, cell, token_mask)
        behind, back_behind = _run(turn(x), second, cell, mask(turned))
        N = ahead.shape[-1]

        def back(dy: Array) -> tuple[Array, Tree]:
            da, db = cut(dy, N)
            dx_ahead, dforward = back_ahead(da)
            dx_behind, dbackward = back_behind(back_turn(db))
            dp = {"forward": dforward, "backward": dbackward}
            if second is p["forward"]:
                dp = {
                    "forward": map_leaves(numpy.add, dforward, dbackward),
                    "backward": map_leaves(numpy.zeros_like, dbackward),
                }
            return dx(dx_ahead, turn(dx_behind)), dp

        return join(ahead, back_turn(behind)), back

    return changed


def _entry_by_entry(a: Array, b: Array) -> Array:
    return numpy.stack([a, b], axis=-1).reshape(*a.shape[:-1], -1)


_both_ways = both_ways()


def _exchanged_ways(x: Array, p: Tree, **how: Any) -> tuple[Array, Function]:
    y, back = _both_ways(x, {"forward": p["backward"], "backward": p["forward"]}, **how)

    def pulled(dy: Array) -> tuple[Array, Tree]:
        dx, dp = back(dy)
        return dx, {"forward": dp["backward"], "backward": dp["forward"]}

    return y, pulled


def _same(x: Array) -> Array:
    return x


# fmt: off
MUTANTS = [
    Mutant("BIRNN/not-turned", bidirectional, "a bidirectional layer that goes forwards twice",
           both_ways(turn=_same, back_turn=_same, turn_mask=_same)),
    Mutant("BIRNN/states-left-turned", bidirectional, "a bidirectional layer whose states of the way back stay in "
           "reversed order", both_ways(back_turn=_same)),
    Mutant("BIRNN/backward-first", bidirectional, "a bidirectional layer with the way back in the first half",
           both_ways(join=lambda a, b: numpy.concatenate([b, a], axis=-1), cut=lambda d, N: (d[..., N:], d[..., :N]))),
    Mutant("BIRNN/entry-by-entry", bidirectional, "a bidirectional layer whose two states are mixed entry by entry",
           both_ways(join=_entry_by_entry, cut=lambda d, N: (d[..., ::2], d[..., 1::2]))),
    Mutant("BIRNN/summed", bidirectional, "a bidirectional layer with the sum of both states in both halves",
           both_ways(join=lambda a, b: numpy.concatenate([a + b, a + b], axis=-1),
                     cut=lambda d, N: (d[..., :N] + d[..., N:],) * 2)),
    Mutant("BIRNN/shared-weights", bidirectional, "a bidirectional layer with the weights of the way forward in both",
           both_ways(own=lambda p: (p["forward"], p["forward"]))),
    Mutant("BIRNN/weights-exchanged", bidirectional, "a bidirectional layer with the weights of the two ways exchanged",
           _exchanged_ways),
    Mutant("BIRNN/padding-read", bidirectional, "a bidirectional layer whose way back begins in the padding",
           both_ways(mask=lambda token_mask: None), "https://github.com/pytorch/pytorch/issues/1811"),
    Mutant("BIRNN/padding-not-turned", bidirectional, "a bidirectional layer whose mask is not turned for the way back",
           both_ways(turn_mask=_same)),
    Mutant("BIRNN/back-forward-alone", bidirectional, "a bidirectional layer whose input has the gradient of the way "
           "forward alone", both_ways(dx=lambda a, b: a)),
    Mutant("BIRNN/back-not-turned", bidirectional, "a bidirectional layer that adds the gradient of the way back in "
           "reversed order", both_ways(dx=lambda a, b: a + _turn(b))),
]
