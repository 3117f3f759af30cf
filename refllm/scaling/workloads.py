"""What a model asks of machines: how much a token is to compute, to keep and to send."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from refllm.errors import UserError
from refllm.models import gpt, llama
from refllm.models.published import GPT2_SIZES, LLAMA2_SIZES, gpt2, llama2
from refllm.parameters import count, named_leaves


@dataclass(frozen=True)
class Workload:
    """A decoder-only model, the batch of a step, and how long it is trained."""

    parameters: int
    looked_up: int  # of these, the rows of tables that no product reads
    layers: int
    width: int
    kv_width: int  # of the keys of a token
    context: int
    vocabulary: int
    batch: int  # texts of `context` tokens a step, of all processes together
    tokens: float  # of the whole training
    number: int = 2  # bytes of a weight, of a gradient that is sent, and of an activation
    state: int = 12  # bytes that the optimiser keeps for a parameter

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError(f"batch must be at least 1 text, got {self.batch}")
        if not 0 < self.tokens < math.inf:
            raise UserError(f"tokens must be a finite number above 0, got {self.tokens:g}")

    @property
    def flops(self) -> float:
        """Of a token, forward and backward: 6 for each weight of a product, and 12 L C T for attention.

        Source:  Chowdhery et al. 2022 (arXiv:2204.02311) app. B.
        """
        return 6 * (self.parameters - self.looked_up) + self.flops_of_attention

    @property
    def flops_of_attention(self) -> float:
        """Scores and sums of values; half of them are masked, and counted as if they were computed."""
        return 12 * self.layers * self.width * self.context

    @property
    def steps(self) -> float:
        return self.tokens / (self.batch * self.context)


def of_config(config: Any, *, batch: int, tokens: float, model: Any) -> Workload:
    """That of a GPT or a Llama, in bfloat16 with weights and moments in float32."""
    shapes = model.shapes(config)
    by_name = dict(named_leaves(shapes))
    tables = ["position"] if "position" in by_name else []
    tables += [] if config.tied else ["token"]
    heads = getattr(config, "kv_heads", config.heads)
    return Workload(
        parameters=count(shapes), looked_up=sum(math.prod(by_name[name]) for name in tables), layers=config.layers,
        width=config.width, kv_width=config.width // config.heads * heads, context=config.context,
        vocabulary=config.vocabulary, batch=batch, tokens=tokens,
    )  # fmt: skip


TOKENS_A_PARAMETER = 20  # Hoffmann et al. 2022 (arXiv:2203.15556) sec. 3: what is best for a given sum of operations


def _of_gpt2(size: str) -> Workload:
    """512 texts a batch (Radford et al. 2019 sec. 2.3); the report does not say for how many tokens."""
    config = gpt2(size)
    tokens = TOKENS_A_PARAMETER * count(gpt.shapes(config))
    return of_config(config, batch=512, tokens=tokens, model=gpt)


def _of_llama2(size: str) -> Workload:
    """4 million tokens a batch, 2 trillion in all (Touvron et al. 2023, arXiv:2307.09288 sec. 2.2)."""
    return of_config(llama2(size), batch=1024, tokens=2e12, model=llama)


PUBLISHED: dict[str, Callable[[], Workload]] = {
    **{f"gpt2-{size}": partial(_of_gpt2, size) for size in GPT2_SIZES},
    **{f"llama2-{size}": partial(_of_llama2, size) for size in LLAMA2_SIZES},
}


def published(name: str, **changes: Any) -> Workload:
    """The workload of a published size, with another batch or number of tokens where given."""
    if name not in PUBLISHED:
        raise UserError(f"no published size is called {name!r}; there are {', '.join(PUBLISHED)}")
    return replace(PUBLISHED[name](), **{key: value for key, value in changes.items() if value is not None})


def useful_batch(loss: float) -> float:
    """Tokens a step beyond which a larger batch saves hardly any steps, at this loss in nats: 2e8 / loss^(1 / 0.21).

    Source:  Kaplan et al. 2020 (arXiv:2001.08361) sec. 1.2, measured on their data; McCandlish et al. 2018
             (arXiv:1812.06162) has why.
    """
    return float(2e8 / loss ** (1 / 0.21))
