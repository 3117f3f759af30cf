"""The language models before the Transformer as implementations: recurrent, over a window of words, and the hybrid."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from refllm.backend import Array, namespace, to_host
from refllm.blocks.recurrent import recurrent_layers
from refllm.blocks.self_attention import self_attention
from refllm.models import hybrid, nnlm, recurrent_lm
from refllm.objectives.causal import causal_loss
from refllm.ops.activation import tanh
from refllm.ops.embedding import embedding
from refllm.ops.linear import linear, matmul
from refllm.ops.position import sinusoidal
from refllm.ops.window import window
from refllm.parameters import Tree
from refllm.verify import taps
from refllm.verify.case import Case

MODELS: dict[str, ModuleType] = {"recurrent_lm": recurrent_lm, "nnlm": nnlm, "hybrid": hybrid}
Answer = tuple[Array, Callable[[Array], Tree], dict[str, Array]]


def functions() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {"hybrid_states": hybrid_states}
    for name in MODELS:
        found |= {name: partial(logits, name), f"{name}_loss": partial(loss, name)}
    return found


def logits(name: str, p: Tree, *, ids: Array, config: dict[str, Any]) -> Answer:
    model = MODELS[name]
    y, back = model.forward(p, ids=ids, config=model.Config(**config), dropout_mask=None, cache=None)
    return y, back, taps.values(STAGES[name](p, ids, config), {})


def loss(name: str, p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: dict[str, Any]) -> Answer:
    """The mean over the targets that count."""
    model = MODELS[name]
    total, back_total = causal_loss(
        p, model=model, ids=ids, targets=targets, ignore=ignore, config=model.Config(**config), dropout_mask=None
    )
    count = total.dtype.type(targets.size if ignore is None else int((to_host(targets) != ignore).sum()))
    return total / count, lambda dy: back_total(dy / count), taps.values(STAGES[name](p, ids, config), {})


def hybrid_states(p: Tree, *, ids: Array, attention_mask: Array | None, config: dict[str, Any]) -> Answer:
    y, back = hybrid.encode(
        p, ids=ids, attention_mask=attention_mask, config=hybrid.Config(**config), dropout_mask=None
    )

    def whole(dy: Array) -> Tree:
        return {**back(dy), "head": namespace(p["head"]).zeros_like(p["head"])}  # which has no part in the states

    return y, whole, taps.values(_hybrid_stages(p, ids, attention_mask, config), {})


def stages(case: Case, arguments: Tree, keywords: dict[str, Any]) -> list[taps.Stage]:
    """From the embedding to the last layer's states, or to the logits."""
    if case.operation == "hybrid_states":
        return _hybrid_stages(arguments["p"], keywords["ids"], keywords["attention_mask"], keywords["config"])
    name = keywords.get("model", "") if case.operation == "train_step" else case.operation.removesuffix("_loss")
    return STAGES[name](arguments["p"], keywords["ids"], keywords["config"]) if name in STAGES else []


def _logits_of(p: Tree, name: str, config: dict[str, Any]) -> Callable[[Array], Array]:
    model = MODELS[name]
    return lambda h: matmul(h, model.head(p, model.Config(**config)))[0]


def _recurrent_lm_stages(p: Tree, ids: Array, config: dict[str, Any]) -> list[taps.Stage]:
    found = [taps.Stage("embedding", (), lambda: embedding(p["token"], ids=ids)[0])]
    found += _layers(p["layers"], found[-1].name, None, config)
    return [*found, taps.Stage("logits", (found[-1].name,), _logits_of(p, "recurrent_lm", config))]


def _layers(layers: list[Tree], x: str, token_mask: Array | None, config: dict[str, Any]) -> list[taps.Stage]:
    """The recurrent layers on the value `x`."""

    def run(layer: Tree) -> Callable[[Array], Array]:
        how: dict[str, Any] = {
            "cell": config["cell"],
            "token_mask": token_mask,
            "states": None,
            "dropout_mask": None,
            "rate": 0.0,
        }
        return lambda z: recurrent_layers(z, [layer], **how)[0]

    below = [x, *(f"layers.{i}" for i in range(len(layers)))]
    return [taps.Stage(below[i + 1], (below[i],), run(layer)) for i, layer in enumerate(layers)]


def _nnlm_stages(p: Tree, ids: Array, config: dict[str, Any]) -> list[taps.Stage]:
    places = config["order"] - 1

    def seen() -> Array:
        e, _ = embedding(p["token"], ids=ids)
        past = namespace(e).zeros((len(ids), places - 1, config["width"]), e.dtype)
        return window(e, past, places=places, token_mask=None)[0]

    def squashed(x: Array) -> Array:
        return tanh(linear(x, p["H"], p["d"])[0])[0]

    def out(x: Array, a: Array) -> Array:
        y, _ = linear(a, p["U"], p["b"])
        return y + matmul(x, p["W"])[0] if config["direct"] else y

    return [
        taps.Stage("window", (), seen), taps.Stage("hidden", ("window",), squashed),
        taps.Stage("logits", ("window", "hidden"), out),
    ]  # fmt: skip


def _hybrid_stages(p: Tree, ids: Array, attention_mask: Array | None, config: dict[str, Any]) -> list[taps.Stage]:
    keys = None if attention_mask is None else attention_mask[:, None, None, :]

    def embed() -> Array:
        e, _ = embedding(p["token"], ids=ids)
        return e + sinusoidal(namespace(e).arange(ids.shape[1]).astype(e.dtype), width=config["width"])[0]

    def attended(x: Array) -> Array:
        how: dict[str, Any] = {"heads": config["heads"], "causal": not config["bidirectional"], "attention_mask": keys}
        return self_attention(x, p["attention"], **how, cache=None)[0]

    found = [taps.Stage("embedding", (), embed), taps.Stage("attention", ("embedding",), attended)]
    return found + _layers(p["layers"], "attention", attention_mask, config)


def _hybrid_lm_stages(p: Tree, ids: Array, config: dict[str, Any]) -> list[taps.Stage]:
    found = _hybrid_stages(p, ids, None, config)
    return [*found, taps.Stage("logits", (found[-1].name,), _logits_of(p, "hybrid", config))]


STAGES: dict[str, Callable[[Tree, Array, dict[str, Any]], list[taps.Stage]]] = {
    "recurrent_lm": _recurrent_lm_stages, "nnlm": _nnlm_stages, "hybrid": _hybrid_lm_stages,
}  # fmt: skip
