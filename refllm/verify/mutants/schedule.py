"""Mistakes of the learning rate's schedule, and of clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from refllm.backend import Array
from refllm.optim.clip import clip_factor
from refllm.optim.schedule import warmup_cosine
from refllm.verify.mutants.bank import Function, Mutant
from refllm.verify.reference import clip_by_global_norm


def schedule(
    *,
    up: Callable[[float, float, float], float] = lambda step, max_lr, warmup: max_lr * step / warmup,
    down: Callable[[float], float] = lambda t: (1 + math.cos(math.pi * t)) / 2,
    progress: Callable[[float, float, float], float] = lambda s, warmup, total: (
        (s - warmup) / (total - warmup) if total > warmup else 1.0
    ),
    bounded: bool = True,
    scaled: Callable[[float, float, float], float] = lambda part, max_lr, min_lr: min_lr + (max_lr - min_lr) * part,
) -> Function:
    """The schedule with a part of it exchanged."""

    def changed(step: float, *, max_lr: float, warmup: float, total: float, min_lr: float) -> float:
        if step < warmup:
            return up(step, max_lr, warmup)
        t = progress(step, warmup, total)
        return scaled(down(1.0 if bounded and t > 1 else t), max_lr, min_lr)

    return changed


def _over_nothing(step: float, warmup: float, total: float) -> float:
    return (step - warmup) / (total - warmup) if total > warmup else math.nan


def clipped(factor: Callable[[list[Array], float], Any], norm: bool = True) -> Function:
    """clip_factor with another factor; or, with norm=False, one that also reports the norm after clipping."""

    def changed(gradients: Sequence[Array], *, limit: float) -> tuple[Array, Array]:
        right, _ = clip_factor(gradients, limit=limit)
        with numpy.errstate(all="ignore"):
            found = numpy.asarray(factor(list(gradients), limit))
        return (right if norm else right * found), found

    return changed


def _root(gradients: list[Array]) -> float:
    return math.sqrt(sum(float((g * g).sum()) for g in gradients))


def other_norm(size: Callable[[list[Array]], float]) -> Function:
    """clip_factor with another norm."""

    def changed(gradients: Sequence[Array], *, limit: float) -> tuple[Array, Array]:
        norm = size(list(gradients))
        return numpy.asarray(norm), numpy.asarray(min(1.0, limit / norm) if norm else 1.0)

    return changed


def _each_by_itself(g: list[Array], *, clip: float) -> tuple[Array, list[Array]]:
    norm, _ = clip_by_global_norm(g, clip=clip)
    return norm, [x * min(1.0, clip / max(_root([x]), clip)) for x in g]


def _by_value(g: list[Array], *, clip: float) -> tuple[Array, list[Array]]:
    norm, _ = clip_by_global_norm(g, clip=clip)
    return norm, [numpy.clip(x, -clip, clip) for x in g]


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Mutant("ADAMW/schedule-from-zero", warmup_cosine, "a schedule whose steps count from 0: the first rate is 0",
           lambda step, **how: schedule()(step - 1, **how), G + "meta-pytorch/torchtune/issues/2010"),
    Mutant("ADAMW/warmup-one-late", warmup_cosine, "a warm-up to peak (step + 1) / warmup",
           schedule(up=lambda step, max_lr, warmup: max_lr * (step + 1) / warmup)),
    Mutant("ADAMW/warmup-over-one-more", warmup_cosine, "a warm-up to peak step / (warmup + 1)",
           schedule(up=lambda step, max_lr, warmup: max_lr * step / (warmup + 1))),
    Mutant("ADAMW/no-warmup", warmup_cosine, "a schedule without a warm-up",
           schedule(up=lambda step, max_lr, warmup: max_lr)),
    Mutant("ADAMW/cosine-from-start", warmup_cosine, "a cosine over all steps, the warm-up among them",
           schedule(progress=lambda s, warmup, total: s / max(1, total))),
    Mutant("ADAMW/cosine-to-zero", warmup_cosine, "a cosine that ends at 0 instead of the floor",
           schedule(scaled=lambda part, max_lr, min_lr: max_lr * part)),
    Mutant("ADAMW/floor-as-share", warmup_cosine, "a schedule that takes the floor for a share of the peak",
           schedule(scaled=lambda part, max_lr, min_lr: max_lr * (min_lr + (1 - min_lr) * part))),
    Mutant("ADAMW/floor-added", warmup_cosine, "a cosine from peak + floor to the floor",
           schedule(scaled=lambda part, max_lr, min_lr: min_lr + max_lr * part)),
    Mutant("ADAMW/cosine-clamped", warmup_cosine, "a cosine to 0 that is cut off at the floor",
           schedule(scaled=lambda part, max_lr, min_lr: max(min_lr, max_lr * part))),
    Mutant("ADAMW/cosine-comes-back", warmup_cosine, "a cosine that rises again after the last step",
           schedule(bounded=False)),
    Mutant("ADAMW/whole-period", warmup_cosine, "a whole period of the cosine instead of half of one",
           schedule(down=lambda t: (1 + math.cos(2 * math.pi * t)) / 2)),
    Mutant("ADAMW/quarter-period", warmup_cosine, "a quarter of the cosine's period", schedule(
           down=lambda t: math.cos(math.pi * t / 2))),
    Mutant("ADAMW/linear-decay", warmup_cosine, "a straight line down instead of a cosine",
           schedule(down=lambda t: 1 - t)),
    Mutant("ADAMW/divided-by-nothing", warmup_cosine, "a schedule that divides by total - warm-up where they are equal",
           schedule(progress=_over_nothing), G + "deepspeedai/DeepSpeed/issues/8142"),
    Mutant("ADAMW/constant", warmup_cosine, "a rate that stays at its peak", schedule(down=lambda t: 1.0)),
    Mutant("SGD/clip-each", clip_by_global_norm, "clipping of every array by its own norm", _each_by_itself,
           G + "huggingface/transformers/issues/581"),
    Mutant("SGD/clip-by-value", clip_by_global_norm, "clipping of every element by its value", _by_value),
    Mutant("SGD/clip-always", clip_factor, "gradients scaled to the limit even if their norm is below it",
           clipped(lambda g, limit: limit / _root(g) if limit < math.inf and _root(g) else 1.0)),
    Mutant("SGD/clip-never", clip_factor, "gradients that are not clipped", clipped(lambda g, limit: 1.0)),
    Mutant("SGD/clip-turned", clip_factor, "gradients multiplied by max(1, clip / norm)",
           clipped(lambda g, limit: max(1.0, limit / _root(g)) if limit < math.inf and _root(g) else 1.0)),
    Mutant("SGD/clip-eps", clip_factor, "clipping by clip / (norm + 1e-6)",
           clipped(lambda g, limit: numpy.minimum(1.0, limit / (_root(g) + 1e-6)))),
    Mutant("SGD/clip-by-square", clip_factor, "clipping by the squared norm", other_norm(lambda g: _root(g) ** 2)),
    Mutant("SGD/clip-sum-of-norms", clip_factor, "clipping by the sum of the arrays' norms",
           other_norm(lambda g: sum(_root([x]) for x in g))),
    Mutant("SGD/clip-largest-norm", clip_factor, "clipping by the largest norm of an array",
           other_norm(lambda g: max(_root([x]) for x in g))),
    Mutant("SGD/clip-absolute", clip_factor, "clipping by the sum of absolute values",
           other_norm(lambda g: float(sum(numpy.abs(x).sum() for x in g)))),
    Mutant("SGD/clip-mean-square", clip_factor, "clipping by the root of the MEAN square",
           other_norm(lambda g: _root(g) / math.sqrt(sum(x.size for x in g)))),
    Mutant("SGD/clip-norm-after", clip_factor, "clipping that reports the norm after it, not before",
           clipped(lambda g, limit: min(1.0, limit / max(_root(g), limit)) if limit < math.inf else 1.0, norm=False)),
]
