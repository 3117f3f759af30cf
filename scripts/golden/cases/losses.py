"""L1: softmax, log-softmax, cross-entropy over indices and over distributions, mean squared error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from golden.case import Case, Draw

LARGE = [[88.5, 90.0, -3.0], [1000.0, 996.0, 992.0], [-1000.0, -1000.0, -1004.0]]


FAR = [[0.0, 800.0, 4.0], [1.0, -0.5, 2.0]]
PEAKED = [30.0, 0.0, -10.0, 1.0]
WIDE = [1000.0, 0.0, -4.0, 1.0]  # beside the first the others have probability 0 in float64, and a logarithm


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
            [PEAKED],
        ),
    ]


UNEVEN = [[1000.0, 996.0], [0.0, 1.0], [-1000.0, -996.0]]


def _uneven(operation: str) -> list[Case]:
    name = operation.replace("_", "-")
    about = "rows of very different size: the shift is the maximum of the row, not of all"
    none = "an empty batch has empty answers"
    return [
        _rows(operation, f"{name}-uneven-rows", about, UNEVEN),
        Case(f"SMX/{name}-no-rows", operation, none, {"x": np.zeros((0, 4))}, {}),
    ]


def softmax() -> list[Case]:
    inf = math.inf
    return [
        *_both("softmax"),
        *_uneven("softmax"),
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
        *_uneven("log_softmax"),
        _rows(
            "log_softmax",
            "log-softmax-far-apart",
            "scores that lie 1000 apart beside ordinary ones: the logarithm of a guarded softmax has lost them",
            [PEAKED, WIDE],
        ),
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
        _indices(
            "CE/ignore-wraps",
            "ignore = -2, which read as an index from the end is a class",
            x,
            [3, -2, 0, -2],
            ignore=-2,
        ),
        _indices(
            "CE/ignore-hundred-wraps",
            "ignore = -100 among 104 classes, where it is class 4 from the end",
            Draw("CE/hundred").normal(2, 104),
            [7, -100],
            ignore=-100,
        ),
        _indices(
            "CE/uneven-rows",
            "rows of very different size: the shift is the maximum of the row, not of all",
            UNEVEN,
            [0, 0, 1],
            reduction="none",
        ),
        _indices(
            "CE/no-rows", "an empty batch: no loss, and no gradient", np.zeros((0, 5)), np.zeros(0), reduction="sum"
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


def smoothed_cross_entropy() -> list[Case]:
    def case(
        slug: str, about: str, logits: Any, targets: Any, smoothing: float, *, ignore: int | None = None,
        reduction: str = "mean",
    ) -> Case:  # fmt: skip
        inputs = {"logits": np.array(logits, dtype=np.float64)}
        how = {"targets": np.array(targets), "ignore": ignore, "smoothing": smoothing, "reduction": reduction}
        return Case(f"CE/smoothed-{slug}", "smoothed_cross_entropy", about, inputs, how)

    x = Draw("CE/smoothed-logits").normal(4, 5, scale=2.0)
    return [
        case("tenth", "0.9 of the target and 0.02 of each of the five classes, the target too", x, [3, 1, 0, 4], 0.1),
        case("sum", "the sum over the rows", x, [3, 1, 0, 4], 0.25, reduction="sum"),
        case("none", "a loss for every row", x, [3, 1, 0, 4], 0.25, reduction="none"),
        case("zero", "no smoothing: cross-entropy", x, [3, 1, 0, 4], 0.0),
        case("half", "half of it on all classes alike", x, [2, 2, 1, 0], 0.5),
        case("batch", "logits (B, T, V)", x.reshape(2, 2, 5), [[0, 4], [2, 2]], 0.125),
        case("ignore", "an ignored place costs nothing, not its share of smoothing either, and is not counted", x,
             [3, -100, 0, -100], 0.25, ignore=-100),
        case("ignore-uneven-batch", "per token, not per sentence: 3 + 1 tokens count, so the divisor is 4",
             Draw("CE/smoothed-uneven").normal(2, 3, 4), [[1, 2, 3], [0, -1, -1]], 0.25, ignore=-1),
        case("ignore-wraps", "ignore = -2, which read as an index from the end is a class", x, [3, -2, 0, -2], 0.25,
             ignore=-2),
        case("ignore-none", "its loss is 0", x, [-1, 2, -1, 0], 0.25, ignore=-1, reduction="none"),
        case("ignore-all", "nothing left: 0, not NaN", x[:2], [-1, -1], 0.25, ignore=-1),
        case("large", "beyond the range of exp: a sure answer costs its share of the other classes", LARGE, [0, 2, 1],
             0.125),
        case("two-classes", "V = 2: shared by both classes, not given to the other alone", x[:, :2], [0, 1, 1, 0],
             0.25),
    ]  # fmt: skip


def mean_pool() -> list[Case]:
    def case(slug: str, about: str, shape: tuple[int, ...], valid: Any = None) -> Case:
        id = f"CTR/pool-{slug}"
        valid = None if valid is None else np.array(valid)
        return Case(id, "mean_pool", about, {"h": Draw(id).normal(*shape)}, {"valid": valid})

    return [
        case("all", "the mean over the tokens, not over the entries", (3, 4)),
        case("square", "as many tokens as entries", (2, 3, 3)),
        case("valid", "over the valid tokens alone: 1, 3 and 2 of them", (3, 3, 2),
             [[True, False, False], [True, True, True], [False, True, True]]),
        case("nothing", "a text without a valid token gives zeros, not NaN", (2, 2, 3),
             [[False, False], [True, False]]),
    ]  # fmt: skip


def info_nce() -> list[Case]:
    def case(slug: str, about: str, N: int, C: int, temperature: float, a: float = 1.0, b: float = 1.0) -> Case:
        id = f"CTR/{slug}"
        draw = Draw(id)
        inputs = {"a": draw.normal(N, C, scale=a), "b": draw.normal(N, C, scale=b)}
        return Case(id, "info_nce", about, inputs, {"temperature": temperature})

    return [
        case("three", "row i of b belongs to row i of a, the other rows of b are its negatives", 3, 4, 0.5),
        case("square", "as many rows as entries", 4, 4, 1.0),
        case("cold", "temperature 0.0625: cosines of +-1 become +-16", 4, 3, 0.0625),
        case("uneven-lengths", "rows of a 64 times as long as those of b: the length does not count", 3, 3, 0.25, 64.0),
        case("one-pair", "no negative: the loss is 0 and so are the gradients", 1, 3, 0.5),
        Case("CTR/one-wide", "info_nce", "C = 1: a cosine is 1 or -1", {"a": np.array([[2.0], [-0.5], [1.0]]),
             "b": np.array([[1.0], [3.0], [-1.0]])}, {"temperature": 0.5}, gradient=False),
        Case("CTR/zero-row", "info_nce", "a row of zeros has cosines of 0, not NaN; its slope is left open",
             {"a": np.array([[0.0, 0.0], [1.0, -2.0]]), "b": np.array([[0.5, 1.0], [0.0, 0.0]])}, {"temperature": 0.5},
             gradient=False),
    ]  # fmt: skip


def l2_penalty() -> list[Case]:
    def case(slug: str, about: str, strength: float, *shape: int) -> Case:
        id = f"L2/{slug}"
        return Case(id, "l2_penalty", about, {"w": Draw(id).normal(*shape)}, {"strength": strength})

    return [
        case("matrix", "half the strength times the sum of all squares, not their mean", 0.25, 2, 3),
        case("vector", "the gradient is strength times w, without a factor 2", 0.01, 4),
        case("zero", "no strength", 0.0, 3),
        case("batch", "three dimensions", 2.0, 2, 1, 2),
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
