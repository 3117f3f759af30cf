"""The operations of refllm, its blocks, and what the golden files ask of its metrics and optimisers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from refllm import checkpoint
from refllm.backend import Array, namespace
from refllm.blocks import gated_feed_forward, grouped_attention, llama_layer, switch_layer, transformer_layer
from refllm.blocks.feed_forward import feed_forward
from refllm.blocks.recurrent import bidirectional
from refllm.blocks.self_attention import self_attention
from refllm.metrics import perplexity as exp_of_mean
from refllm.objectives.causal import sentence_log_probability
from refllm.ops import (
    activation,
    attention,
    contrastive,
    cross_entropy,
    dropout,
    embedding,
    layer_norm,
    linear,
    multiply,
    penalty,
    position,
    recurrent,
    relative,
    repeat_heads,
    rms_norm,
    rotary,
    routing,
    soft_cap,
    softmax,
    window,
)  # fmt: skip
from refllm.ops.squared_error import mean_squared_error
from refllm.optim import update
from refllm.optim.clip import clip_factor
from refllm.optim.schedule import warmup_cosine
from refllm.parameters import Tree

Pullback = Callable[[Array], Any]


def functions() -> dict[str, Callable[..., Any]]:
    own: tuple[Any, ...] = (
        linear.linear, linear.matmul, linear.heads, embedding.embedding, position.sinusoidal, position.add_positions,
        attention.attention, attention.biased_attention, soft_cap.soft_cap, soft_cap.capped_attention,
        softmax.softmax, softmax.log_softmax,
        cross_entropy.cross_entropy, cross_entropy.soft_cross_entropy, cross_entropy.smoothed_cross_entropy,
        mean_squared_error, layer_norm.layer_norm, rms_norm.rms_norm, activation.relu, activation.gelu_erf,
        activation.gelu_tanh, activation.silu, activation.tanh, multiply.multiply, dropout.dropout,
        rotary.rotary_halves, rotary.rotary_interleaved, repeat_heads.repeat_heads, relative.t5_bias_causal,
        relative.t5_bias_bidirectional, relative.alibi, routing.gate, routing.load_balance, routing.dispatch,
        routing.combine, routing.expert_matmul, routing.expert_linear, contrastive.mean_pool, contrastive.info_nce,
        penalty.l2_penalty, recurrent.rnn, recurrent.lstm, window.window, update.adam, update.adamw, feed_forward,
        gated_feed_forward.gated_feed_forward, switch_layer.switch_layer, bidirectional,
    )  # fmt: skip
    defined_here = {
        "identity": identity, "sgd": sgd, "clip_by_global_norm": clip_by_global_norm, "warmup_cosine": schedule,
        "self_attention": attend, "grouped_attention": grouped, "transformer_layer": layer, "llama_layer": of_llama,
        "chain_rule": chain_rule, "perplexity": perplexity,
    }  # fmt: skip
    return {function.__name__: function for function in own} | defined_here


def identity(x: Array) -> Array:
    """A tensor written into a checkpoint and read back."""
    with tempfile.TemporaryDirectory() as directory:
        checkpoint.save(Path(directory), {}, {"tensors": {"x": x}}, step=0)
        _, read = checkpoint.load(Path(directory))
        return read("tensors")["x"]


def sgd(p: Array, g: Array, v: Array, *, lr: float, momentum: float) -> tuple[Array, Array]:
    return update.sgd(p, g, v, lr=lr, momentum=momentum, decay=0.0)


def clip_by_global_norm(g: list[Array], *, clip: float) -> tuple[Array, list[Array]]:
    norm, factor = clip_factor(g, limit=clip)
    with numpy.errstate(invalid="ignore"):  # an infinite gradient times 0
        return norm, [x * factor for x in g]


def schedule(*, step: int, max_lr: float, warmup: float, total: float, min_lr: float) -> float:
    return warmup_cosine(step, max_lr=max_lr, warmup=warmup, total=total, min_lr=min_lr)


def attend(x: Array, p: Tree, *, heads: int, causal: bool, attention_mask: Array | None) -> tuple[Array, Pullback]:
    return self_attention(x, p, heads=heads, causal=causal, attention_mask=attention_mask, cache=None)


def grouped(x: Array, p: Tree, **how: Any) -> tuple[Array, Pullback]:
    y, back = grouped_attention.grouped_attention(x, None, p, **how, cap=None, stretch=1.0, eps=1e-5, cache=None)
    return y, without_bias(back)


def layer(x: Array, p: Tree, **how: Any) -> tuple[Array, Pullback]:
    y, back = transformer_layer.transformer_layer(x, p, **how, dropout_mask=None, rate=0.0, cache=None)
    return y, back


def of_llama(x: Array, p: Tree, **how: Any) -> tuple[Array, Pullback]:
    forms: dict[str, Any] = {"cap": None, "stretch": 1.0, "activation": "silu"}
    y, back = llama_layer.llama_layer(x, None, p, **how, **forms, dropout_mask=None, rate=0.0, cache=None)
    return y, without_bias(back)


def without_bias(back: Pullback) -> Pullback:
    """The gradients of the input and of the parameters, where there is no bias by distance."""

    def pulled(dy: Array) -> tuple[Array, Tree]:
        dx, _, dp = back(dy)
        return dx, dp

    return pulled


def chain_rule(logits: Array, *, ids: Array) -> tuple[Array, Pullback]:
    """The log probability of each sentence, and the pullback of the sum."""
    _, back_nll = cross_entropy.cross_entropy(logits, targets=ids, ignore=None, reduction="none")
    y = sentence_log_probability(logits, ids=ids, ignore=None)
    return y, lambda dy: back_nll(namespace(dy).broadcast_to(-dy[..., None], ids.shape).copy())


def perplexity(logits: Array, *, ids: Array) -> tuple[Array, Pullback]:
    nll, back_nll = cross_entropy.cross_entropy(logits, targets=ids, ignore=None, reduction="sum")
    y = namespace(logits).full((), exp_of_mean(float(nll), ids.size), logits.dtype)
    return y, lambda dy: back_nll(dy * y / ids.size)
