"""Changes that look like mistakes and are none: no case can tell them from the original, and here is why."""

from __future__ import annotations

from typing import Any

from refllm.generation.generate import generate
from refllm.parameters import Tree
from refllm.spec.activation import gelu_tanh
from refllm.spec.attention import attention
from refllm.spec.cross_entropy import cross_entropy
from refllm.spec.feed_forward import feed_forward
from refllm.spec.layer_norm import layer_norm
from refllm.spec.sampling import choose
from refllm.spec.self_attention import self_attention
from refllm.spec.softmax import log_softmax, softmax
from refllm.spec.update import _adam, warmup_cosine
from refllm.verify.mutants.bank import Edited, Equivalent, Patch, edit


def _other_cache(p: Tree, *, cache: bool, **how: Any) -> Any:
    return generate(p, cache=not cache, **how)


# fmt: off
EQUIVALENT = [
    Equivalent(Edited("MHA/no-key-bias", "self-attention without the bias of the keys", edit(
        self_attention, '(q, k, v), projected_back = projected(x, p["Wqkv"], p["bqkv"], heads=heads, parts=3)',
        'b = stack([n * p["bqkv"].reshape(3, -1)[i] for i, n in enumerate((1, 0, 1))], axis=0).reshape(-1)\n'
        '(q, k, v), projected_back = projected(x, p["Wqkv"], b, heads=heads, parts=3)')),
        "The key bias adds q_t · b to every score of query t, and a softmax does not change when all its arguments "
        "shift by one number; so value and gradients stay, and the bias's own gradient is 0."),
    Equivalent(Edited("MHA/heads-permuted", "self-attention with its heads in another order", edit(
        self_attention, 'y, out_back = linear(joined(a), p["Wo"], p["bo"])',
        'Wo = p["Wo"].reshape(heads, -1, x.shape[-1])[::-1].reshape(p["Wo"].shape)\n'
        'y, out_back = linear(joined(a[..., ::-1, :, :]), Wo, p["bo"])')),
        "Heads do not touch each other; y = Σ_h a_h Wo_h is a sum over heads, in any order."),
    Equivalent(Edited("ATT/keys-permuted", "attention over the keys in another order", edit(
        attention, "P, softmax_back = softmax(s)", "P, softmax_back = softmax(s[..., ::-1])",
        "y = P @ v", "y = P @ v[..., ::-1, :]")),
        "Σ_s P_s v_s is a sum over the keys; with keys, values and masks permuted alike its terms stay."),
    Equivalent(Edited("ATT/scale-on-keys", "attention with its scale on the keys, or its root on both", edit(
        attention, "s = q @ swap(k) / sqrt(D)", "s = q / sqrt(sqrt(D)) @ swap(k / sqrt(sqrt(D)))")),
        "(a q) · (b k) = a b (q · k), and a b = 1/√d_k. The same holds for a scale folded into Wq or Wk."),
    Equivalent(Edited("ATT/back-masked-again", "attention whose pullback masks the gradient of the scores", edit(
        attention, "ds = softmax_back(dP)", "ds = softmax_back(where(P == 0, 0, dP))")),
        "ds = P (dP - Σ P dP), and P = 0 at every forbidden key already."),
    Equivalent(Edited("SMX/other-shift", "softmax shifted by the maximum plus 1", edit(
        softmax, "e = exp(x - top(x))", "e = exp(x - top(x) - 1)")),
        "exp(x - c) / Σ exp(x - c) = exp(x) / Σ exp(x) for every c."),
    Equivalent(Edited("SMX/shift-differentiated", "softmax with a gradient through the maximum that it subtracts", edit(
        softmax, "e = exp(x - top(x))", "highest = x == top(x)\n"
        "e = exp(x - sum(where(highest, x, 0)) / highest.sum(axis=-1, keepdims=True).clip(1))")),
        "y does not depend on the shift, so the gradient by way of the shift is dy · ∂y/∂c = 0."),
    Equivalent(Edited("SMX/log-twice", "log-softmax applied twice", edit(
        log_softmax, "return y, log_softmax_back", "return right(log_softmax)(y)[0], log_softmax_back")),
        "Σ exp(log p) = 1, so the second subtracts log 1 = 0."),
    Equivalent(Edited("CE/logits-shifted", "cross-entropy of logits shifted by a number per row", edit(
        cross_entropy, "log_p, _ = log_softmax(logits)", "log_p, _ = log_softmax(logits - top(logits))")),
        "log Σ exp(z + c) - (z_t + c) = log Σ exp z - z_t; the rows of dz sum to 0, so dc = 0 too."),
    Equivalent(Edited("LN/centred-first", "layer norm of rows that were centred before", edit(
        layer_norm, "c = x - mean(x)", "x = x - mean(x)\nc = x - mean(x)")),
        "Mean and deviation of x - c with one c per row are mean(x) - c and the same; dx sums to 0 in a row."),
    Equivalent(Edited("FFN/hidden-permuted", "feed-forward with its hidden units in another order", edit(
        feed_forward, 'h, first_back = affine(x, p, "1")', 'h, first_back = affine(x, p, "1")\nh = h[..., ::-1]',
        'y, second_back = affine(a, p, "2")', 'y, second_back = affine(a, {**p, "W2": p["W2"][::-1]}, "2")')),
        "y = Σ_j f(x · W1_j + b1_j) W2_j is a sum over the hidden units."),
    Equivalent(Edited("FFN/gelu-tanh-by-sigmoid", "GELU's tanh form as x sigmoid(2u)", edit(
        gelu_tanh, "s = (1 + t) / 2", "s = sigmoid(2 * k * (x + x * x * x * 44715 / 10**6))")),
        "(1 + tanh u) / 2 = 1 / (1 + exp(-2u))."),
    Equivalent(Edited("ADAM/corrections-folded", "Adam with its corrections folded into the rate and eps", edit(
        _adam, "return corrected_m / (sqrt(corrected_v) + eps), m, v",
        "a, b = 1 - power(beta1, step), sqrt(1 - power(beta2, step))\nreturn b / a * m / (sqrt(v) + b * eps), m, v")),
        "m̂ / (√v̂ + eps) = (b / a) m' / (√v' + b eps) with a = 1 - beta1^t and b = √(1 - beta2^t)."),
    Equivalent(Edited("ADAMW/half-angle", "a schedule by the sine of half the angle", edit(
        warmup_cosine, "return min_lr + (max_lr - min_lr) * (1 + cos(pi() * ratio(step - warmup, total - warmup))) / 2",
        "return min_lr + (max_lr - min_lr) * (1 - sin(pi() / 2 * ratio(step - warmup, total - warmup)) ** 2)")),
        "(1 + cos a) / 2 = 1 - sin²(a / 2)."),
    Equivalent(Edited("GEN/drawn-unnormalised", "sampling against u times the sum, not divided by it", edit(
        choose, "kept, p = kept[: n + 1], p[: n + 1] / total(p[: n + 1])", "kept, p = kept[: n + 1], p[: n + 1]",
        "return kept[by_number[first(running(p[by_number]), lambda s: s > uniform)]]",
        "return kept[by_number[first(running(p[by_number]), lambda s: s > uniform * total(p))]]")),
        "Σ p > u S if and only if Σ p / S > u, since S > 0."),
    Equivalent(Patch("GEN/other-cache", generate, "generation with a cache if none is asked for, without if one is",
                     _other_cache),
               "Under the causal mask a key and a value depend on no later token, so those stored are those that would "
               "be computed again."),
]
