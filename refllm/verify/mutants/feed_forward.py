"""Mistakes of the activations, of the layer around them, and of dropout."""

from __future__ import annotations

from refllm.spec.activation import dropout, gelu_erf, gelu_tanh, relu
from refllm.spec.feed_forward import feed_forward
from refllm.verify.mutants.bank import Edited, Edits, edit

RELU, RELU_BACK = "return where(x > 0, x, 0), relu_back", "return where(x > 0, dy, 0)"
K, T, S = "k = sqrt(2 / pi())", "t = _tanh(k * (x + x * x * x * 44715 / 10**6))", "s = (1 + t) / 2"
TANH, TANH_BACK = "return x * s, gelu_tanh_back", "return dy * (s + x * (1 - t * t) / 2 * du)"
PHI = "Phi = erfc(-x / sqrt(2)) / 2"
ERF, ERF_BACK = "return x * Phi, gelu_erf_back", "return dy * (Phi + x * phi)"
FIRST, SECOND = 'h, first_back = affine(x, p, "1")', 'y, second_back = affine(a, p, "2")'
ACTIVATED, WHOLE = "a, activation_back = activated(h, activation=activation)", "return y, feed_forward_back"
DROP, DROP_BACK = (
    "return where(dropout_mask, x / (1 - rate), 0), dropout_back",
    "return where(dropout_mask, dy / (1 - rate), 0)",
)


def rectified(value: str) -> Edits:
    return edit(relu, RELU, f"return {value}, relu_back")


def dropped(value: str) -> Edits:
    return edit(dropout, DROP, f"return {value}, dropout_back")


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Edited("FFN/relu-leaky", "relu that leaks: 0.01 x below zero", rectified("where(x > 0, x, 0.01 * x)")),
    Edited("FFN/relu-capped", "relu capped at 6", rectified("where(x < 6, where(x > 0, x, 0), 6)")),
    Edited("FFN/relu-absolute", "relu that returns |x|", rectified("where(x > 0, x, -x)")),
    Edited("FFN/relu-turned", "relu that keeps what is below zero", rectified("where(x < 0, x, 0)")),
    Edited("FFN/relu-back-one-at-zero", "relu with the derivative 1 at exactly 0",
           edit(relu, RELU_BACK, "return where(x >= 0, dy, 0)")),
    Edited("FFN/relu-back-half-at-zero", "relu with the derivative 1/2 at exactly 0",
           edit(relu, RELU_BACK, "return where(x == 0, dy / 2, where(x > 0, dy, 0))")),
    Edited("FFN/relu-back-identity", "relu whose gradient passes everywhere", edit(relu, RELU_BACK, "return dy")),
    Edited("FFN/relu-back-sign-of-gradient", "relu whose gradient is cut where dy, not x, is negative",
           edit(relu, RELU_BACK, "return where(dy > 0, dy, 0)")),
    Edited("FFN/gelu-tanh-is-erf", "GELU exactly (erf) instead of its tanh form",
           edit(gelu_tanh, TANH, "return gelu_erf(x)[0], gelu_tanh_back"), G + "kyutai-labs/pocket-tts/pull/278"),
    Edited("FFN/gelu-erf-tail-lost", "GELU with 1 + erf, which has no digits left of a small tail",
           edit(gelu_erf, PHI, "Phi = (1 + erf(x / sqrt(2))) / 2"), G + "pytorch/pytorch/issues/187806"),
    Edited("FFN/gelu-erf-is-tanh", "GELU's tanh form instead of the exact one",
           edit(gelu_erf, ERF, "return gelu_tanh(x)[0], gelu_erf_back")),
    Edited("FFN/gelu-tanh-is-sigmoid", "GELU as x sigmoid(1.702 x)",
           edit(gelu_tanh, TANH, "return x * sigmoid(1.702 * x), gelu_tanh_back")),
    Edited("FFN/gelu-erf-is-sigmoid", "GELU as x sigmoid(1.702 x)",
           edit(gelu_erf, ERF, "return x * sigmoid(1.702 * x), gelu_erf_back")),
    Edited("FFN/gelu-tanh-is-silu", "x sigmoid(x), SiLU, instead of GELU",
           edit(gelu_tanh, TANH, "return x * sigmoid(x), gelu_tanh_back")),
    Edited("FFN/gelu-tanh-no-cube", "GELU's tanh form without the cubic term", edit(gelu_tanh, T, "t = _tanh(k * x)")),
    Edited("FFN/gelu-tanh-square", "GELU's tanh form with x² instead of x³",
           edit(gelu_tanh, T, "t = _tanh(k * (x + x * x * 44715 / 10**6))")),
    Edited("FFN/gelu-tanh-digit", "GELU's tanh form with 0.44715 instead of 0.044715",
           edit(gelu_tanh, T, "t = _tanh(k * (x + x * x * x * 44715 / 10**5))")),
    Edited("FFN/gelu-tanh-root", "GELU's tanh form with √(2π) instead of √(2/π)",
           edit(gelu_tanh, K, "k = sqrt(2 * pi())")),
    Edited("FFN/gelu-tanh-pi-half", "GELU's tanh form with 2/π instead of its root",
           edit(gelu_tanh, K, "k = 2 / pi()")),
    Edited("FFN/gelu-tanh-not-halved", "GELU's tanh form without the factor 1/2", edit(gelu_tanh, S, "s = 1 + t")),
    Edited("FFN/gelu-tanh-gate", "GELU's tanh form without the factor x",
           edit(gelu_tanh, TANH, "return s, gelu_tanh_back"), G + "tensorflow/tfjs/pull/8224"),
    Edited("FFN/gelu-tanh-back-gate-constant", "GELU's tanh form whose gradient takes the gate for a constant",
           edit(gelu_tanh, TANH_BACK, "return dy * s")),
    Edited("FFN/gelu-erf-no-root-two", "GELU with erf(x) instead of erf(x / √2)",
           edit(gelu_erf, PHI, "Phi = erfc(-x) / 2")),
    Edited("FFN/gelu-erf-gate", "GELU without the factor x: the normal distribution alone",
           edit(gelu_erf, ERF, "return Phi, gelu_erf_back")),
    Edited("FFN/gelu-erf-back-gate-constant", "GELU whose gradient is Φ(x), without x φ(x)",
           edit(gelu_erf, ERF_BACK, "return dy * Phi")),
    Edited("FFN/no-activation", "feed-forward without an activation", edit(feed_forward, ACTIVATED, "a = h")),
    Edited("FFN/activation-last", "feed-forward with the activation after the second matrix",
           edit(feed_forward, ACTIVATED, "a = h",
                WHOLE, "return activated(y, activation=activation)[0], feed_forward_back")),
    Edited("FFN/activation-twice", "feed-forward with the activation after both matrices",
           edit(feed_forward, WHOLE, "return activated(y, activation=activation)[0], feed_forward_back")),
    Edited("FFN/no-first-bias", "feed-forward without the first bias", edit(feed_forward, FIRST, 'h = x @ p["W1"]')),
    Edited("FFN/no-second-bias", "feed-forward without the second bias", edit(feed_forward, SECOND, 'y = a @ p["W2"]')),
    Edited("FFN/bias-after-activation", "feed-forward with the first bias added after the activation",
           edit(feed_forward, FIRST, 'h = x @ p["W1"]',
                ACTIVATED, 'a = activated(h, activation=activation)[0] + p["b1"]')),
    Edited("FFN/residual-inside", "feed-forward with its input added, before the layer adds it again",
           edit(feed_forward, WHOLE, "return y + x, feed_forward_back")),
    Edited("FFN/back-activation-missing", "feed-forward whose gradient leaves out the activation's",
           edit(feed_forward, "dh = activation_back(da)", "dh = da")),
    Edited("DROP/no-scale", "dropout without the division by 1 - rate", dropped("where(dropout_mask, x, 0)")),
    Edited("DROP/by-rate", "dropout divided by the rate instead of 1 - rate",
           dropped("where(dropout_mask, x / (rate or 1), 0)"),
           G + "lmjohns3/theanets/pull/123"),
    Edited("DROP/multiplied", "dropout multiplied by 1 - rate instead of divided",
           dropped("where(dropout_mask, x * (1 - rate), 0)")),
    Edited("DROP/scaled-twice", "dropout divided by 1 - rate twice",
           dropped("where(dropout_mask, x / (1 - rate) ** 2, 0)"),
           G + "CSTR-Edinburgh/mlpractical/pull/32"),
    Edited("DROP/inverted", "dropout with the mask inverted: what should stay is dropped",
           dropped("where(dropout_mask, 0, x / (1 - rate))")),
    Edited("DROP/ignored", "dropout that does nothing", dropped("x")),
    Edited("DROP/back-no-scale", "dropout whose gradient is not divided by 1 - rate",
           edit(dropout, DROP_BACK, "return where(dropout_mask, dy, 0)")),
    Edited("DROP/back-no-mask", "dropout whose gradient is not masked",
           edit(dropout, DROP_BACK, "return dy / (1 - rate)")),
    Edited("DROP/back-identity", "dropout whose gradient passes unchanged", edit(dropout, DROP_BACK, "return dy")),
    Edited("DROP/back-quotient", "dropout whose gradient is dy times output / input: 0 / 0 where the input is 0",
           edit(dropout, DROP_BACK, "return dy * (where(dropout_mask, x / (1 - rate), 0) / x)")),
]
