"""How large the measured things are, and the data that both sides get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from refllm.models import gpt
from refllm.parameters import Tree, map_leaves
from refllm.train import Settings


@dataclass(frozen=True)
class Sizes:
    config: gpt.Config
    batch: int
    new_tokens: int
    attention: tuple[int, int, int, int]  # B, H, T, D
    examples: int  # for each operation and dtype
    warmup: int
    repeats: int

    def settings(self) -> Settings:
        return Settings(
            batch=self.batch, lr=1e-3, warmup=0.0, floor=0.0, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.1, clip=1.0,
            seed=1, shards=1, dtype="float32", device="cuda",
        )  # fmt: skip

    def parameters(self) -> Tree:
        fresh = gpt.initial(self.config, numpy.random.default_rng(0))
        return map_leaves(lambda a: a.astype("float32"), fresh)

    def tokens(self) -> Any:
        shape = (self.batch, self.config.context + 1)
        return numpy.random.default_rng(1).integers(0, self.config.vocabulary, shape)

    def prompt(self) -> Any:
        return self.tokens()[:1, :1]

    def attention_arrays(self) -> list[Any]:
        """q, k, v and the gradient of the value."""
        random = numpy.random.default_rng(2)
        return [random.standard_normal(self.attention, dtype="float32") for _ in range(4)]


USUAL = Sizes(
    config=gpt.Config(vocabulary=512, context=256, layers=6, heads=6, width=384, hidden=1536),
    batch=32, new_tokens=200, attention=(4, 12, 1024, 64), examples=50, warmup=3, repeats=10,
)  # fmt: skip
