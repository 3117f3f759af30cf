"""refllm as an implementation: its functions by the operation names of the golden files, and the stages of a GPT."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from refllm import checkpoint
from refllm.backend import Array, namespace, to_host
from refllm.blocks.feed_forward import feed_forward
from refllm.blocks.self_attention import self_attention
from refllm.blocks.transformer_layer import transformer_layer
from refllm.generation import generate as generation
from refllm.generation.sampling import choose
from refllm.metrics import perplexity as exp_of_mean
from refllm.models import by_name, gpt
from refllm.objectives.causal import causal_loss, sentence_log_probability
from refllm.ops import activation, attention, cross_entropy, dropout, embedding, layer_norm, linear, position, softmax
from refllm.ops.squared_error import mean_squared_error
from refllm.optim import update
from refllm.optim.clip import clip_factor
from refllm.optim.schedule import warmup_cosine
from refllm.parameters import Tree, is_decayed, map_leaves
from refllm.verify import families, taps
from refllm.verify.keywords import as_golden

DTYPES = ("float64", "float32")
Pullback = Callable[[Array], Any]


def functions() -> dict[str, Callable[..., Any]]:
    """Every operation of the golden files, with their names and keywords."""
    own: tuple[Any, ...] = (
        linear.linear, linear.matmul, linear.heads, embedding.embedding, position.sinusoidal, position.add_positions,
        attention.attention, softmax.softmax, softmax.log_softmax, cross_entropy.cross_entropy,
        cross_entropy.soft_cross_entropy, mean_squared_error, layer_norm.layer_norm, activation.relu,
        activation.gelu_erf, activation.gelu_tanh, dropout.dropout, update.adam, update.adamw, feed_forward,
    )  # fmt: skip
    defined_here = {
        "identity": identity, "sgd": sgd, "clip_by_global_norm": clip_by_global_norm, "warmup_cosine": schedule,
        "self_attention": attend, "transformer_layer": layer, "gpt": logits, "gpt_loss": loss,
        "chain_rule": chain_rule, "perplexity": perplexity, "train_step": train_step, "train": train,
        "generate": generate, "sample": sample,
    }  # fmt: skip
    found = {function.__name__: function for function in own} | defined_here
    for family in families.modules():
        found |= family.functions()
    return as_golden(found)


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


def layer(x: Array, p: Tree, **how: Any) -> tuple[Array, Pullback, dict[str, Array]]:
    y, back = transformer_layer(x, p, **how, dropout_mask=None, rate=0.0, cache=None)
    return y, back, taps.values(taps.layer_stages(p, "x", "", **how), {"x": x})


def logits(p: Tree, *, ids: Array, config: dict[str, Any]) -> tuple[Array, Pullback, dict[str, Array]]:
    """Ids (T,) are a batch of one."""
    batch = ids if ids.ndim == 2 else ids[None]
    y, back = gpt.forward(p, ids=batch, config=gpt.Config(**config), dropout_mask=None, cache=None)
    found = taps.values(taps.gpt_stages(p, ids=batch, config=config), {})
    if ids.ndim == 2:
        return y, back, found
    return y[0], lambda dy: back(dy[None]), {name: x[0] for name, x in found.items()}


def loss(
    p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: dict[str, Any]
) -> tuple[Array, Pullback, dict[str, Array]]:
    """The mean over the targets that count; 0 if there is none."""
    total, back_total = causal_loss(
        p, model=gpt, ids=ids, targets=targets, ignore=ignore, config=gpt.Config(**config), dropout_mask=None
    )
    count = targets.size if ignore is None else int((targets != ignore).sum())
    share = 1 / max(1, count)
    found = taps.values(taps.gpt_stages(p, ids=ids, config=config), {})
    return total * total.dtype.type(share), lambda dy: back_total(dy * dy.dtype.type(share)), found


def chain_rule(logits: Array, *, ids: Array) -> tuple[Array, Pullback]:
    """The log probability of each sentence, and the pullback of the sum."""
    _, back_nll = cross_entropy.cross_entropy(logits, targets=ids, ignore=None, reduction="none")
    y = sentence_log_probability(logits, ids=ids, ignore=None)
    return y, lambda dy: back_nll(namespace(dy).broadcast_to(-dy[..., None], ids.shape).copy())


def perplexity(logits: Array, *, ids: Array) -> tuple[Array, Pullback]:
    nll, back_nll = cross_entropy.cross_entropy(logits, targets=ids, ignore=None, reduction="sum")
    y = namespace(logits).full((), exp_of_mean(float(nll), ids.size), logits.dtype)
    return y, lambda dy: back_nll(dy * y / ids.size)


def train_step(
    p: Tree, m: Tree, v: Tree, *, ids: Array, targets: Array, ignore: int | None, step: int, lr: float, beta1: float,
    beta2: float, eps: float, decay: float, clip: float | None, config: dict[str, Any], model: str = "gpt",
) -> tuple[tuple[Array, Array, Tree, Tree, Tree], None, dict[str, Array]]:  # fmt: skip
    """One step of AdamW on the mean loss: loss, norm of the gradient, parameters and moments."""
    of_model = loss if model == "gpt" else functions()[f"{model}_loss"]
    mean, back, found = of_model(p, ids=ids, targets=targets, ignore=ignore, config=config)
    g = back(namespace(mean).ones_like(mean))
    leaves: list[Array] = []
    map_leaves(leaves.append, g)
    norm, factor = clip_factor(leaves, limit=math.inf if clip is None else clip)

    def one(p: Array, g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
        return update.adamw(
            p, g * factor, m, v, step=step, lr=lr, beta1=beta1, beta2=beta2, eps=eps,
            decay=decay if is_decayed(p.shape) else 0.0,
        )  # fmt: skip

    new = map_leaves(one, p, g, m, v)
    p, m, v = (map_leaves(lambda leaf, i=i: leaf[i], new) for i in range(3))
    return (mean, norm, p, m, v), None, found


def train(
    p: Tree, m: Tree, v: Tree, *, ids: Array, targets: Array, first: int, **settings: Any
) -> tuple[Array, Array, Tree, Tree, Tree]:
    """Step `first + n` on batch `ids[n]`: every loss and norm, and the last state."""
    losses, norms = [], []
    for n in range(len(ids)):
        (mean, norm, p, m, v), _, _ = train_step(p, m, v, ids=ids[n], targets=targets[n], step=first + n, **settings)
        losses.append(mean)
        norms.append(norm)
    xp = namespace(losses[0])
    return xp.stack(losses), xp.stack(norms), p, m, v


def generate(p: Tree, *, ids: Array, config: dict[str, Any], model: str = "gpt", **how: Any) -> tuple[Array, Array]:
    """The prompts (T,) or (B, T) with the new tokens, and the logits (..., new tokens, V) that each was chosen from."""
    if ids.ndim == 1:
        if how["uniforms"] is not None:
            how["uniforms"] = how["uniforms"][None]
        tokens, found = generate(p, ids=ids[None], config=config, model=model, **how)
        return tokens[0], found[0]
    how["uniforms"] = None if how["uniforms"] is None else to_host(how["uniforms"])  # tokens are chosen on the host
    own = by_name(model)
    steps = list(generation.generate(p, model=own, ids=ids, padding=None, config=own.Config(**config), **how))
    tokens = numpy.stack([chosen for chosen, _ in steps], axis=1)
    return numpy.concatenate([to_host(ids), tokens], axis=1), numpy.stack([each for _, each in steps], axis=1)


def sample(
    logits: Array, *, temperature: float, top_k: int | None, top_p: float | None, uniforms: Array | None
) -> Array:
    return choose(logits, temperature=temperature, top_k=top_k, top_p=top_p, uniforms=uniforms)
