"""L1: one update of every optimiser, clipping by the global norm, the learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from golden.case import Case, Draw

RATES = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.0}


def sgd() -> list[Case]:
    def case(
        slug: str,
        about: str,
        shape: tuple[int, ...],
        lr: float,
        momentum: float,
        start: float = 1.0,
        scale: float = 1.0,
    ) -> Case:
        draw = Draw(f"SGD/{slug}")
        inputs = {
            "p": draw.normal(*shape),
            "g": draw.normal(*shape, scale=scale),
            "v": draw.normal(*shape, scale=start),
        }
        return Case(f"SGD/{slug}", "sgd", about, inputs, {"lr": lr, "momentum": momentum}, gradient=False)

    return [
        case("plain", "no momentum: p - lr g; the velocity is the gradient", (4,), 0.125, 0.0, start=0.0),
        case("no-momentum-old-velocity", "momentum 0 forgets a velocity that is there", (3,), 0.125, 0.0),
        case("momentum-first", "the first step with momentum: the velocity starts at 0", (2, 3), 0.1, 0.9, start=0.0),
        case(
            "zero-gradient",
            "no gradient in this step: the velocity shrinks and still moves p",
            (3,),
            0.1,
            0.9,
            scale=0.0,
        ),
        case("momentum", "v' = momentum v + g, not damped by 1 - momentum; p moves by the NEW v", (2, 3), 0.1, 0.9),
    ]


def _adaptive(operation: str, slug: str, about: str, shape: tuple[int, ...], step: int, **more: Any) -> Case:
    """A first step starts from zero moments, a later one from moments that are there."""
    id = f"{operation.upper()}/{slug}"
    draw, old = Draw(id), more.pop("moments", float(step > 1))
    gradient = draw.normal(*shape, scale=more.pop("scale", 1.0))
    inputs = {
        "p": draw.normal(*shape),
        "g": gradient,
        "m": draw.normal(*shape, scale=old * 0.25),
        "v": np.abs(draw.normal(*shape, scale=old * 0.25)),
    }
    return Case(
        id,
        operation,
        about,
        inputs,
        {"step": step, **RATES, **more},
        gradient=False,
    )


def _shared(operation: str) -> list[Case]:
    def case(slug: str, about: str, shape: tuple[int, ...], step: int, **more: Any) -> Case:
        return _adaptive(operation, slug, about, shape, step, **more)

    return [
        case("first-step", "step 1 from zero moments: with both corrections the step is lr sign(g)", (5,), 1),
        case("seventh-step", "step 7 from moments that are there: 1 - beta^7 corrects", (2, 3), 7),
        case("large-eps", "eps = 0.25, outside the root and after the correction", (4,), 7, eps=0.25),
        case("large-eps-first", "eps = 0.25 at step 1, where the corrections are largest", (4,), 1, eps=0.25),
        case("other-betas", "beta1 = 0.5, beta2 = 0.75: not to be swapped", (4,), 3, beta1=0.5, beta2=0.75),
        case("beta1-zero", "no first moment: m' = g", (3,), 2, beta1=0.0),
        case("tiny-gradient", "gradients of about 1e-6: eps = 1e-8 is beside them, not nothing", (4,), 1, scale=1e-6),
        case("late-step", "step 1000: 1 - beta1^step is 1, 1 - beta2^step is not yet", (4,), 1000),
        case(
            "zero-gradient",
            "no gradient yet and no moments: no step, not 0/0; decay alone",
            (3,),
            1,
            decay=0.5,
            scale=0.0,
        ),
        case(
            "zero-gradient-later", "no gradient in this step: the moments shrink and still move p", (3,), 5, scale=0.0
        ),
        case(
            "zero-gradient-no-decay",
            "nothing pulls at all, no gradient, no moments, no decay: the step is 0 / (0 + eps) = 0, not NaN",
            (3,),
            1,
            scale=0.0,
        ),
        case(
            "zero-gradient-no-decay-later",
            "the same at step 50",
            (2, 2),
            50,
            scale=0.0,
            moments=0.0,
        ),
        case("decay-first", "weight decay 0.5 at step 1", (4,), 1, decay=0.5),
        case("decay", "weight decay 0.1 at step 7, matrix", (2, 3), 7, decay=0.1),
        case(
            "decay-large",
            "weight decay 0.5 with lr = 0.25: before or after the step, once or twice",
            (3,),
            4,
            decay=0.5,
            lr=0.25,
        ),
    ]


def adam() -> list[Case]:
    return _shared("adam")


def adamw() -> list[Case]:
    return _shared("adamw")


def clip_by_global_norm() -> list[Case]:
    def case(slug: str, about: str, clip: float, arrays: list[np.ndarray]) -> Case:
        inputs = {f"g.{n}": array for n, array in enumerate(arrays)}
        return Case(f"SGD/clip-{slug}", "clip_by_global_norm", about, inputs, {"clip": clip}, gradient=False)

    draw = Draw("SGD/clip")
    return [
        case(
            "above",
            "ONE norm over all arrays, and all are scaled by clip / norm",
            1.0,
            [draw.normal(2, 3), draw.normal(4), draw.normal(1)],
        ),
        case("below", "a norm below the limit changes nothing", 64.0, [draw.normal(3), draw.normal(2, 2)]),
        case(
            "one-large",
            "a large array scales the small one beside it too",
            0.5,
            [draw.normal(3, scale=8.0), draw.normal(3, scale=0.125)],
        ),
        case("exact", "norm 5 of (3, 4), limit 1", 1.0, [np.array([3.0]), np.array([4.0])]),
        case(
            "tiny-norm",
            "a norm of 1.2e-6 is clipped to half of it: what is added to the norm shows in every precision",
            5 * 2.0**-23,
            [np.array([3 * 2.0**-22]), np.array([4 * 2.0**-22])],
        ),
        case("zero", "zero gradients stay zero, not NaN", 1.0, [np.zeros(3), np.zeros((2, 1))]),
        case(
            "infinite",
            "an infinite norm is reported; clip / inf is 0, which leaves 0 of finite gradients and NaN (inf times 0) "
            "of the infinite one, which must not vanish",
            1.0,
            [np.array([1.0, math.inf]), np.array([[-2.0]])],
        ),
        case(
            "nan",
            "a gradient that is NaN makes the norm NaN, and with it every gradient",
            1.0,
            [np.array([1.0, math.nan]), np.array([[-2.0]])],
        ),
    ]


def warmup_cosine() -> list[Case]:
    def case(
        step: int, about: str, *, peak: float = 0.5, warmup: int = 4, total: int = 16, floor: float = 0.0625
    ) -> Case:
        keywords = {"step": step, "peak": peak, "warmup": warmup, "total": total, "floor": floor}
        floored = "" if floor else "-no-floor"
        slug = f"ADAMW/warmup-cosine-{warmup}-of-{total}-step-{step}{floored}"
        return Case(slug, "warmup_cosine", about, {}, keywords, gradient=False)

    return [
        case(1, "the first step has peak / warmup, not 0"),
        case(3, "the line upwards"),
        case(4, "the peak is at step == warmup"),
        case(5, "the first step of the cosine"),
        case(10, "half way down: the middle of peak and floor"),
        case(13, "three quarters down"),
        case(16, "the floor is at step == total"),
        case(17, "past the end it stays at the floor"),
        case(100, "long past the end"),
        case(1, "no warmup: step 1 is already on the cosine", warmup=0, total=8),
        case(1, "a warmup of one step: the peak at once", warmup=1, total=8),
        case(7, "no floor: down to 0", warmup=2, total=9, floor=0.0, peak=0.001),
        case(9, "no floor: 0 at the end", warmup=2, total=9, floor=0.0, peak=0.001),
        case(12, "no floor: 0 past the end", warmup=2, total=9, floor=0.0, peak=0.001),
        case(3, "the warm-up is all: the line upwards, without a division by total - warmup", warmup=4, total=4),
        case(4, "the warm-up is all: its end is the end, and the floor", warmup=4, total=4),
        case(5, "the warm-up is all: past the end the floor", warmup=4, total=4),
        case(1, "neither warm-up nor cosine: past the end at once", warmup=0, total=0),
    ]
