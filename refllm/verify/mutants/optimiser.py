"""Mistakes of the optimisers."""

from __future__ import annotations

from refllm.spec.update import _adam, adam, adamw, sgd
from refllm.verify.mutants.bank import Edited, Edits, edit

V, SGD = "v = momentum * v + g", "return p - lr * v, v"
FIRST, SECOND = "m = beta1 * m + (1 - beta1) * g", "v = beta2 * v + (1 - beta2) * (g * g)"
M, V_HAT = "corrected_m = m / (1 - power(beta1, step))", "corrected_v = v / (1 - power(beta2, step))"
CHANGE = "return corrected_m / (sqrt(corrected_v) + eps), m, v"
WITH_DECAY = "change, m, v = _adam(g + decay * p, m, v, step, beta1, beta2, eps)"
WITHOUT = "change, m, v = _adam(g, m, v, step, beta1, beta2, eps)"
STEP, DECAYED = "return p - lr * change, m, v", "return p * (1 - lr * decay) - lr * change, m, v"


def changed_by(new: str) -> Edits:
    return edit(_adam, CHANGE, f"return {new}, m, v")


def penalised(g: str) -> Edits:
    """Adam of another gradient."""
    return edit(adam, WITH_DECAY, f"change, m, v = _adam({g}, m, v, step, beta1, beta2, eps)")


def decayed(p: str) -> Edits:
    return edit(adamw, DECAYED, f"return {p}, m, v")


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Edited("SGD/dampened", "SGD with the gradient damped by 1 - momentum",
           edit(sgd, V, "v = momentum * v + (1 - momentum) * g")),
    Edited("SGD/nesterov", "SGD with Nesterov's momentum", edit(sgd, SGD, "return p - lr * (g + momentum * v), v")),
    Edited("SGD/old-velocity", "SGD that moves by the old velocity",
           edit(sgd, V, "old, v = v, momentum * v + g", SGD, "return p - lr * old, v")),
    Edited("SGD/no-momentum", "SGD without momentum", edit(sgd, V, "v = g")),
    Edited("SGD/never-forgets", "SGD whose velocity is a sum: momentum 1", edit(sgd, V, "v = v + g")),
    Edited("SGD/rate-inside", "SGD with the learning rate inside the velocity: v' = momentum v - lr g",
           edit(sgd, V, "v = momentum * v - lr * g", SGD, "return p + v, v")),
    Edited("SGD/ascent", "SGD that climbs", edit(sgd, SGD, "return p + lr * v, v")),
    Edited("ADAM/no-correction", "Adam without bias correction",
           edit(_adam, M, "corrected_m = m", V_HAT, "corrected_v = v"), G + "ml-explore/mlx/pull/1640"),
    Edited("ADAM/first-correction-alone", "Adam that corrects the first moment alone",
           edit(_adam, V_HAT, "corrected_v = v")),
    Edited("ADAM/second-correction-alone", "Adam that corrects the second moment alone",
           edit(_adam, M, "corrected_m = m")),
    Edited("ADAM/correction-multiplied", "Adam that multiplies by 1 - beta^step instead of dividing",
           edit(_adam, M, "corrected_m = m * (1 - power(beta1, step))",
                V_HAT, "corrected_v = v * (1 - power(beta2, step))"), G + "karpathy/convnetjs/pull/70"),
    Edited("ADAM/correction-not-a-power", "Adam that corrects by 1 - beta, every step as the first",
           edit(_adam, M, "corrected_m = m / (1 - beta1)", V_HAT, "corrected_v = v / (1 - beta2)"),
           G + "eriklindernoren/ML-From-Scratch/issues/35"),
    Edited("ADAM/corrected-moments-stored", "Adam that stores the corrected moments",
           edit(_adam, CHANGE, "return corrected_m / (sqrt(corrected_v) + eps), corrected_m, corrected_v"),
           G + "frgfm/Holocron/issues/1"),
    Edited("ADAM/step-from-zero", "Adam whose steps count from 0", edit(_adam, M, f"step = step - 1\n{M}")),
    Edited("ADAM/step-from-two", "Adam whose steps count from 2", edit(_adam, M, f"step = step + 1\n{M}")),
    Edited("ADAM/eps-inside", "Adam with eps inside the root", changed_by("corrected_m / sqrt(corrected_v + eps)")),
    Edited("ADAM/eps-before-correction", "Adam with eps beside √v before its correction",
           changed_by("m / (sqrt(v) + eps) * sqrt(1 - power(beta2, step)) / (1 - power(beta1, step))"),
           G + "aiqm/torchani/issues/261"),
    Edited("ADAM/no-eps", "Adam without eps", changed_by("corrected_m / sqrt(corrected_v)")),
    Edited("ADAM/no-root", "Adam divided by the second moment, not its root",
           changed_by("corrected_m / (corrected_v + eps)")),
    Edited("ADAM/largest-second-moment", "Adam whose second moment never falls: AMSGrad",
           edit(_adam, SECOND, f"before = v\n{SECOND}\nv = where(v > before, v, before)")),
    Edited("ADAM/looks-ahead", "Adam with Nesterov's momentum: NAdam",
           changed_by("(beta1 * m + (1 - beta1) * g) / (1 - power(beta1, step)) / (sqrt(corrected_v) + eps)")),
    Edited("ADAM/root-of-other-correction", "Adam with the root of 1 - β1^step over 1 - β2^step, not the other way",
           changed_by("m / (sqrt(v) + eps) * sqrt(1 - power(beta1, step)) / (1 - power(beta2, step))")),
    Edited("ADAM/no-root-of-correction", "Adam with (1 - β2^step) / (1 - β1^step), without the root",
           changed_by("m / (sqrt(v) + eps) * (1 - power(beta2, step)) / (1 - power(beta1, step))")),
    Edited("ADAM/betas-swapped", "Adam with beta1 and beta2 swapped",
           edit(_adam, FIRST, f"beta1, beta2 = beta2, beta1\n{FIRST}")),
    Edited("ADAM/first-not-averaged", "Adam with m' = beta1 m + g", edit(_adam, FIRST, "m = beta1 * m + g")),
    Edited("ADAM/second-not-averaged", "Adam with v' = beta2 v + g²", edit(_adam, SECOND, "v = beta2 * v + g * g")),
    Edited("ADAM/second-not-squared", "Adam with |g| instead of g² in the second moment",
           edit(_adam, SECOND, "v = beta2 * v + (1 - beta2) * abs(g)")),
    Edited("ADAM/weights-turned", "Adam with m' = (1 - beta1) m + beta1 g",
           edit(_adam, FIRST, "m = (1 - beta1) * m + beta1 * g")),
    Edited("ADAM/old-moments", "Adam that moves by the moments of the step before",
           edit(_adam, FIRST, f"old_m, old_v = m, v\n{FIRST}", M, M.replace("= m", "= old_m"),
                V_HAT, V_HAT.replace("= v", "= old_v"))),
    Edited("ADAM/gradient-not-moment", "Adam without the first moment: the gradient itself moves it",
           edit(_adam, FIRST, "m = g", M, "corrected_m = m")),
    Edited("ADAM/decay-decoupled", "Adam with decoupled decay: AdamW", edit(adam, WITH_DECAY, WITHOUT, STEP, DECAYED)),
    Edited("ADAM/decay-ignored", "Adam without its decay", penalised("g"), G + "PaddlePaddle/Paddle/issues/5836"),
    Edited("ADAM/decay-sign", "Adam with the decay subtracted from the gradient", penalised("g - decay * p")),
    Edited("ADAM/decay-twice", "Adam with the gradient of decay |p|², twice the penalty",
           penalised("g + 2 * decay * p")),
    Edited("ADAM/decay-by-rate", "Adam with lr decay p in the gradient", penalised("g + lr * decay * p")),
    Edited("ADAMW/decay-in-gradient", "AdamW with the decay in the gradient: Adam with L2",
           edit(adamw, WITHOUT, WITH_DECAY, DECAYED, STEP), G + "anhquan0412/basic_model_scratch/issues/2"),
    Edited("ADAMW/decay-not-by-rate", "AdamW with the decay not multiplied by lr",
           decayed("p * (1 - decay) - lr * change"), G + "pytorch/pytorch/pull/4429"),
    Edited("ADAMW/decay-by-corrected-rate", "AdamW whose decay is multiplied by lr / (1 - β1^step)",
           decayed("p * (1 - lr / (1 - power(beta1, step)) * decay) - lr * change")),
    Edited("ADAMW/decay-after-step", "AdamW that decays after the step, not before",
           decayed("(p - lr * change) * (1 - lr * decay)"), G + "huggingface/transformers/issues/14539"),
    Edited("ADAMW/decay-ignored", "AdamW without decay", decayed("p - lr * change")),
    Edited("ADAMW/decay-sign", "AdamW whose decay lets parameters grow",
           decayed("p * (1 + lr * decay) - lr * change")),
    Edited("ADAMW/decay-twice", "AdamW with the decay in the gradient and decoupled", edit(adamw, WITHOUT, WITH_DECAY)),
]
