"""L2: feed-forward, self-attention and the Transformer layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw
from golden.shapes import transformer_layer as layer_shapes


def parameters(
    draw: Draw, shapes: dict[str, tuple[int, ...]], prefix: str = "p.", scale: float = 0.5
) -> dict[str, np.ndarray]:
    """Gains near 1, everything else of order `scale`, and no two alike: a zero bias would hide its own loss."""
    found = {}
    for name, shape in shapes.items():
        gain = name.endswith(".g")
        found[prefix + name] = draw.normal(*shape, scale=0.25 if gain else scale, offset=float(gain))
    return found


def _block(part: str, C: int, F: int = 0) -> dict[str, tuple[int, ...]]:
    """The shapes of one block of the layer."""
    part += "."
    return {name.removeprefix(part): s for name, s in layer_shapes(C, F).items() if name.startswith(part)}


def feed_forward() -> list[Case]:
    def case(slug: str, about: str, x: tuple[int, ...], F: int, activation: str) -> Case:
        draw = Draw(f"FFN/{slug}")
        inputs = {"x": draw.normal(*x, scale=2.0), **parameters(draw, _block("feed_forward", x[-1], F))}
        return Case(f"FFN/{slug}", "feed_forward", about, inputs, {"activation": activation})

    return [
        case("relu", "max(0, x W1 + b1) W2 + b2, wider inside", (3, 4), 8, "relu"),
        case("gelu-tanh", "GELU's tanh form between the matrices (GPT-2)", (3, 4), 8, "gelu_tanh"),
        case("gelu-erf", "GELU exactly (BERT)", (3, 4), 8, "gelu_erf"),
        case("batch-narrow", "(B, T, C) and narrower inside than outside", (2, 2, 5), 3, "relu"),
        case("square", "F = C: a transposed matrix has the right shape", (2, 3), 3, "gelu_tanh"),
    ]


def self_attention() -> list[Case]:
    def case(
        slug: str, about: str, x: tuple[int, ...], heads: int, *, causal: bool = False, allowed: Any = None, **more: Any
    ) -> Case:
        draw = Draw(f"MHA/{slug}")
        inputs = {"x": draw.normal(*x), **parameters(draw, _block("attention", x[-1]))}
        if allowed is not None:
            allowed = np.array(allowed, dtype=bool)
        keywords = {"heads": heads, "causal": causal, "allowed": allowed}
        return Case(f"MHA/{slug}", "self_attention", about, inputs, keywords, **more)

    padding = np.array([[True, True, False], [False, True, True]]).reshape(2, 1, 1, 3)
    return [
        case("one-head", "one head of the full width", (3, 4), 1),
        case("two-heads", "two heads; the gradient of the key bias is exactly 0", (3, 4), 2),
        case("three-heads-of-one", "heads of width 1", (3, 3), 3),
        case("tokens-as-many-as-heads", "H = T: heads and tokens cannot be told apart by shape", (2, 4), 2),
        case("causal", "the causal mask in every head", (4, 4), 2, causal=True),
        case("batch-causal", "(B, T, C)", (2, 3, 4), 2, causal=True),
        case(
            "padding",
            "a mask (B, 1, 1, S) over the keys, on the right in one sentence, on the left in the other",
            (2, 3, 4),
            2,
            allowed=padding,
        ),
        case(
            "causal-left-padding",
            "the first query of the second sentence has no key: the output is the bias alone",
            (2, 3, 4),
            2,
            causal=True,
            allowed=padding,
        ),
        case(
            "e3-head-width",
            "scores are divided by sqrt(2), the width of one head, not sqrt(8), the embedding dimension",
            (2, 8),
            4,
            erratum="E3",
            printed={"d_k": 8},
        ),
    ]


def transformer_layer() -> list[Case]:
    def case(
        slug: str,
        about: str,
        x: tuple[int, ...],
        F: int,
        *,
        norm: str,
        activation: str,
        heads: int = 2,
        causal: bool = True,
        allowed: Any = None,
        eps: float = 1e-5,
    ) -> Case:
        draw = Draw(f"LN/{slug}")
        inputs = {"x": draw.normal(*x), **parameters(draw, layer_shapes(x[-1], F))}
        keywords = {
            "norm": norm,
            "heads": heads,
            "causal": causal,
            "allowed": allowed,
            "activation": activation,
            "eps": eps,
        }
        return Case(f"LN/{slug}", "transformer_layer", about, inputs, keywords, taps=True)

    mask = np.array([True, True, False]).reshape(1, 3)
    return [
        case(
            "layer-pre",
            "x + attention(LN(x)), then x + feed_forward(LN(x)): GPT-2",
            (4, 4),
            8,
            norm="pre",
            activation="gelu_tanh",
        ),
        case(
            "layer-post",
            "LN(x + attention(x)), then LN(x + feed_forward(x)): Vaswani 2017",
            (4, 4),
            8,
            norm="post",
            activation="relu",
        ),
        case(
            "layer-pre-batch",
            "(B, T, C), not causal, with padding",
            (2, 3, 4),
            6,
            norm="pre",
            activation="gelu_erf",
            causal=False,
            allowed=mask,
        ),
        case(
            "layer-post-large-eps", "eps = 0.25, batch, causal", (2, 3, 4), 6, norm="post", activation="relu", eps=0.25
        ),
    ]
