"""L1: what fine-tuning and compression compute: low-rank adapters, distillation, weights of 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw, bfloat16


def low_rank_linear() -> list[Case]:
    def case(slug: str, about: str, x: tuple[int, ...], out: int, rank: int, alpha: float, **given: Any) -> Case:
        id = f"FINETUNE/low-rank-{slug}"
        draw, I = Draw(id), x[-1]
        inputs = {
            "x": draw.normal(*x),
            "W": draw.normal(I, out),
            "A": draw.normal(I, rank),
            "B": draw.normal(rank, out),
        }
        return Case(id, "low_rank_linear", about, {**inputs, **given}, {"alpha": alpha})

    return [
        case("rows", "alpha / r = 16 / 2: neither alpha nor r alone", (3, 4), 5, 2, 16.0),
        case("alpha-is-rank", "a scale of 1", (2, 3), 4, 3, 3.0),
        case("rank-one", "alpha / 1", (2, 3), 4, 1, 8.0),
        case("below-one", "alpha below the rank: a scale of 1/4, which whole numbers would round to 0", (2, 5),
             5, 4, 1.0),
        case("square", "I = O = r hides no transpose here", (2, 3), 3, 3, 6.0),
        case("batch", "two leading axes; the gradients of W, A and B sum over both", (2, 3, 4), 3, 2, 4.0),
        case("vector", "no leading axis", (4,), 3, 2, 4.0),
        case("no-rows", "an empty batch: gradients of zeros", (0, 4), 3, 2, 4.0),
        case("start", "B = 0, as at the start: y = x W, no gradient for A, one for B", (3, 4), 5, 2, 16.0,
             B=np.zeros((2, 5))),
        case("uneven-alpha", "alpha / r that no binary number holds", (2, 3), 4, 3, 10.0),
    ]  # fmt: skip


def distillation_loss() -> list[Case]:
    def case(slug: str, about: str, rows: tuple[int, ...], V: int, **how: Any) -> Case:
        id = f"COMPRESS/distil-{slug}"
        draw = Draw(id)
        z = how.pop("logits", None)
        teacher = how.pop("teacher", None)
        inputs = {"logits": draw.normal(*rows, V, scale=2.0) if z is None else z}
        keywords = {
            "teacher": draw.normal(*rows, V, scale=2.0) if teacher is None else teacher,
            "targets": draw.integers(*rows, high=V),
            "smoothing": 0.0,
            "temperature": 2.0,
            "share": 0.5,
            **how,
        }
        return Case(id, "distillation_loss", about, inputs, keywords)

    same = Draw("COMPRESS/distil-same").normal(3, 4)
    return [
        case("usual", "half the teacher's, at temperature 2: T² makes good what 1/T takes twice", (3,), 5),
        case("hot", "temperature 8: without T² the teacher would say 1/64 as much", (3,), 5, temperature=8.0),
        case("cold", "temperature 0.5: T² is 1/4", (3,), 5, temperature=0.5),
        case("one", "temperature 1", (3,), 5, temperature=1.0),
        case("teacher-alone", "share 1: the targets say nothing", (3,), 5, share=1.0),
        case("labels-alone", "share 0: the teacher says nothing", (3,), 5, share=0.0),
        case("uneven", "share 0.25 is the teacher's, 0.75 the labels'", (3,), 5, share=0.25),
        case("smoothed", "labels smoothed by 0.25, the teacher's probabilities not", (3,), 4, smoothing=0.25),
        case("same", "the student says what the teacher says: no gradient from the teacher", (3,), 4, logits=same,
             teacher=same, share=1.0),
        case("sure", "a teacher who is sure, a student who is wrong", (1,), 3, logits=np.array([[16.0, 0.0, -16.0]]),
             teacher=np.array([[-16.0, 0.0, 16.0]]), temperature=4.0),
        case("batch", "two leading axes: a number a place", (2, 3), 4),
        case("vector", "no leading axis", (), 4),
    ]  # fmt: skip


def quantised() -> list[Case]:
    def case(slug: str, about: str, W: Any) -> Case:
        return Case(f"COMPRESS/int8-{slug}", "quantised", about, {"W": bfloat16(W)}, {}, gradient=False)

    halves = [[127.0, -127.0], [0.5, -0.5], [1.5, -1.5], [2.5, -2.5], [126.5, -126.5], [0.25, 0.75]]
    return [
        case("halves", "s = 1: of two equally near whole numbers the even one: 0.5 is 0, 1.5 is 2, 2.5 is 2", halves),
        case("columns", "a scale an output channel, not one for the matrix",
             [[127.0, 0.5], [-63.5, 0.3125], [32.0, -0.125]]),
        case("rows-differ", "the channel is the column: y = x W", [[127.0, 254.0], [1.0, 3.0], [7.0, 100.0]]),
        case("negative-largest", "the largest is negative: -127, never -128", [[-254.0, 4.0], [200.0, -508.0]]),
        case("zeros", "a channel of zeros: zeros with a scale of 1", [[0.0, 127.0], [0.0, -12.0]]),
        case("small", "weights of the size that models have",
             [[0.0625, -0.03], [-0.015625, 0.0078125], [0.03, 0.01]]),
        case("tiny", "weights far below 1e-5 keep their digits", [[2.0**-30, 2.0**-24], [3 * 2.0**-33, -(2.0**-26)]]),
        case("one", "one weight: ±127", [[-0.375]]),
        case("one-channel", "I = 5, O = 1", [[5.0], [-3.0], [2.0], [127.0], [-64.0]]),
    ]  # fmt: skip
