"""Mistakes of Lion, Muon, the running mean of the weights, and the loss over micro-batches."""

from __future__ import annotations

from refllm.spec.gradient_accumulation import accumulated_cross_entropy
from refllm.spec.lion import lion
from refllm.spec.muon import muon, orthogonalised
from refllm.spec.weight_average import average_weights
from refllm.verify.mutants.bank import Edited, Edits, edit

C, SIGN = "c = beta1 * m + (1 - beta1) * g", "sign = like(1 * (c > 0) - 1 * (c < 0), c)"
LION = "return p - lr * (sign + decay * p), beta2 * m + (1 - beta2) * g"
V, U, SCALE = "v = momentum * v + g", "u = g + momentum * v if nesterov else v", "scale = sqrt(ratio(max(O, I), I))"
MUON = "return p * (1 - lr * decay) - lr * scale * orthogonalised(u), v"
START, STEPS = "X = u / (sqrt(total(u * u)) + 1e-7)", "for _ in range(5):"
QUINTIC = "X = a * X + (b * A + c * (A @ A)) @ X"
LOOP = f"{STEPS}\n    A = X @ X.T\n    {QUINTIC}"
EARLY, LEAST = "early = ratio(1 + step, 10 + step)", "beta = early if early < decay else decay"
MIXED = "return beta * a + (1 - beta) * p"
COUNTED = "counted = targets.size if ignore is None else int((targets != ignore).sum())"
AT_LEAST = "count = max(1, counted)"
PARTS = (
    'parts = [cross_entropy(z, targets=t, ignore=ignore, reduction="sum") '
    "for z, t in zip(logits, targets, strict=True)]"
)
BACK = "return stack([part_back(dy / count) for _, part_back in parts], axis=0)"


def step(new: str) -> Edits:
    return edit(lion, LION, f"return {new}")


def scale(new: str) -> Edits:
    return edit(muon, SCALE, f"scale = {new}")


def moved(new: str) -> Edits:
    return edit(muon, MUON, f"return {new}, v")


def loop(steps: int, polynomial: str = QUINTIC) -> Edits:
    return edit(orthogonalised, LOOP, f"for _ in range({steps}):\n    A = X @ X.T\n    {polynomial}")


def mixed(new: str) -> Edits:
    return edit(average_weights, MIXED, f"return {new}")


# fmt: off
MUTANTS = [
    Edited("LION/betas-exchanged", "Lion with beta2 in the step and beta1 in the momentum",
           edit(lion, C, "c = beta2 * m + (1 - beta2) * g", LION,
                "return p - lr * (sign + decay * p), beta1 * m + (1 - beta1) * g")),
    Edited("LION/one-beta", "Lion whose momentum is kept with beta1 too",
           step("p - lr * (sign + decay * p), beta1 * m + (1 - beta1) * g")),
    Edited("LION/momentum-first", "Lion whose step takes the sign of the new momentum",
           edit(lion, C, "c = beta2 * m + (1 - beta2) * g")),
    Edited("LION/no-sign", "Lion without the sign", edit(lion, SIGN, "sign = c")),
    Edited("LION/sign-of-gradient", "Lion with the sign of the gradient alone", edit(lion, C, "c = g")),
    Edited("LION/sign-of-zero", "Lion whose sign of 0 is 1",
           edit(lion, SIGN, "sign = like(1 * (c >= 0) - 1 * (c < 0), c)")),
    Edited("LION/decay-in-gradient", "Lion with the weight decay inside the sign",
           edit(lion, C, "c = beta1 * m + (1 - beta1) * (g + decay * p)", LION,
                "return p - lr * sign, beta2 * m + (1 - beta2) * (g + decay * p)")),
    Edited("LION/decay-without-rate", "Lion with a weight decay that is not multiplied by lr",
           step("p - lr * sign - decay * p, beta2 * m + (1 - beta2) * g")),
    Edited("LION/momentum-of-sums", "Lion whose momentum adds the whole gradient",
           step("p - lr * (sign + decay * p), beta2 * m + g")),
    Edited("MUON/not-orthogonalised", "Muon without Newton-Schulz steps: SGD", moved(
           "p * (1 - lr * decay) - lr * scale * u")),
    Edited("MUON/four-steps", "Muon with four Newton-Schulz steps", loop(4)),
    Edited("MUON/six-steps", "Muon with six Newton-Schulz steps", loop(6)),
    Edited("MUON/cubic", "Muon with the cubic Newton-Schulz polynomial, 1.5 X - 0.5 A X",
           loop(5, "X = 1.5 * X - 0.5 * (A @ X)")),
    Edited("MUON/no-square", "Muon whose polynomial has c A where it should have c A²",
           loop(5, "X = a * X + (b * A + c * A) @ X")),
    Edited("MUON/largest-norm", "Muon that divides by the largest entry instead of the root of the squares' sum",
           edit(orthogonalised, START, "X = u / (top(sqrt(u * u).reshape(-1)) + 1e-7)")),
    Edited("MUON/no-eps", "Muon without 1e-7 beside the norm",
           edit(orthogonalised, START, "X = u / sqrt(total(u * u))")),
    Edited("MUON/scale-reversed", "Muon with the root of I / O: rows and columns exchanged",
           scale("sqrt(ratio(max(O, I), O))")),
    Edited("MUON/scale-below-one", "Muon whose scale may fall below 1", scale("sqrt(ratio(O, I))")),
    Edited("MUON/no-scale", "Muon without a scale by the shape", scale("1")),
    Edited("MUON/other-scale", "Muon with the scale 0.2 √max(O, I), which another source has",
           scale("0.2 * sqrt(max(O, I))")),
    Edited("MUON/no-nesterov", "Muon that ignores `nesterov`", edit(muon, U, "u = v")),
    Edited("MUON/always-nesterov", "Muon that looks ahead unasked", edit(muon, U, "u = g + momentum * v")),
    Edited("MUON/old-velocity", "Muon that looks ahead with the velocity before the gradient is added to it",
           edit(muon, V, "v = momentum * v", U, "u = g + momentum * v if nesterov else v + g\nv = v + g")),
    Edited("MUON/averaged-velocity", "Muon whose velocity takes in 1 - momentum of the gradient",
           edit(muon, V, "v = momentum * v + (1 - momentum) * g")),
    Edited("MUON/averaged-both", "Muon that takes in 1 - momentum of the gradient, in the velocity and beside it",
           edit(muon, V, "v = momentum * v + (1 - momentum) * g",
                U, "u = (1 - momentum) * g + momentum * v if nesterov else v")),
    Edited("MUON/scale-without-root", "Muon with the scale max(1, O / I) without its root",
           scale("ratio(max(O, I), I)")),
    Edited("MUON/square-of-entries", "Muon whose polynomial squares the entries of A",
           loop(5, "X = a * X + (b * A + c * (A * A)) @ X")),
    Edited("MUON/decay-by-scaled-rate", "Muon with a weight decay that is multiplied by the scale of the step too",
           moved("p * (1 - lr * scale * decay) - lr * scale * orthogonalised(u)")),
    Edited("MUON/decay-after-step", "Muon that decays after the step, not before",
           moved("(p - lr * scale * orthogonalised(u)) * (1 - lr * decay)")),
    Edited("MUON/decay-in-gradient", "Muon with the decay in the gradient",
           edit(muon, V, "g = g + decay * p\nv = momentum * v + g", MUON,
                "return p - lr * scale * orthogonalised(u), v")),
    Edited("MUON/decay-without-rate", "Muon with a weight decay that is not multiplied by lr",
           moved("p * (1 - decay) - lr * scale * orthogonalised(u)")),
    Edited("EMA/exchanged", "a running mean that keeps the weights' share and takes in the average's",
           mixed("(1 - beta) * a + beta * p")),
    Edited("EMA/added", "a running mean that adds the whole weights", mixed("beta * a + p")),
    Edited("EMA/away", "a running mean that moves away from the weights", mixed("a + (1 - beta) * (a - p)"),
           "https://github.com/ostris/ai-toolkit/issues/1034"),
    Edited("EMA/exponential-warmup", "a running mean with the warm-up decay · (1 - e^(-step / 2000))",
           edit(average_weights, LEAST, "beta = decay * (1 - exp(ratio(-step, 2000)))")),
    Edited("EMA/no-warmup", "a running mean that ignores the warm-up", edit(average_weights, LEAST, "beta = decay")),
    Edited("EMA/warmup-for-ever", "a running mean whose warm-up never ends",
           edit(average_weights, LEAST, "beta = early")),
    Edited("EMA/largest", "a running mean with the larger of decay and warm-up",
           edit(average_weights, LEAST, "beta = decay if early < decay else early")),
    Edited("EMA/from-zero", "a running mean whose warm-up counts steps from 0",
           edit(average_weights, EARLY, "early = ratio(step, 9 + step)")),
    Edited("EMA/corrected", "a running mean divided by 1 - decay^step, as Adam's moments are",
           mixed("(beta * a + (1 - beta) * p) / (1 - beta**step + (beta == 1))")),
    Edited("ACCUM/mean-of-means", "a loss over micro-batches that is the mean of their means",
           edit(accumulated_cross_entropy, AT_LEAST, "count = len(logits)", PARTS, PARTS.replace("sum", "mean")),
           "https://github.com/huggingface/transformers/issues/34191"),
    Edited("ACCUM/sum-of-means", "a loss over micro-batches that is the sum of their means",
           edit(accumulated_cross_entropy, AT_LEAST, "count = 1", PARTS, PARTS.replace("sum", "mean"))),
    Edited("ACCUM/sum", "a loss over micro-batches that is not divided",
           edit(accumulated_cross_entropy, AT_LEAST, "count = 1")),
    Edited("ACCUM/by-batches", "a loss over micro-batches that is divided by their number",
           edit(accumulated_cross_entropy, AT_LEAST, "count = len(logits)")),
    Edited("ACCUM/counts-ignored", "a loss over micro-batches that is divided by all targets, ignored ones too",
           edit(accumulated_cross_entropy, COUNTED, "counted = targets.size")),
    Edited("ACCUM/first-count", "a loss over micro-batches that is divided by the first count times their number",
           edit(accumulated_cross_entropy, COUNTED, "counted = len(logits) * int((targets[0] != ignore).sum())")),
    Edited("ACCUM/divided-twice", "a loss over micro-batches whose gradient is divided by their number once more",
           edit(accumulated_cross_entropy, BACK,
                "return stack([part_back(dy / count / len(parts)) for _, part_back in parts], axis=0)")),
    Edited("ACCUM/last-alone", "a loss over micro-batches with the gradient of the last one alone",
           edit(accumulated_cross_entropy, BACK,
                "return stack([part_back(0 * dy) for _, part_back in parts[:-1]]"
                " + [parts[-1][1](dy / count)], axis=0)")),
]
