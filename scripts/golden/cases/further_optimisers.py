"""L1: Lion, Muon, the running mean of the weights, a loss over several micro-batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw


def _before_a_step(
    id: str, state: str, shape: tuple[int, ...], *, start: float, scale: float, given: Any
) -> dict[str, np.ndarray]:
    """Parameters, gradient of that scale and what the optimiser keeps; a `given` array is not drawn."""
    draw = Draw(id)
    drawn = {"p": draw.normal(*shape), "g": draw.normal(*shape, scale=scale), state: draw.normal(*shape, scale=start)}
    return drawn | {name: np.array(x) for name, x in (given or {}).items()}


def lion() -> list[Case]:
    def case(slug: str, about: str, shape: tuple[int, ...], *, start: float = 1.0, scale: float = 1.0,
             given: Any = None, **how: Any) -> Case:  # fmt: skip
        id = f"LION/{slug}"
        inputs = _before_a_step(id, "m", shape, start=start, scale=scale, given=given)
        keywords = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "decay": 0.0, **how}
        return Case(id, "lion", about, inputs, keywords, gradient=False)

    return [
        case("first", "from a momentum of zeros: p - lr sign(g), m' = (1 - beta2) g", (4,), start=0.0, scale=4.0),
        case("later", "the sign is that of beta1 m + (1 - beta1) g", (2, 3)),
        case("turns", "gradient and momentum disagree: beta1 decides, not beta2", (4,), lr=0.125, beta1=0.5, beta2=0.75,
             given={"g": [3.0, -3.0, 2.0, -2.0], "m": [-2.0, 2.0, -1.0, 1.0]}),
        case("old-momentum", "the sign is taken before the momentum takes the gradient in with beta2", (3,), lr=0.25,
             beta1=0.75, beta2=0.25, given={"g": [2.0, -2.0, 1.0], "m": [-1.0, 1.0, -1.0]}),
        case("sizes", "a gradient of 64 moves as far as one of 0.5", (2,), lr=0.5, beta1=0.5, beta2=0.5,
             given={"g": [64.0, -0.5], "m": [0.0, 0.0]}),
        case("zero", "neither gradient nor momentum: the sign of 0 is 0", (3,), given={"g": [0.0, 1.0, 0.0],
             "m": [0.0, 0.0, 0.0]}, beta1=0.5),
        case("cancels", "gradient and momentum cancel: no step", (2,), beta1=0.5, given={"g": [2.0, -1.0],
             "m": [-2.0, 1.0]}),
        case("decay", "weight decay beside the sign, times lr, not in the momentum", (4,), decay=0.5, lr=0.25),
        case("decay-alone", "no gradient: decay alone moves", (3,), start=0.0, scale=0.0, decay=0.1, lr=0.5),
        case("beta1-zero", "beta1 = 0: the sign of the gradient", (4,), beta1=0.0),
        case("no-axis", "one number without an axis", (), lr=0.125),
        case("nothing", "an array without entries", (0, 3)),
    ]  # fmt: skip


def muon() -> list[Case]:
    def case(slug: str, about: str, shape: tuple[int, int], *, start: float = 1.0, scale: float = 1.0,
             given: Any = None, **how: Any) -> Case:  # fmt: skip
        id = f"MUON/{slug}"
        inputs = _before_a_step(id, "v", shape, start=start, scale=scale, given=given)
        keywords = {"lr": 0.125, "momentum": 0.95, "nesterov": True, "decay": 0.0, **how}
        return Case(id, "muon", about, inputs, keywords, gradient=False)

    return [
        case("first", "from a velocity of zeros", (3, 3), start=0.0),
        case("later", "the velocity is 0.95 of what it was, and the gradient", (3, 3)),
        case("plain", "without Nesterov's look ahead", (3, 3), nesterov=False),
        case("wide", "more columns than rows: a scale of 1", (2, 5)),
        case("tall", "more rows than columns: a scale of the root of 5 / 2, and the other product inside", (5, 2)),
        case("row", "one row: the direction, times what five steps make of 1", (1, 4)),
        case("column", "one column", (4, 1)),
        case("one", "one number", (1, 1)),
        case("large", "gradients of hundreds: their size does not matter", (2, 3), scale=512.0, start=0.0),
        case("small", "gradients of 1e-6: beside them 1e-7 is not nothing", (2, 2), scale=2.0**-20, start=0.0),
        case("zero", "no gradient: no step, not 0 / 0", (2, 2), start=0.0, scale=0.0),
        case("decay", "weight decay 0.5 times lr, of the parameter alone", (2, 3), decay=0.5),
        case("decay-tall", "the decay is not multiplied by the scale of a tall matrix", (4, 2), decay=0.75),
        case("no-momentum", "a momentum of 0: the gradient alone", (2, 3), momentum=0.0),
        case("orthogonal", "a gradient that is orthogonal stays so, but for its size", (2, 2), start=0.0,
             given={"g": [[3.0, -4.0], [4.0, 3.0]]}),
    ]  # fmt: skip


def average_weights() -> list[Case]:
    def case(slug: str, about: str, shape: tuple[int, ...], step: int, decay: float, warmup: bool = False) -> Case:
        id = f"EMA/{slug}"
        draw = Draw(id)
        inputs = {"a": draw.normal(*shape), "p": draw.normal(*shape)}
        keywords = {"step": step, "decay": decay, "warmup": warmup}
        return Case(id, "average_weights", about, inputs, keywords, gradient=False)

    return [
        case("usual", "decay 0.999 of the average, 0.001 of the weights", (2, 3), 5, 0.999),
        case("half", "decay 0.5", (4,), 1, 0.5),
        case("uneven", "decay 0.75: average and weights not exchanged", (4,), 3, 0.75),
        case("keeps", "decay 1: the average stays", (3,), 2, 1.0),
        case("follows", "decay 0: the weights", (3,), 2, 0.0),
        case("warm-first", "warm-up at step 1: 2 / 11 of the average", (4,), 1, 0.999, True),
        case("warm-later", "warm-up at step 90: 91 / 100", (4,), 90, 0.999, True),
        case("warm-over", "the warm-up is over: the decay itself", (4,), 10000, 0.999, True),
        case("warm-border", "step 8: 9 / 18 is the decay", (3,), 8, 0.5, True),
        case("warm-small", "a small decay is never raised", (3,), 100, 0.25, True),
        case("no-axis", "one number without an axis", (), 4, 0.75),
        case("nothing", "an array without entries", (0, 2), 1, 0.9),
    ]  # fmt: skip


def accumulated_cross_entropy() -> list[Case]:
    def case(slug: str, about: str, shape: tuple[int, ...], *, ignored: Any = None, logits: Any = None) -> Case:
        """`ignored`: how many of the last targets of each micro-batch do not count."""
        id = f"ACCUM/{slug}"
        draw = Draw(id)
        z = draw.normal(*shape, scale=2.0) if logits is None else np.array(logits)
        targets = draw.integers(*shape[:-1], high=shape[-1])
        if ignored is not None:
            flat = targets.reshape(shape[0], -1)
            for row, count in zip(flat, ignored, strict=True):
                row[len(row) - count :] = -100
        keywords = {"targets": targets, "ignore": None if ignored is None else -100}
        return Case(id, "accumulated_cross_entropy", about, {"logits": z}, keywords)

    return [
        case("uneven", "1 and 4 targets: the mean of the means counts the first four times", (2, 4, 5),
             ignored=[3, 0]),
        case("even", "equal counts: the mean of the means is the same number", (2, 3, 4)),
        case("even-ignored", "equal counts that are not the sizes", (2, 4, 3), ignored=[2, 2]),
        case("one", "one micro-batch: the mean itself", (1, 4, 3), ignored=[1]),
        case("three", "counts of 4, 2 and 1", (3, 4, 3), ignored=[0, 2, 3]),
        case("empty-one", "a micro-batch without a target adds nothing, and does not divide", (2, 3, 4),
             ignored=[3, 1]),
        case("nothing", "no target at all: 0, not 0 / 0", (2, 2, 3), ignored=[2, 2]),
        case("batches", "micro-batches of two texts each", (2, 2, 3, 4), ignored=[4, 1]),
        case("square", "M = T = V", (3, 3, 3), ignored=[2, 0, 1]),
        case("far", "logits that overflow without the shift", (2, 1, 2), logits=[[[1000.0, 0.0]], [[-1000.0, 8.0]]]),
    ]  # fmt: skip
