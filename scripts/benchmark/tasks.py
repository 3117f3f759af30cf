"""What is measured: shapes, inputs and the arithmetic that cannot be avoided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from refllm.models.gpt import Config, initial, shapes
from refllm.parameters import count, map_leaves


@dataclass(frozen=True)
class Shape:
    """A GPT and its batch."""

    vocabulary: int
    layers: int
    heads: int
    width: int
    context: int
    batch: int

    @property
    def config(self) -> Config:
        return Config(
            vocabulary=self.vocabulary, context=self.context, layers=self.layers, heads=self.heads, width=self.width,
            hidden=4 * self.width,
        )  # fmt: skip

    def parameters(self) -> Any:
        rng = np.random.default_rng(0)
        return map_leaves(lambda a: a.astype(np.float32), initial(self.config, rng))

    def tokens(self) -> Any:
        return np.random.default_rng(1).integers(0, self.vocabulary, (self.batch, self.context + 1))

    def products(self) -> list[tuple[int, int, int, int]]:
        """The matrix products of a training step as (times, rows, inner, columns): forward, and for the gradients of
        both factors. Of the attention's square only the half under the diagonal counts."""
        N, C, L, D = self.batch * self.context, self.width, self.layers, self.width // self.heads
        forward = [(L, N, C, 3 * C), (L, N, C, C), (L, N, C, 4 * C), (L, N, 4 * C, C), (1, N, C, self.vocabulary)]
        half = max(1, self.context // 2)
        squares = [
            (L * self.batch * self.heads, self.context, D, half),
            (L * self.batch * self.heads, self.context, half, D),
        ]
        both = []
        for times, m, k, n in forward + squares:
            both += [(times, m, k, n), (times, m, n, k), (times, k, m, n)]
        return both

    @property
    def size(self) -> int:
        return count(shapes(self.config))


STEPS = {
    "tiny": Shape(96, 4, 4, 128, 64, 12),
    "small": Shape(256, 6, 6, 384, 256, 8),
    "wide": Shape(8192, 4, 4, 256, 128, 8),
}
GENERATIONS = {"small": (Shape(256, 6, 6, 384, 256, 1), 200), "124M": (Shape(50257, 12, 12, 768, 1024, 1), 40)}
ATTENTION = (1024, 4096, 16384, 32768)  # lengths, with 4 heads of width 64
ADAMW = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "decay": 0.1, "clip": 1.0}
