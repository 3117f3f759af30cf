"""L1: softmax, log-softmax, cross-entropy over indices and over distributions, mean squared error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from golden.case import Case, Draw

LARGE = [[88.5, 90.0, -3.0], [1000.0, 996.0, 992.0], [-1000.0, -1000.0, -1004.0]]


FAR = [[0.0, 800.0, 4.0], [1.0, -0.5, 2.0]]


def _rows(operation: str, id: str, about: str, x: Any, **more: Any) -> Case:
    return Case(f"SMX/{id}", operation, about, {"x": np.array(x, dtype=np.float64)}, {}, **more)


def _both(operation: str) -> list[Case]:
    """The cases that softmax and log-softmax share."""
    name = operation.replace("_", "-")

    def normal(slug: str, *shape: int) -> np.ndarray:
        return Draw(f"SMX/{slug}").normal(*shape)

    return [
        _rows(operation, f"{name}-vector", "one row", normal("vector", 5)),
        _rows(operation, f"{name}-rows", "over the LAST axis: rows differ from columns", normal("rows", 3, 4)),
        _rows(operation, f"{name}-square", "a square: the wrong axis has the right shape", normal("square", 3, 3)),
        _rows(operation, f"{name}-batch", "two leading dimensions", normal("batch", 2, 2, 3)),
        _rows(operation, f"{name}-one-class", "one class: probability 1, no gradient", normal("one", 3, 1)),
        _rows(operation, f"{name}-equal", "equal logits share equally", [[2.0] * 5]),
        _rows(operation, f"{name}-large", "beyond the range of exp in float32 (88) and float64 (709)", LARGE),
        _rows(
            operation,
            f"{name}-peaked",
            "one probability near 1, the others tiny but not lost",
            [[30.0, 0.0, -10.0, 1.0]],
        ),
    ]


def softmax() -> list[Case]:
    inf = math.inf
    return [
        *_both("softmax"),
        _rows(
            "softmax",
            "softmax-minus-infinity",
            "x = -inf has probability 0 and no gradient",
            [[1.0, -inf, 0.5], [-inf, -inf, 3.0]],
        ),
        _rows(
            "softmax",
            "softmax-nothing-left",
            "a row of only -inf gives zeros, not NaN; the next row is not harmed",
            [[-inf, -inf, -inf], [1.0, 2.0, -inf]],
        ),
    ]


def log_softmax() -> list[Case]:
    return [
        *_both("log_softmax"),
        _rows(
            "log_softmax",
            "log-softmax-minus-infinity",
            "x = -inf has log-probability -inf (its cotangent is 0)",
            [[1.0, -math.inf, 0.5]],
            cotangents={"y": np.array([[0.75, 0.0, -1.5]])},
        ),
    ]


def _indices(
    id: str, about: str, logits: Any, targets: Any, *, ignore: int | None = None, reduction: str = "mean", **more: Any
) -> Case:
    keywords = {"targets": np.array(targets, np.int64), "ignore": ignore, "reduction": reduction}
    return Case(id, "cross_entropy", about, {"logits": np.array(logits, dtype=np.float64)}, keywords, **more)


def cross_entropy() -> list[Case]:
    x = Draw("CE/logits").normal(4, 5, scale=2.0)
    padded = [3, -100, 0, -100]
    return [
        _indices("CE/mean", "the mean over the rows", x, [3, 1, 0, 4]),
        _indices("CE/sum", "the sum over the rows", x, [3, 1, 0, 4], reduction="sum"),
        _indices("CE/none", "a loss for every row", x, [3, 1, 0, 4], reduction="none"),
        _indices("CE/one-row", "no leading dimension", x[0], 2),
        _indices("CE/batch", "logits (B, T, V), mean over all tokens", x.reshape(2, 2, 5), [[0, 4], [2, 2]]),
        _indices(
            "CE/ignore-mean", "the mean is over the targets that are NOT ignored: 2, not 4", x, padded, ignore=-100
        ),
        _indices("CE/ignore-sum", "ignored targets cost nothing", x, padded, ignore=-100, reduction="sum"),
        _indices(
            "CE/ignore-none", "ignored targets have loss 0 and no gradient", x, padded, ignore=-100, reduction="none"
        ),
        _indices(
            "CE/ignore-in-vocabulary",
            "the ignored id may be a word of the vocabulary (padding = 0)",
            x,
            [0, 3, 0, 1],
            ignore=0,
        ),
        _indices(
            "CE/ignore-uneven-batch",
            "per token, not per sentence: 3 + 1 tokens count, so the divisor is 4",
            Draw("CE/uneven").normal(2, 3, 4),
            [[1, 2, 3], [0, -1, -1]],
            ignore=-1,
        ),
        _indices("CE/ignore-all", "nothing left: the mean is 0, not NaN", x[:2], [-100, -100], ignore=-100),
        _indices(
            "CE/large-logits",
            "beyond the range of exp; the loss of a sure mistake is the gap, not infinity",
            LARGE,
            [0, 2, 1],
        ),
        _indices(
            "CE/far-target",
            "the target 800 below the largest: its probability underflows, its loss is 800",
            FAR,
            [0, 2],
            reduction="sum",
        ),
        _indices(
            "CE/minus-infinity",
            "a class that is ruled out by a logit of -inf costs nothing and has no gradient",
            [[1.0, -math.inf, 0.5], [-math.inf, 2.0, -1.0]],
            [0, 2],
        ),
        _indices(
            "CE/none-batch",
            "a loss for every token, in the shape (B, T) of the targets",
            x.reshape(2, 2, 5),
            [[0, -1], [-1, 4]],
            ignore=-1,
            reduction="none",
        ),
        _indices(
            "CE/certain",
            "a token whose loss is 0 in every precision still counts in the mean",
            [[800.0, 0.0, -4.0], [1.0, -0.5, 2.0]],
            [0, 2],
        ),
        _indices("CE/sure-and-right", "a tiny loss is not zero", [[30.0, 0.0, -10.0]], [0], reduction="sum"),
        _indices(
            "NLL/sum-of-tokens",
            "-sum_t log P(x_t given x_<t): the loss of a sentence of 4 words",
            x,
            [1, 1, 2, 0],
            reduction="sum",
        ),
        _indices(
            "CE/e2-index",
            "y = [0,1,0], p = [0.1, 0.8, 0.1] as logits log p + log 10: -ln 0.8 = "
            "0.22314355131420976 up to the rounding of log 8",
            [0.0, math.log(8), 0.0],
            1,
            reduction="sum",
            erratum="E2",
            printed={"loss": 5.0474, "-log 0.8": 1.4422},
        ),
        _indices(
            "CE/e16-indicator",
            "m_t is the 0/1 indicator of position t: the loss sums over the positions with m_t = 1 (here 1 and 3)",
            x,
            [-1, 2, -1, 0],
            ignore=-1,
            reduction="sum",
            erratum="E16",
        ),
    ]


def _soft(id: str, about: str, logits: Any, targets: Any, reduction: str = "mean", **more: Any) -> Case:
    inputs = {"logits": np.array(logits, dtype=np.float64), "targets": np.array(targets, dtype=np.float64)}
    return Case(id, "soft_cross_entropy", about, inputs, {"reduction": reduction}, **more)


def soft_cross_entropy() -> list[Case]:
    x = Draw("CE/soft-logits").normal(3, 4, scale=2.0)
    y = [[0.5, 0.25, 0.125, 0.125], [0.0, 1.0, 0.0, 0.0], [0.25] * 4]
    return [
        _soft("CE/soft-mean", "distributions as targets; the mean is over rows, not over elements", x, y),
        _soft("CE/soft-sum", "summed over rows", x, y, "sum"),
        _soft("CE/soft-none", "a loss for every row", x, y, "none"),
        _soft("CE/soft-one-row", "no leading dimension", x[0], y[0]),
        _soft("CE/soft-batch", "two leading dimensions", x[:2].reshape(1, 2, 4), np.array(y[:2]).reshape(1, 2, 4)),
        _soft("CE/soft-large", "beyond the range of exp", LARGE, [[0.5, 0.25, 0.25], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]]),
        _soft(
            "CE/soft-zero-times-zero",
            "0 log 0 is 0 where the probability has underflowed",
            [[800.0, 0.0, 0.0], [0.5, -1.0, 2.0]],
            [[1.0, 0.0, 0.0], [0.25, 0.75, 0.0]],
        ),
        _soft(
            "CE/soft-far-target",
            "a share of 0.25 on a class 800 below the largest",
            FAR,
            [[0.25, 0.75, 0.0], [0.5, 0.5, 0.0]],
        ),
        _soft(
            "CE/soft-not-a-distribution",
            "targets that do not sum to 1: the gradient is p sum(y) - y; the mean is over all four rows of (2, 2, 3)",
            Draw("CE/soft-not-a-distribution").normal(2, 2, 3),
            [[[0.5, 0.25, 0.75], [0.25, 0.0, 0.25]], [[1.0, 2.0, 0.0], [0.0, 0.125, 0.5]]],
        ),
        _soft(
            "CE/e2-one-hot",
            "y = [0,1,0], p = [0.1, 0.8, 0.1] as logits log p + log 10: terms with y_i = 0 vanish, "
            "-ln 0.8 = 0.22314355131420976 remains",
            [0.0, math.log(8), 0.0],
            [0.0, 1.0, 0.0],
            "sum",
            erratum="E2",
            printed={"loss": 5.0474, "-log 0.8": 1.4422},
        ),
    ]


def mean_squared_error() -> list[Case]:
    def case(slug: str, about: str, *shape: int) -> Case:
        draw = Draw(f"MSE/{slug}")
        inputs = {"x": draw.normal(*shape), "t": draw.normal(*shape)}
        return Case(f"MSE/{slug}", "mean_squared_error", about, inputs, {})

    near = Draw("MSE/near").normal(4, offset=100.0)
    return [
        case("vector", "the mean of squared differences, without a factor 1/2", 5),
        case("matrix", "the mean is over all elements, not over rows", 3, 4),
        case("batch", "three dimensions", 2, 3, 2),
        case("one", "one element: (x - t)^2", 1),
        Case(
            "MSE/near",
            "mean_squared_error",
            "large numbers close together: subtract before squaring",
            {"x": near, "t": near + np.array([0.5, -0.5, 1.0, 0.0])},
            {},
        ),
    ]
