"""Mistakes of the optimisers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.optim.update import _step, adam, adamw, sgd
from refllm.verify.mutants.bank import Function, Mutant

Moment = Callable[[Array, Array, float], Array]
Correct = Callable[[Array, Any, Any], Array]


def _corrected(moment: Array, beta: Any, step: Any) -> Array:
    return moment / (1 - beta**step)


def step(
    *,
    first: Moment = lambda m, g, beta: beta * m + (1 - beta) * g,
    second: Moment = lambda v, g, beta: beta * v + (1 - beta) * g * g,
    correct1: Correct = _corrected,
    correct2: Correct = _corrected,
    direction: Callable[[Array, Array, float], Array] = lambda m, v, eps: m / (numpy.sqrt(v) + eps),
    count: Callable[[int], int] = lambda step: step,
    swap: bool = False,
    old: bool = False,
    store: bool = False,
) -> Function:
    """Adam's step (of adam and adamw) with a part of it exchanged."""

    def changed(
        p: Array, g: Array, m: Array, v: Array, step: int, lr: float, beta1: float, beta2: float, eps: float,
        shrink: float, out: Any,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        b1, b2 = (beta2, beta1) if swap else (beta1, beta2)
        with numpy.errstate(all="ignore"):
            new_m, new_v = first(m, g, b1), second(v, g, b2)
            at = numpy.float64(count(step))  # so that 1 / (1 - beta^0) is infinite and not an error
            mhat = correct1(m if old else new_m, numpy.float64(b1), at)
            vhat = correct2(v if old else new_v, numpy.float64(b2), at)
            new_p = shrink * p - lr * direction(mhat, vhat, eps)
        return new_p, *((mhat, vhat) if store else (new_m, new_v))

    return changed


def _eps_before_correction(
    p: Array, g: Array, m: Array, v: Array, step: int, lr: float, beta1: float, beta2: float, eps: float, shrink: float,
    out: Any,
) -> tuple[Array, Array, Array]:  # fmt: skip
    new_m, new_v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    rate = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)
    return shrink * p - rate * new_m / (numpy.sqrt(new_v) + eps), new_m, new_v


def decayed(after: Callable[[Array, Array, float, float], Array]) -> Function:
    """AdamW with p' = after(p, p' without decay, lr, decay)."""

    def changed(p: Array, g: Array, m: Array, v: Array, *, lr: float, decay: float, **how: Any) -> tuple[Array, ...]:
        new_p, new_m, new_v = adamw(p, g, m, v, lr=lr, decay=0.0, **how)
        return after(p, new_p, lr, decay), new_m, new_v

    return changed


def _both_decays(p: Array, g: Array, m: Array, v: Array, *, decay: float, **how: Any) -> tuple[Array, ...]:
    return adamw(p, g + decay * p, m, v, decay=decay, **how)


def penalty(factor: Callable[[float, float], float]) -> Function:
    """Adam with the gradient g + factor(lr, decay) p."""

    def changed(p: Array, g: Array, m: Array, v: Array, *, lr: float, decay: float, **how: Any) -> tuple[Array, ...]:
        return adam(p, g + factor(lr, decay) * p, m, v, lr=lr, decay=0.0, **how)

    return changed


def descent(f: Callable[[Array, Array, Array, float, float], tuple[Array, Array]]) -> Function:
    """SGD as f(p, g, v, lr, momentum)."""

    def changed(p: Array, g: Array, v: Array, *, lr: float, momentum: float, **_: Any) -> tuple[Array, Array]:
        return f(p, g, v, lr, momentum)

    return changed


def _nesterov(p: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    new_v = momentum * v + g
    return p - lr * (g + momentum * new_v), new_v


def _rate_inside(p: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Array, Array]:
    new_v = momentum * v - lr * g
    return p + new_v, new_v


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Mutant("SGD/dampened", sgd, "SGD with the gradient damped by 1 - momentum",
           descent(lambda p, g, v, lr, mu: (p - lr * (mu * v + (1 - mu) * g), mu * v + (1 - mu) * g))),
    Mutant("SGD/nesterov", sgd, "SGD with Nesterov's momentum", descent(_nesterov)),
    Mutant("SGD/old-velocity", sgd, "SGD that moves by the old velocity",
           descent(lambda p, g, v, lr, mu: (p - lr * v, mu * v + g))),
    Mutant("SGD/no-momentum", sgd, "SGD without momentum", descent(lambda p, g, v, lr, mu: (p - lr * g, g))),
    Mutant("SGD/never-forgets", sgd, "SGD whose velocity is a sum: momentum 1",
           descent(lambda p, g, v, lr, mu: (p - lr * (v + g), v + g))),
    Mutant("SGD/rate-inside", sgd, "SGD with the learning rate inside the velocity: v' = momentum v - lr g",
           descent(_rate_inside)),
    Mutant("SGD/ascent", sgd, "SGD that climbs", descent(lambda p, g, v, lr, mu: (p + lr * (mu * v + g), mu * v + g))),
    Mutant("ADAM/no-correction", _step, "Adam without bias correction",
           step(correct1=lambda m, b, t: m, correct2=lambda v, b, t: v), G + "ml-explore/mlx/pull/1640"),
    Mutant("ADAM/first-correction-alone", _step, "Adam that corrects the first moment alone",
           step(correct2=lambda v, b, t: v)),
    Mutant("ADAM/second-correction-alone", _step, "Adam that corrects the second moment alone",
           step(correct1=lambda m, b, t: m)),
    Mutant("ADAM/correction-multiplied", _step, "Adam that multiplies by 1 - beta^step instead of dividing",
           step(correct1=lambda m, b, t: m * (1 - b**t), correct2=lambda v, b, t: v * (1 - b**t)),
           G + "karpathy/convnetjs/pull/70"),
    Mutant("ADAM/correction-not-a-power", _step, "Adam that corrects by 1 - beta, every step as the first",
           step(correct1=lambda m, b, t: m / (1 - b), correct2=lambda v, b, t: v / (1 - b)),
           G + "eriklindernoren/ML-From-Scratch/issues/35"),
    Mutant("ADAM/corrected-moments-stored", _step, "Adam that stores the corrected moments", step(store=True),
           G + "frgfm/Holocron/issues/1"),
    Mutant("ADAM/step-from-zero", _step, "Adam whose steps count from 0", step(count=lambda t: t - 1)),
    Mutant("ADAM/step-from-two", _step, "Adam whose steps count from 2", step(count=lambda t: t + 1)),
    Mutant("ADAM/eps-inside", _step, "Adam with eps inside the root",
           step(direction=lambda m, v, eps: m / numpy.sqrt(v + eps))),
    Mutant("ADAM/eps-before-correction", _step, "Adam with eps beside √v before its correction",
           _eps_before_correction, G + "aiqm/torchani/issues/261"),
    Mutant("ADAM/no-eps", _step, "Adam without eps", step(direction=lambda m, v, eps: m / numpy.sqrt(v))),
    Mutant("ADAM/no-root", _step, "Adam divided by the second moment, not its root",
           step(direction=lambda m, v, eps: m / (v + eps))),
    Mutant("ADAM/betas-swapped", _step, "Adam with beta1 and beta2 swapped", step(swap=True)),
    Mutant("ADAM/first-not-averaged", _step, "Adam with m' = beta1 m + g",
           step(first=lambda m, g, b: b * m + g)),
    Mutant("ADAM/second-not-averaged", _step, "Adam with v' = beta2 v + g²",
           step(second=lambda v, g, b: b * v + g * g)),
    Mutant("ADAM/second-not-squared", _step, "Adam with |g| instead of g² in the second moment",
           step(second=lambda v, g, b: b * v + (1 - b) * abs(g))),
    Mutant("ADAM/weights-turned", _step, "Adam with m' = (1 - beta1) m + beta1 g",
           step(first=lambda m, g, b: (1 - b) * m + b * g)),
    Mutant("ADAM/old-moments", _step, "Adam that moves by the moments of the step before", step(old=True)),
    Mutant("ADAM/gradient-not-moment", _step, "Adam without the first moment: the gradient itself moves it",
           step(first=lambda m, g, b: g, correct1=lambda m, b, t: m)),
    Mutant("ADAM/decay-decoupled", adam, "Adam with decoupled decay: AdamW", adamw),
    Mutant("ADAM/decay-ignored", adam, "Adam without its decay", penalty(lambda lr, decay: 0.0),
           G + "PaddlePaddle/Paddle/issues/5836"),
    Mutant("ADAM/decay-sign", adam, "Adam with the decay subtracted from the gradient",
           penalty(lambda lr, decay: -decay)),
    Mutant("ADAM/decay-twice", adam, "Adam with the gradient of decay |p|², twice the penalty",
           penalty(lambda lr, decay: 2 * decay)),
    Mutant("ADAM/decay-by-rate", adam, "Adam with lr decay p in the gradient", penalty(lambda lr, decay: lr * decay)),
    Mutant("ADAMW/decay-in-gradient", adamw, "AdamW with the decay in the gradient: Adam with L2",
           adam, G + "anhquan0412/basic_model_scratch/issues/2"),
    Mutant("ADAMW/decay-not-by-rate", adamw, "AdamW with the decay not multiplied by lr",
           decayed(lambda p, new, lr, decay: new - decay * p), G + "pytorch/pytorch/pull/4429"),
    Mutant("ADAMW/decay-after-step", adamw, "AdamW that decays after the step, not before",
           decayed(lambda p, new, lr, decay: new * (1 - lr * decay)), G + "huggingface/transformers/issues/14539"),
    Mutant("ADAMW/decay-ignored", adamw, "AdamW without decay", decayed(lambda p, new, lr, decay: new)),
    Mutant("ADAMW/decay-sign", adamw, "AdamW whose decay lets parameters grow",
           decayed(lambda p, new, lr, decay: new + lr * decay * p)),
    Mutant("ADAMW/decay-twice", adamw, "AdamW with the decay in the gradient and decoupled", _both_decays),
]
