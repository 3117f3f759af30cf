"""The position-wise feed-forward layer with a gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeAlias

from refllm.backend import Array
from refllm.blocks.feed_forward import ACTIVATIONS
from refllm.differentiable import differentiable
from refllm.kinds import OneOf
from refllm.ops.activation import silu
from refllm.ops.linear import matmul
from refllm.ops.multiply import multiply
from refllm.parameters import Tree

GATES = {**ACTIVATIONS, "silu": silu}
Gate: TypeAlias = Annotated[str, OneOf(GATES)]


def gated_feed_forward_shapes(width: int, hidden: int) -> Tree:
    return {"Wg": (width, hidden), "W1": (width, hidden), "W2": (hidden, width)}


@differentiable
def gated_feed_forward(x: Array, p: Tree, *, activation: Gate) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """FFN, gate: y = (f(x Wg) * (x W1)) W2,   f = silu (SwiGLU), gelu_tanh or gelu_erf (GEGLU), relu (ReGLU)

    Source:  Shazeer 2020 (arXiv:2002.05202) sec. 2, equation 6: no biases. Touvron et al. 2023 (arXiv:2302.13971) sec.
             2.2 for silu in Llama; T5 1.1 takes gelu_tanh.
    Shapes:  x (..., C); Wg (C, F); W1 (C, F); W2 (F, C) -> y (..., C)
    """
    g, back_g = matmul(x, p["Wg"])
    f, back_f = GATES[activation](g)
    h, back_h = matmul(x, p["W1"])
    a, back_a = multiply(f, h)
    y, back_y = matmul(a, p["W2"])

    def back(dy: Array) -> tuple[Array, Tree]:
        da, dW2 = back_y(dy)
        df, dh = back_a(da)
        dx, dW1 = back_h(dh)
        dx_gate, dWg = back_g(back_f(df))
        dx += dx_gate
        return dx, {"Wg": dWg, "W1": dW1, "W2": dW2}

    return y, back
