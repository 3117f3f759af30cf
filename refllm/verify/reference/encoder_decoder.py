"""The encoder-decoder as an implementation: cross-attention, the logits and the losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.backend import Array, to_host
from refllm.blocks import cross_attention as reading
from refllm.models import encoder_decoder as model
from refllm.objectives import denoising, seq2seq
from refllm.parameters import Tree

Pullback = Callable[..., Any]


def functions() -> dict[str, Callable[..., Any]]:
    return {
        "cross_attention": cross_attention, "encoder_decoder": encoder_decoder, "seq2seq_loss": seq2seq_loss,
        "denoising_loss": denoising_loss,
    }  # fmt: skip


def cross_attention(
    x: Array, memory: Array, p: Tree, *, heads: int, scaled: bool, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    return reading.cross_attention(x, memory, p, heads=heads, scaled=scaled, attention_mask=attention_mask, cache=None)


def encoder_decoder(
    p: Tree, *, source: Array, attention_mask: Array | None, ids: Array, config: dict[str, Any]
) -> tuple[Array, Pullback]:
    texts: dict[str, Any] = {"source": source, "attention_mask": attention_mask, "ids": ids}
    y, back = model.forward(p, **texts, config=model.Config(**config), dropout_mask=None)
    return y, back


def seq2seq_loss(
    p: Tree, *, targets: Array, start: int, ignore: int, config: dict[str, Any], **how: Any
) -> tuple[Array, Pullback]:
    """The mean over the targets that count."""
    y, back = seq2seq.seq2seq_loss(
        p, model=model, inputs=seq2seq.shifted_right(targets, start=start, ignore=ignore), targets=targets,
        ignore=ignore, config=model.Config(**config), dropout_mask=None, **how,
    )  # fmt: skip
    count = y.dtype.type(int((to_host(targets) != ignore).sum()))
    return y / count, lambda dy: back(dy / count)


def denoising_loss(p: Tree, *, counted: Array, config: dict[str, Any], **how: Any) -> tuple[Array, Pullback]:
    """The mean over the places that count."""
    y, back = denoising.denoising_loss(
        p, model=model, counted=counted, config=model.Config(**config), dropout_mask=None, **how
    )
    count = y.dtype.type(int(to_host(counted).sum()))
    return y / count, lambda dy: back(dy / count)
