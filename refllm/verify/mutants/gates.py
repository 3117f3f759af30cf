"""Mistakes of the gate of a feed-forward layer: SiLU, and the product of two arrays."""

from __future__ import annotations

from refllm.spec.activation import multiply, silu
from refllm.verify.mutants.bank import Edited, edit

S, SILU, SILU_BACK = "s = sigmoid(x)", "return x * s, silu_back", "return dy * (s + x * s * (1 - s))"
PRODUCT, FACTORS = "return a * b, multiply_back", "return dy * b, dy * a"

# fmt: off
MUTANTS = [
    Edited("FFN/silu-is-sigmoid", "the sigmoid instead of SiLU", edit(silu, SILU, "return s, silu_back")),
    Edited("FFN/silu-is-gelu", "GELU instead of SiLU", edit(silu, SILU, "return gelu_erf(x)[0], silu_back")),
    Edited("FFN/silu-is-gelu-tanh", "GELU's tanh form instead of SiLU",
           edit(silu, SILU, "return gelu_tanh(x)[0], silu_back")),
    Edited("FFN/silu-is-relu", "ReLU instead of SiLU", edit(silu, SILU, "return relu(x)[0], silu_back")),
    Edited("FFN/silu-is-quick-gelu", "x sigmoid(1.702 x) instead of SiLU", edit(silu, S, "s = sigmoid(1.702 * x)")),
    Edited("FFN/silu-back-gate-constant", "SiLU whose gradient is sigmoid(x)", edit(silu, SILU_BACK, "return dy * s")),
    Edited("FFN/silu-back-of-sigmoid", "SiLU whose gradient is that of the sigmoid times x",
           edit(silu, SILU_BACK, "return dy * (x * s * (1 - s))")),
    Edited("FFN/multiply-added", "the gate added instead of multiplied",
           edit(multiply, PRODUCT, "return a + b, multiply_back")),
    Edited("FFN/multiply-first-alone", "the gate left out", edit(multiply, PRODUCT, "return a, multiply_back")),
    Edited("FFN/multiply-back-swapped", "a product with the gradients of its factors exchanged",
           edit(multiply, FACTORS, "return dy * a, dy * b")),
    Edited("FFN/multiply-back-one-side", "a product with no gradient for its second factor",
           edit(multiply, FACTORS, "return dy * b, 0 * dy")),
]
