"""The position-wise feed-forward layer with a gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeAlias

from refllm.backend import Array
from refllm.blocks.affine import affine, affine_shapes
from refllm.blocks.feed_forward import ACTIVATIONS
from refllm.differentiable import differentiable
from refllm.kinds import OneOf
from refllm.ops.activation import silu
from refllm.ops.multiply import multiply
from refllm.parameters import Tree

GATES = {**ACTIVATIONS, "silu": silu}
Gate: TypeAlias = Annotated[str, OneOf(GATES)]


def gated_feed_forward_shapes(width: int, hidden: int, *, biases: bool = False) -> Tree:
    return affine_shapes({"g": (width, hidden), "1": (width, hidden), "2": (hidden, width)}, biases=biases)


@differentiable
def gated_feed_forward(x: Array, p: Tree, *, activation: Gate) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """FFN, gate: y = (f(x Wg) * (x W1)) W2,   f = silu (SwiGLU), gelu_tanh or gelu_erf (GEGLU), relu (ReGLU)

    Source:  Shazeer 2020 (arXiv:2002.05202) sec. 2, equation 6: no biases. Touvron et al. 2023 (arXiv:2302.13971) sec.
             2.2 for silu in Llama; T5 1.1 takes gelu_tanh. Biases bg, b1 and b2 are added where p has them.
    Shapes:  x (..., C); Wg (C, F); bg (F,), or None; W1 (C, F); b1 (F,), or None; W2 (F, C); b2 (C,), or None
             -> y (..., C)

    >>> p = {"Wg": ones((1, 1)), "W1": ones((1, 1)), "W2": ones((1, 1))}
    >>> gated_feed_forward(array([[3.0], [-3.0]]), p, activation="relu")[0].tolist()  # relu(x) x
    [[9.0], [0.0]]
    """
    g, back_g = affine(x, p, name="g")
    f, back_f = GATES[activation](g)
    h, back_h = affine(x, p, name="1")
    a, back_a = multiply(f, h)
    y, back_y = affine(a, p, name="2")

    def back(dy: Array) -> tuple[Array, Tree]:
        da, dp2 = back_y(dy)
        df, dh = back_a(da)
        dx, dp1 = back_h(dh)
        dx_gate, dpg = back_g(back_f(df))
        dx += dx_gate
        return dx, {**dpg, **dp1, **dp2}

    return y, back
