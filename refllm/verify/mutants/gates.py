"""Mistakes of RMS norm, of the gate, and of heads that share keys."""

from __future__ import annotations

from refllm.spec.activation import multiply, silu
from refllm.spec.layer_norm import rms_norm
from refllm.spec.repeat_heads import repeat_heads
from refllm.verify.mutants.bank import Edited, Edits, edit

R, Y = "r = 1 / sqrt(mean(x * x) + eps)", "return g * n, rms_norm_back"
RMS_BACK = "return r * (dn - n * mean(dn * n)), rows(dy * n)"
S, SILU, SILU_BACK = "s = sigmoid(x)", "return x * s, silu_back", "return dy * (s + x * s * (1 - s))"
PRODUCT, FACTORS = "return a * b, multiply_back", "return dy * b, dy * a"
HEADS = "return k[..., arange(G * groups) // groups, :, :], repeat_heads_back"
HEADS_BACK = "return sum(dy.reshape(*lead, G, groups, S, D), axis=-3, keepdims=False)"


def root(new: str) -> Edits:
    return edit(rms_norm, R, f"r = 1 / {new}")


# fmt: off
MUTANTS = [
    Edited("T5-REL/rms-centred", "RMS norm with the mean subtracted: layer norm",
           edit(rms_norm, R, f"x = x - mean(x)\n{R}")),
    Edited("T5-REL/rms-variance", "RMS norm divided by the deviation: the mean subtracted in the root alone",
           root("sqrt(mean((x - mean(x)) * (x - mean(x))) + eps)")),
    Edited("T5-REL/rms-eps-outside", "RMS norm with eps added outside the root", root("(mean(x * x) ** 0.5 + eps)")),
    Edited("T5-REL/rms-eps-largest", "RMS norm with eps as the least root, not added",
           root("where(mean(x * x) > eps * eps, sqrt(mean(x * x)), eps)")),
    Edited("T5-REL/rms-no-eps", "RMS norm without eps", root("sqrt(mean(x * x))")),
    Edited("T5-REL/rms-eps-fixed", "RMS norm with eps fixed at 1e-5", root("sqrt(mean(x * x) + 1e-5)")),
    Edited("T5-REL/rms-eps-fixed-least", "RMS norm with eps fixed at 1e-6", root("sqrt(mean(x * x) + 1e-6)"),
           "https://github.com/ggml-org/llama.cpp/issues/2373"),
    Edited("T5-REL/rms-not-root", "RMS norm divided by the mean square instead of its root",
           root("(mean(x * x) + eps)")),
    Edited("T5-REL/rms-sum", "RMS norm with the sum of the squares instead of their mean: the length",
           root("sqrt(sum(x * x) + eps)")),
    Edited("T5-REL/rms-unbiased", "RMS norm with the sum of the squares divided by C - 1",
           root("sqrt(sum(x * x) / max(1, x.shape[-1] - 1) + eps)")),
    Edited("T5-REL/rms-over-tokens", "RMS norm over the tokens instead of the features",
           root("sqrt(down(mean, x * x) + eps)")),
    Edited("T5-REL/rms-over-everything", "RMS norm over all entries at once",
           root("sqrt(total(x * x) / x.size + eps)")),
    Edited("T5-REL/rms-no-gain", "RMS norm without its gain", edit(rms_norm, Y, "return n, rms_norm_back")),
    Edited("T5-REL/rms-gain-plus-one", "RMS norm with the gain stored less 1: (1 + g) n, as in Gemma",
           edit(rms_norm, Y, "return (1 + g) * n, rms_norm_back")),
    Edited("T5-REL/rms-gain-added", "RMS norm with the gain added instead of multiplied",
           edit(rms_norm, Y, "return g + n, rms_norm_back")),
    Edited("T5-REL/rms-back-root-constant", "RMS norm whose gradient takes the root for a constant",
           edit(rms_norm, RMS_BACK, "return r * dn, rows(dy * n)")),
    Edited("T5-REL/rms-back-without-gain", "RMS norm whose dx leaves out the gain",
           edit(rms_norm, "dn = dy * g", "dn = dy")),
    Edited("T5-REL/rms-back-averaged", "RMS norm with dg averaged over the rows instead of summed",
           edit(rms_norm, RMS_BACK, "return r * (dn - n * mean(dn * n)), rows(dy * n) / len(flat(dy))")),
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
