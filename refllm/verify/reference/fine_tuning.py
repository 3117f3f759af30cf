"""Fine-tuning and compression as an implementation: low-rank adapters, distillation, weights of 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.backend import Array
from refllm.finetune import low_rank, stored
from refllm.finetune.distillation import distillation_loss
from refllm.ops.linear import matmul

Pullback = Callable[[Array], Any]


def functions() -> dict[str, Callable[..., Any]]:
    return {"low_rank_linear": low_rank_linear, "distillation_loss": distilled, "quantised": quantised}


def low_rank_linear(x: Array, W: Array, A: Array, B: Array, *, alpha: float) -> tuple[Array, Pullback]:
    adapted, back_adapted = low_rank.low_rank(W, A, B, scale=alpha / A.shape[-1])
    y, back_y = matmul(x, adapted)

    def back(dy: Array) -> tuple[Array, Array, Array, Array]:
        dx, dadapted = back_y(dy)
        return dx, *back_adapted(dadapted)

    return y, back


def distilled(logits: Array, *, teacher: Array, **how: Any) -> tuple[Array, Pullback]:
    return distillation_loss(logits, teacher=teacher.astype(logits.dtype), **how)


def quantised(W: Array) -> tuple[Array, Array]:
    q, s = stored.quantised(W, axis=-2)
    return q.astype("int64"), s[0]
