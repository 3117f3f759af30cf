"""The language models in small, with what is needed to ask the same of all of them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy

from refllm.generation.cache import KeyValueCache
from refllm.generation.state import CacheAndState, CarriedState
from refllm.models import bert, encoder_decoder, gpt, hybrid, llama, nnlm, recurrent_lm, switch
from refllm.parameters import Tree, map_leaves
from spec_tests.gradients import random_tree

MODELS: tuple[Any, ...] = (bert, encoder_decoder, gpt, hybrid, llama, nnlm, recurrent_lm, switch)
V, S = 7, 8  # vocabulary and context of all of them


def tiny_gpt(**changes: Any) -> gpt.Config:
    usual = {"vocabulary": V, "context": S, "layers": 2, "heads": 2, "width": 8, "hidden": 12}
    return gpt.Config(**{**usual, **changes})


def tiny_llama(**changes: Any) -> llama.Config:
    usual = {"vocabulary": V, "context": S, "layers": 2, "heads": 4, "width": 8, "hidden": 12}
    return llama.Config(**{**usual, **changes})


def tiny_switch(**changes: Any) -> switch.Config:
    usual: dict[str, Any] = {
        "vocabulary": V, "context": S, "layers": 2, "heads": 2, "width": 8, "hidden": 12, "experts": 3,
        "capacity_factor": 1.0,
    }  # fmt: skip
    return switch.Config(**{**usual, **changes})


def tiny_recurrent(**changes: Any) -> recurrent_lm.Config:
    return recurrent_lm.Config(**{"vocabulary": V, "context": S, "width": 3, "hidden": 5, **changes})


def tiny_nnlm(**changes: Any) -> nnlm.Config:
    return nnlm.Config(**{"vocabulary": V, "context": S, "order": 4, "width": 3, "hidden": 5, **changes})


def tiny_hybrid(**changes: Any) -> hybrid.Config:
    usual = {"vocabulary": V, "context": S, "heads": 2, "width": 4, "hidden": 3, "dropout": 0.0}
    return hybrid.Config(**{**usual, **changes})


GPT: dict[str, Any] = {
    "GPT-2": tiny_gpt(),
    "the decoder of 2017": tiny_gpt(norm="post", activation="relu", positions="sinusoidal", tied=False),
    "pre-norm, sinusoidal, untied": tiny_gpt(positions="sinusoidal", tied=False, activation="gelu_erf"),
    "post-norm, learned, tied": tiny_gpt(norm="post"),
    "sinusoidal, scaled, tied": tiny_gpt(positions="sinusoidal", scaled_embedding=True),
}
LLAMA: dict[str, Any] = {
    "rotary, a head of keys each": tiny_llama(),
    "interleaved, one head of keys, tied": tiny_llama(positions="rotary_interleaved", kv_heads=1, tied=True),
    "alibi, heads wider than the model": tiny_llama(positions="alibi", heads=3, head_width=5),
    "relative, two heads of keys, tied": tiny_llama(positions="relative", kv_heads=2, tied=True),
    "no positions, one head": tiny_llama(positions="none", heads=1, kv_heads=1, head_width=3),
    "Llama 3.1": tiny_llama(scaling="llama3", scaling_factor=4.0, scaling_original=6, base=20.0, kv_heads=1),
    "Qwen 2, stretched": tiny_llama(biases="qkv", scaling="linear", scaling_factor=2.0),
    "Qwen 3, windows": tiny_llama(query_key_norm=True, biases="qkvo", windows=(0, 3), head_width=4),
    "Gemma 2": tiny_llama(
        offset_norms=True,
        norms_after=True,
        activation="gelu_tanh",
        scaled_embedding=True,
        score_width=3.0,
        score_cap=1.5,
        logit_cap=2.0,
        windows=(2, 0),
        tied=True,
        kv_heads=2,
    ),
}
SWITCH: dict[str, Any] = {
    "every second layer with experts": tiny_switch(layers=4),
    "every layer with experts, one head": tiny_switch(every=1, heads=1),
    "one expert": tiny_switch(experts=1, capacity_factor=0.5),
}
WITH_STATE: dict[str, Any] = {
    "RNN": tiny_recurrent(cell="rnn"),
    "LSTM": tiny_recurrent(),
    "LSTM, tied": tiny_recurrent(hidden=3, tied=True),
    "RNN, three layers of one unit": tiny_recurrent(cell="rnn", layers=3, width=1, hidden=1),
    "NNLM": tiny_nnlm(),
    "NNLM, direct": tiny_nnlm(direct=True),
    "NNLM of bigrams": tiny_nnlm(order=2, direct=True),
    "NNLM that sees beyond the context": tiny_nnlm(order=10),
    "hybrid": tiny_hybrid(),
    "hybrid, RNN, one head": tiny_hybrid(cell="rnn", layers=1, heads=1, width=3, hidden=4),
}
ALL = {**GPT, **LLAMA, **SWITCH, **WITH_STATE}


def model_of(config: Any) -> ModuleType:
    """The model that offers this kind of config, wherever the config is written."""
    model: ModuleType = next(model for model in MODELS if model.Config is type(config))
    return model


def parameters(config: Any, *, dtype: str = "float64", seed: int = 0) -> Tree:
    """Random ones, away from where a model has a kink or is so steep that a difference quotient is inexact."""
    model = model_of(config)
    p = random_tree(model.shapes(config), seed, scale=0.4 if model in _STACKS else 0.6)
    if model is llama:
        p["token"] *= 3  # away from 0, where the norm is steep
    for layer in p["layers"] if model in _STACKS else []:
        if "switch" in layer:
            layer["switch"]["Wr"] *= 4  # probabilities far from 1 / E
        elif model is gpt and config.activation == "relu":  # units far from the kink, every other one on
            layer["feed_forward"]["W1"] *= 0.1
            layer["feed_forward"]["b1"][...] = 3 * (-1.0) ** numpy.arange(config.hidden)
    return map_leaves(lambda leaf: leaf.astype(dtype), p)


_STACKS = (gpt, llama, switch)  # of Transformer layers


def tokens(B: int, T: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).integers(0, V, (B, T))


def logits(p: Tree, ids: Any, config: Any, cache: Any = None) -> Any:
    return model_of(config).forward(p, ids=ids, config=config, dropout_mask=None, cache=cache)[0]


def draws(config: Any, B: int, T: int) -> Tree:
    random = numpy.random.default_rng(1)
    return map_leaves(lambda width: random.random((B, T, width)) < 0.7, model_of(config).dropout_widths(config))


def store(config: Any, p: Tree, *, batch: int, padding: Any = None) -> Any:
    """What the model keeps of what it has read: keys and values, a carried state, or both."""
    model, like = model_of(config), p["token"]
    kept: list[Any] = []
    if hasattr(model, "cache_shape"):
        layers, heads, head_width = model.cache_shape(config)
        kept.append(
            KeyValueCache(
                batch=batch, layers=layers, heads=heads, room=config.context, head_width=head_width, padding=padding,
                like=like,
            )
        )  # fmt: skip
    if hasattr(model, "state_shapes"):
        kept.append(CarriedState(model.state_shapes(config), batch=batch, padding=padding, like=like))
    return CacheAndState(*kept) if len(kept) == 2 else kept[0]
