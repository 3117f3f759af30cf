"""The encoder-decoder as an implementation: cross-attention, the logits, the losses, and the stages between."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from refllm.backend import Array, namespace, to_host
from refllm.blocks import cross_attention as reading
from refllm.blocks.encoder_layer import maybe_gated
from refllm.blocks.relative_self_attention import relative_self_attention
from refllm.blocks.residual import normalise
from refllm.models import encoder_decoder as model
from refllm.objectives import denoising, seq2seq
from refllm.ops.embedding import embedding
from refllm.ops.linear import matmul
from refllm.ops.position import sinusoidal
from refllm.ops.relative import t5_bias_bidirectional, t5_bias_causal
from refllm.parameters import Tree
from refllm.verify import taps
from refllm.verify.case import Case

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
) -> tuple[Array, Pullback, dict[str, Array]]:
    texts: dict[str, Any] = {"source": source, "attention_mask": attention_mask, "ids": ids}
    y, back = model.forward(p, **texts, config=model.Config(**config), dropout_mask=None)
    return y, back, taps.values(_stages(p, **texts, config=config), {})


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


def stages(case: Case, arguments: Tree, keywords: dict[str, Any]) -> list[taps.Stage]:
    """From the embedding of the source to the logits."""
    return _stages(arguments["p"], **keywords) if case.operation == "encoder_decoder" else []


def _stages(
    p: Tree, *, source: Array, attention_mask: Array | None, ids: Array, config: dict[str, Any]
) -> list[taps.Stage]:
    keys = None if attention_mask is None else attention_mask[:, None, None, :]
    found = _half(p, source, "encoder", None, keys, config)
    found += _half(p, ids, "decoder", found[-1].name, keys, config)

    def out(h: Array) -> Array:
        scale = 1 / math.sqrt(config["width"]) if config["scaled_output"] else 1.0
        return matmul(h * scale, model.head(p, model.Config(**config)))[0]

    return [*found, taps.Stage("logits", (found[-1].name,), out)]


def _half(
    p: Tree, ids: Array, half: str, memory: str | None, keys: Array | None, config: dict[str, Any]
) -> list[taps.Stage]:
    """The stages of the encoder, or of the decoder, which reads the value `memory`."""
    stack, T = p[half], ids.shape[1]

    def embed() -> Array:
        x, _ = embedding(p["token"], ids=ids)
        x = x * math.sqrt(config["width"]) if config["scaled_embedding"] else x
        if config["positions"] == "learned":
            x = x + stack["position"][:T]
        elif config["positions"] == "sinusoidal":
            x = x + sinusoidal(namespace(x).arange(T).astype(x.dtype), width=config["width"])[0]
        return normalise(x, stack["embedding_norm"], eps=config["eps"])[0] if config["embedding_norm"] else x

    r = None
    if config["positions"] == "relative":
        bias = t5_bias_bidirectional if memory is None else t5_bias_causal
        r, _ = bias(stack["relative"], queries=T, keys=T, farthest=config["farthest"])
    found = [taps.Stage(f"{half}.embedding", (), embed)]
    for i, layer in enumerate(stack["layers"]):
        found += _layer(layer, found[-1].name, f"{half}.layers.{i}.", r, memory, keys, config)
    if config["norm"] == "pre":
        found.append(_normed(f"{half}.norm", found[-1].name, stack["norm"], config))
    return found


def _normed(name: str, x: str, p: Tree, config: dict[str, Any]) -> taps.Stage:
    return taps.Stage(name, (x,), lambda z: normalise(z, p, eps=config["eps"])[0])


def _layer(
    p: Tree, x: str, prefix: str, r: Array | None, memory: str | None, keys: Array | None, config: dict[str, Any]
) -> list[taps.Stage]:
    """Each sublayer with its residual and its norm, in the order of the architecture."""
    how = {"heads": config["heads"], "scaled": config["positions"] != "relative"}

    def attended(z: Array) -> Array:
        own = None if memory else keys
        attention = relative_self_attention(
            z, r, p["attention"], causal=bool(memory), attention_mask=own, cache=None, **how
        )
        return attention[0]

    def read(z: Array, m: Array) -> Array:
        return reading.cross_attention(z, m, p["cross_attention"], attention_mask=keys, cache=None, **how)[0]

    def fed(z: Array) -> Array:
        return maybe_gated(z, p["feed_forward"], activation=config["activation"])[0]

    sublayers: dict[str, Callable[..., Array]] = {"attention": attended, "cross_attention": read, "feed_forward": fed}
    found: list[taps.Stage] = []
    for n, name in enumerate((name for name in sublayers if name in p), start=1):
        norm, residual, value = f"{prefix}norm{n}", f"{prefix}residual{n}", prefix + name
        given = norm if config["norm"] == "pre" else x
        sources = (given, memory) if name == "cross_attention" and memory else (given,)
        middle = [taps.Stage(value, sources, sublayers[name]), taps.Stage(residual, (x, value), lambda z, d: z + d)]
        if config["norm"] == "pre":
            found += [_normed(norm, x, p[f"norm{n}"], config), *middle]
            x = residual
        else:
            found += [*middle, _normed(norm, residual, p[f"norm{n}"], config)]
            x = norm
    return found
