"""L1: layer normalisation, activations, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw, bfloat16


def _norm(id: str, about: str, x: Any, eps: float = 1e-5) -> Case:
    x = np.array(x, dtype=np.float64)
    draw, C = Draw(f"LN/{id}"), x.shape[-1]
    return Case(f"LN/{id}", "layer_norm", about, {"x": x, "g": draw.normal(C), "b": draw.normal(C)}, {"eps": eps})


def layer_norm() -> list[Case]:
    def normal(slug: str, *shape: int, **spread: float) -> np.ndarray:
        return Draw(f"LN/{slug} x").normal(*shape, **spread)

    return [
        _norm("vector", "one row of five", normal("vector", 5)),
        _norm("rows", "over the last axis, row by row", normal("rows", 3, 4)),
        _norm("square", "a square: the wrong axis has the right shape", normal("square", 3, 3)),
        _norm("batch", "two leading dimensions; the gradients of g and b sum over both", normal("batch", 2, 2, 3)),
        _norm("two-wide", "C = 2: the biased variance divides by 2, the unbiased by 1", normal("two", 3, 2)),
        _norm("one-wide", "C = 1: y = b", normal("one", 3, 1)),
        _norm(
            "constant-row",
            "a constant row gives b, never NaN; the row beside it is not harmed",
            [[3.0, 3.0, 3.0, 3.0], [1.0, -2.0, 0.5, 4.0]],
        ),
        _norm(
            "tiny-variance",
            "variance of about 1e-6: eps = 1e-5 decides, and its place inside the root shows",
            normal("tiny", 3, 4, scale=1e-3),
        ),
        _norm("large-eps", "eps = 0.25 inside the root, not beside it", normal("large-eps", 2, 4), eps=0.25),
        _norm("small-eps", "eps = 1e-12 (BERT) on ordinary rows", normal("small-eps", 2, 4), eps=1e-12),
        _norm(
            "large-mean",
            "mean +-240 and a spread of a few, C = 7 (no power of two): E[x^2] - E[x]^2 loses most digits of float32",
            [[240, 241, 243, 239, 238, 241, 240], [-250, -251, -249, -255, -250, -252, -247]],
        ),
        _norm("wide", "C = 16", normal("wide", 1, 16)),
        _norm("eps-1e-6", "eps = 1e-6 (ViT), variances of about 1e-6", normal("eps-1e-6", 2, 4, scale=1e-3), eps=1e-6),
        _norm(
            "eps-1e-3", "eps = 1e-3 (Keras), variances of about 1e-4", normal("eps-1e-3", 2, 4, scale=1e-2), eps=1e-3
        ),
        _norm("eps-1e-12", "eps = 1e-12, variances of about it", normal("eps-1e-12", 2, 4, scale=1e-6), eps=1e-12),
        _norm("no-rows", "an empty batch has empty answers and gradients of zeros for g and b", np.zeros((0, 4))),
    ]


TAIL = np.array([-4.0, -4.5, -5.0, -5.5, -3.5])
GRID = np.concatenate([np.arange(-8.0, 8.5, 1.0), [-0.5, -0.125, 0.125, 0.5]])
NEAR = bfloat16([-3.3, -2.7, -2.2, -1.4, -0.75, -1e-3, 0.0, 1e-3, 0.75, 1.4, 2.2, 2.7, 3.3])


def _activation(operation: str) -> list[Case]:
    name = operation.replace("_", "-")

    def case(slug: str, about: str, x: np.ndarray) -> Case:
        return Case(f"FFN/{name}-{slug}", operation, about, {"x": x}, {})

    return [
        case("grid", "from -8 to 8", GRID),
        case("where-forms-differ", "the arguments where the erf and tanh forms of GELU differ most", NEAR),
        case("matrix", "any shape", Draw(f"FFN/{name}-matrix").normal(3, 4, scale=2.0)),
        case("batch", "three dimensions", Draw(f"FFN/{name}-batch").normal(2, 1, 3)),
        case("large", "far out: 0 on the left, x on the right, never NaN", np.array([-1000.0, -40.0, 40.0, 1000.0])),
    ]


def relu() -> list[Case]:
    x = np.array([-1.0, 0.0, 2.0])
    return [*_activation("relu"), Case("FFN/relu-at-zero", "relu", "the derivative at exactly 0 is 0", {"x": x}, {})]


def _tails(operation: str, about: str) -> list[Case]:
    name = operation.replace("_", "-")
    return [
        Case(f"FFN/{name}-tail", operation, about, {"x": TAIL}, {}),
        Case(f"FFN/{name}-tail-rows", operation, f"{about}; a row each", {"x": TAIL[:, None]}, {}),
    ]


def gelu_erf() -> list[Case]:
    return [*_activation("gelu_erf"), *_tails("gelu_erf", "tail values alone: 1 + erf has lost their digits")]


def gelu_tanh() -> list[Case]:
    return [*_activation("gelu_tanh"), *_tails("gelu_tanh", "tail values alone, where the forms differ by their size")]


def dropout() -> list[Case]:
    def case(slug: str, about: str, rate: float, *shape: int, keep: Any = None) -> Case:
        draw = Draw(f"DROP/{slug}")
        if keep is None:
            keep = draw.mask(*shape, true=1 - rate)
        return Case(f"DROP/{slug}", "dropout", about, {"x": draw.normal(*shape)}, {"keep": keep, "rate": rate})

    return [
        case("quarter", "kept values are divided by 1 - rate = 0.75", 0.25, 3, 4),
        case("half", "rate = 0.5: dividing by the rate instead would pass, but for the next case", 0.5, 5),
        case("tenth", "rate = 0.1: dividing by the rate is 9 times too large", 0.1, 2, 3, 2),
        case("rate-zero", "rate = 0 and all kept: the identity", 0.0, 4, keep=np.ones(4, bool)),
        case("all-dropped", "nothing kept: zeros", 0.5, 3, keep=np.zeros(3, bool)),
        case(
            "mask-decides",
            "the mask decides, the rate only scales: all kept at rate 0.5",
            0.5,
            3,
            keep=np.ones(3, bool),
        ),
    ]
