"""Mistakes of Llama: its gated layer, its layer, and the model around them."""

from __future__ import annotations

from refllm.spec.feed_forward import gated_feed_forward
from refllm.spec.llama import alibi_slopes, llama
from refllm.spec.transformer_layer import llama_layer
from refllm.verify.mutants.bank import Edited, Edits, edit

GATE, PRODUCT = "f, activation_back = activated(g, activation=activation)", "a, multiply_back = multiply(f, h)"
ACTIVATED = "activated({}, activation=activation)[0]"
FEED = 'y, feed_back = residual(h, p, 2, "feed_forward", feed, norm="pre", eps=eps)'
SLOPES = "return concatenate([slopes(below), slopes(2 * below)[::2]], axis=0)[:heads]"
BIAS = 'r, bias_back = bias_by_distance(p, how, places=T, heads=config["heads"])'
LAYER = 'x, p, r, heads=config["heads"], kv_heads=config["kv_heads"], rotation=rotation,'
THROUGH = 'h, layers_back = through(tap("embedding", x), p["layers"], layer)'
DP, WHOLE = (
    'dp = {"token": embedding_back(dx), **bias_back(*dr), "layers": dlayers, "norm": dnorm}',
    "return with_head(dp, dW, tied=tied)",
)


def gated(factors: str) -> Edits:
    return edit(gated_feed_forward, PRODUCT, f"a = {factors}")


def gate(f: str) -> Edits:
    return edit(gated_feed_forward, GATE, f"f = {f}")


def layers(chosen: str) -> Edits:
    return edit(llama, THROUGH, THROUGH.replace('p["layers"]', chosen))


def beyond_the_first(r: str) -> Edits:
    """Another bias by distance in all layers but the first."""
    return edit(llama, BIAS, f'{BIAS}\nfirst = p["layers"][0]',
                LAYER, LAYER.replace("p, r,", f"p, r if p is first or r is None else {r},"))  # fmt: skip


# fmt: off
MUTANTS = [
    Edited("FFN/gated-exchanged", "the gated layer with gate and linear part exchanged",
           gated(f"g * {ACTIVATED.format('h')}")),
    Edited("FFN/gated-gelu", "the gated layer with GELU whatever is asked for", gate("gelu_erf(g)[0]")),
    Edited("FFN/gated-silu", "the gated layer with SiLU whatever is asked for", gate("silu(g)[0]")),
    Edited("FFN/gated-linear", "the gated layer without an activation", gate("g")),
    Edited("FFN/gated-sigmoid", "the gated layer with a sigmoid: GLU", gate("sigmoid(g)")),
    Edited("FFN/gated-both", "the gated layer with the activation on both factors",
           gated(f"f * {ACTIVATED.format('h')}")),
    Edited("FFN/gated-after", "the gated layer with the activation of the product", gated(ACTIVATED.format("g * h"))),
    Edited("FFN/gated-added", "the gated layer with its factors added", gated("f + h")),
    Edited("FFN/gated-no-gate", "the gated layer without its gate: f(x W1) W2", gated(ACTIVATED.format("h"))),
    Edited("FFN/gated-back-gate-constant", "the gated layer whose gradient takes the gate for a constant",
           edit(gated_feed_forward, "dx_gate, dgate = gate_back(activation_back(df))",
                "dx_gate, dgate = gate_back(activation_back(0 * df))")),
    Edited("LONG/llama-layer-parallel", "Llama's layer with attention and feed-forward side by side",
           edit(llama_layer, FEED, FEED.replace("residual(h,", "residual(x,") + "\ny = y + h - x")),
    Edited("LONG/llama-layer-one-norm", "Llama's layer with one gain for both of its norms",
           edit(llama_layer, FEED, FEED.replace("h, p,", 'h, {**p, "norm2": p["norm1"]},'))),
    Edited("LONG/slopes-from-one", "ALiBi's slopes from 1: 2^(-8 (h - 1) / n)",
           edit(alibi_slopes, SLOPES, "return power(2, -ratio(8 * arange(heads), heads))"),
           "https://github.com/paiml/aprender/issues/2143"),
    Edited("LONG/slopes-all-numbers", "ALiBi's slopes 2^(-8 h / n) where n is no power of two",
           edit(alibi_slopes, SLOPES, "return slopes(heads)"), "https://github.com/ml-explore/mlx/issues/343"),
    Edited("LONG/slopes-halved", "ALiBi's slopes 2^-h whatever the number of heads",
           edit(alibi_slopes, SLOPES, "return power(2, -ratio(arange(1, heads + 1), 1))")),
    Edited("LONG/slopes-reversed", "ALiBi's slopes from the smallest to the largest",
           edit(alibi_slopes, SLOPES, f"{SLOPES}[::-1]")),
    Edited("LONG/slopes-sorted", "ALiBi's slopes in falling order, where n is no power of two",
           edit(alibi_slopes, SLOPES, f"{SLOPES.replace('return ', 'return stack(sorted(')}, reverse=True), axis=0)")),
    Edited("T5-REL/first-layer-alone", "a bias by distance in the first layer alone", beyond_the_first("0 * r")),
    Edited("T5-REL/back-first-layer-alone", "a bias by distance with the gradient of the first layer alone",
           beyond_the_first("constant(r)")),
    Edited("LMHEAD/llama-no-final-norm", "Llama without the norm before its head",
           edit(llama, 'n, norm_back = normalised(h, p["norm"], eps=config["eps"])', "n = h")),
    Edited("LMHEAD/llama-shared-layers", "Llama whose layers all have the parameters of the first",
           layers('p["layers"][:1] * len(p["layers"])')),
    Edited("LMHEAD/llama-layers-reversed", "Llama with its layers in reverse", layers('p["layers"][::-1]')),
    Edited("LMHEAD/llama-last-layer-skipped", "Llama without its last layer", layers('p["layers"][:-1]')),
    Edited("LMHEAD/back-llama-tied-head-dropped", "Llama's tied head that gives the embedding no gradient",
           edit(llama, WHOLE, WHOLE.replace("dW,", "0 * dW if tied else dW,"))),
    Edited("LMHEAD/back-llama-tied-embedding-dropped", "Llama's tied head whose gradient overwrites the embedding's",
           edit(llama, DP, DP.replace("embedding_back(dx)", "embedding_back(0 * dx if tied else dx)"))),
]
