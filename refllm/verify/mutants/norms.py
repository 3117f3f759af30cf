"""Mistakes of layer normalisation and of the residual paths around it."""

from __future__ import annotations

from refllm.spec.layer_norm import layer_norm
from refllm.spec.layers import post_norm, pre_norm, residual
from refllm.spec.switch_layer import switch_transformer_layer
from refllm.spec.transformer_layer import transformer_layer
from refllm.verify.mutants.bank import Edited, edit

C, R, Y = "c = x - mean(x)", "r = 1 / sqrt(mean(c * c) + eps)", "y = g * n + b"
ROWS = "db, dg, dn = rows(dy), rows(dy * n), dy * g"
DX = "dx = r * (dn - mean(dn) - n * mean(dn * n))"
SUM, SWITCH_SUM = "y = x + tap(name, a)", 'y = tap("residual2", h + tap("switch", a))'
BOTH = 'return {"pre": pre_norm, "post": post_norm}[norm](x, p, f"norm{number}", f"residual{number}", name, f, eps=eps)'
FEED = 'y, feed_back = residual(h, p, 2, "feed_forward", feed, norm=norm, eps=eps)'
POST_SUM, POST_NORM = "h = tap(whole, x + tap(name, a))", "y, norm_back = normalised(h, p[norm], eps=eps)"

G = "https://github.com/"
# fmt: off
MUTANTS = [
    Edited("LN/eps-outside", "layer norm with eps added to the deviation, outside the root",
           edit(layer_norm, R, "r = 1 / (mean(c * c) ** 0.5 + eps)")),
    Edited("LN/post-second-residual-of-the-sum", "post-norm whose second residual adds the sum before the first norm",
           edit(transformer_layer, FEED,
                'y, feed_back = residual(h, p, 2, "feed_forward", feed, norm=norm, eps=eps)\n'
                'if norm == "post":\n    first = x + attend(x, p["attention"])[0]\n'
                '    y = normalised(first + feed(h, p["feed_forward"])[0], p["norm2"], eps=eps)[0]')),
    Edited("LN/no-eps", "layer norm without eps", edit(layer_norm, R, "r = 1 / sqrt(mean(c * c))")),
    Edited("LN/eps-squared", "layer norm with eps² inside the root",
           edit(layer_norm, R, "r = 1 / sqrt(mean(c * c) + eps * eps)")),
    Edited("LN/eps-twice", "layer norm with eps inside the root and outside it",
           edit(layer_norm, R, "r = 1 / (sqrt(mean(c * c) + eps) + eps)")),
    Edited("LN/eps-fixed", "layer norm with eps fixed at 1e-5, whatever is asked for",
           edit(layer_norm, R, "r = 1 / sqrt(mean(c * c) + 1e-5)")),
    Edited("LN/unbiased", "layer norm with the unbiased variance, divided by C - 1",
           edit(layer_norm, R, "r = 1 / sqrt(sum(c * c) / (x.shape[-1] - 1) + eps)"),
           G + "FluxML/Flux.jl/issues/529"),
    Edited("LN/unbiased-eps-outside", "layer norm with the unbiased deviation and eps outside the root",
           edit(layer_norm, R, "r = 1 / ((sum(c * c) / (x.shape[-1] - 1)) ** 0.5 + eps)"),
           G + "harvardnlp/annotated-transformer/pull/119"),
    Edited("LN/variance-not-root", "layer norm divided by the variance instead of its root",
           edit(layer_norm, R, "r = 1 / (mean(c * c) + eps)")),
    Edited("LN/squared-not-root", "layer norm divided by the square of the variance instead of its root",
           edit(layer_norm, R, "r = 1 / (mean(c * c) + eps) ** 2"),
           G + "131250208/TPlinker-joint-extraction/issues/37"),
    Edited("LN/not-centred", "layer norm without subtracting the mean: RMS norm", edit(layer_norm, C, "c = x")),
    Edited("LN/centred-alone", "layer norm that subtracts the mean and does not divide",
           edit(layer_norm, "n = c * r", "n = c")),
    Edited("LN/difference-of-squares", "layer norm with the variance as E[x²] - E[x]²",
           edit(layer_norm, R, "r = 1 / sqrt(mean(x * x) - mean(x) * mean(x) + eps)"),
           G + "pytorch/pytorch/issues/51102", dtype="float32"),
    Edited("LN/over-tokens", "layer norm over the tokens instead of the features",
           edit(layer_norm, C, "c = x - down(mean, x)", R, "r = 1 / sqrt(down(mean, c * c) + eps)")),
    Edited("LN/over-everything", "layer norm over all entries at once",
           edit(layer_norm, C, "c = x - total(x) / x.size", R, "r = 1 / sqrt(total(c * c) / x.size + eps)")),
    Edited("LN/over-tokens-and-features", "layer norm over tokens and features together",
           edit(layer_norm, C, "c = x - down(mean, mean(x))", R, "r = 1 / sqrt(down(mean, mean(c * c)) + eps)")),
    Edited("LN/no-bias", "layer norm without its bias", edit(layer_norm, Y, "y = g * n")),
    Edited("LN/no-gain", "layer norm without its gain", edit(layer_norm, Y, "y = n + b")),
    Edited("LN/gain-bias-swapped", "layer norm with gain and bias swapped", edit(layer_norm, Y, "y = b * n + g")),
    Edited("LN/one-plus-gain", "layer norm with the gain stored less 1: (1 + g) n + b",
           edit(layer_norm, Y, "y = (1 + g) * n + b")),
    Edited("LN/gain-of-sum", "layer norm with the gain applied to the bias too: g (n + b)",
           edit(layer_norm, Y, "y = g * (n + b)")),
    Edited("LN/back-no-means", "layer norm whose gradient takes mean and deviation for constants",
           edit(layer_norm, DX, "dx = r * dn")),
    Edited("LN/back-mean-constant", "layer norm whose gradient takes the mean for a constant",
           edit(layer_norm, DX, "dx = r * (dn - n * mean(dn * n))")),
    Edited("LN/back-deviation-constant", "layer norm whose gradient takes the deviation for a constant",
           edit(layer_norm, DX, "dx = r * (dn - mean(dn))")),
    Edited("LN/back-gain-bias-swapped", "layer norm with the gradients of gain and bias swapped",
           edit(layer_norm, "return dx, dg, db", "return dx, db, dg")),
    Edited("LN/back-averaged", "layer norm with dg and db averaged over the rows instead of summed",
           edit(layer_norm, ROWS, "N = len(flat(dy))\ndb, dg, dn = rows(dy) / N, rows(dy * n) / N, dy * g")),
    Edited("LN/back-without-gain", "layer norm whose dx leaves out the gain",
           edit(layer_norm, ROWS, "db, dg, dn = rows(dy), rows(dy * n), dy")),
    Edited("LN/residual-missing", "pre-norm without the residual",
           edit(pre_norm, SUM, "y = tap(name, a)")
           + edit(switch_transformer_layer, SWITCH_SUM, 'y = tap("residual2", tap("switch", a))')),
    Edited("LN/residual-of-normed", "pre-norm with the residual taken after the norm: n + f(n), n = LN(x)",
           edit(pre_norm, SUM, "y = n + tap(name, a)")
           + edit(switch_transformer_layer, SWITCH_SUM, 'y = tap("residual2", n + tap("switch", a))')),
    Edited("LN/back-residual-missing", "pre-norm with no gradient through the residual",
           edit(pre_norm, "return dy + dx, {norm: dnorm, name: df}, *others",
                "return dx, {norm: dnorm, name: df}, *others")
           + edit(switch_transformer_layer, "dx, dattend = attend_back(dy + dh)", "dx, dattend = attend_back(dh)")),
    Edited("LN/pre-is-post", "pre-norm computed as post-norm",
           edit(residual, BOTH, BOTH.replace('"pre": pre_norm', '"pre": post_norm'))),
    Edited("LN/post-is-pre", "post-norm computed as pre-norm",
           edit(residual, BOTH, BOTH.replace('"post": post_norm', '"post": pre_norm'))),
    Edited("LN/post-norm-before-sum", "post-norm with the norm before the sum: x + LN(f(x))",
           edit(post_norm, POST_SUM, "h = tap(whole, tap(name, a))",
                "return tap(norm, y), post_norm_back", "return tap(norm, x + y), post_norm_back")),
    Edited("LN/post-residual-missing", "post-norm without the residual",
           edit(post_norm, POST_SUM, "h = tap(whole, tap(name, a))")),
    Edited("LN/back-post-residual-missing", "post-norm with no gradient through the residual",
           edit(post_norm, "return dh + dx, {norm: dnorm, name: df}, *others",
                "return dx, {norm: dnorm, name: df}, *others")),
    Edited("LN/parallel", "a pre-norm layer whose feed-forward part reads what attention reads, as in GPT-J",
           edit(transformer_layer, FEED, FEED.replace("(h, p", '(x if norm == "pre" else h, p')
                + '\ny = y + h - x if norm == "pre" else y')),
    Edited("LN/one-norm-for-both", "a layer with one norm for both of its parts",
           edit(transformer_layer, FEED, f'p = {{**p, "norm2": p["norm1"]}}\n{FEED}')),
]
