"""Mistakes of RMS norm."""

from __future__ import annotations

from refllm.spec.layer_norm import rms_norm
from refllm.verify.mutants.bank import Edited, Edits, edit

R, Y = "r = 1 / sqrt(mean(x * x) + eps)", "return g * n, rms_norm_back"
RMS_BACK = "return r * (dn - n * mean(dn * n)), rows(dy * n)"


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
    Edited("T5-REL/rms-square-of-mean", "RMS norm with the square of the mean instead of the mean of the squares",
           root("sqrt(mean(x) * mean(x) + eps)")),
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
]
